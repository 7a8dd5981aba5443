// The last hour by the minute: how many incidents began, stacked by severity.

const MINUTE = 60_000;
export const MINUTES = 60, BANDS = 5;

/** When an incident began, as far as that is known. */
const began = (row) => (Number.isNaN(row.created) ? row.seen : row.created);

/** Critical, high, medium, low, and the rest. */
const band = ({ rank }) => Math.min(rank, BANDS - 1);

/** The beginnings of the minutes (s), and for each band how many incidents began in each. */
export function lastHour(rows, now) {
  const end = Math.floor(now / MINUTE), start = end - MINUTES + 1;
  const minutes = Array.from({ length: MINUTES }, (_, at) => (start + at) * 60);
  const bands = Array.from({ length: BANDS }, () => new Array(MINUTES).fill(0));
  for (const row of rows) {
    const at = Math.floor(began(row) / MINUTE) - start;
    if (at >= 0 && at < MINUTES) bands[band(row)][at] += 1;
  }
  return { minutes, bands };
}

/** The worst stands at the bottom: each band is drawn on top of those that are worse. */
export function stacked(bands) {
  const sums = [];
  for (const band of bands) sums.push(band.map((value, at) => value + (sums.at(-1)?.[at] ?? 0)));
  return sums;
}
