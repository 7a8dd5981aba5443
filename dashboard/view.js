// What of the picture is shown and in which order: filter, search and sort, and how they stand in the URL.

/** Each sorts what is open before what is resolved; `down` turns only what comes after that. */
const ORDERS = new Map([
  ["attention", (a, b) => a.rank - b.rank || newest(a, b)],
  ["changed", (a, b) => newest(a, b)],
  ["severity", (a, b) => a.rank - b.rank || compare(a.severity, b.severity)],
  ["status", (a, b) => compare(a.status, b.status)],
  ["incident", (a, b) => compare(a.id, b.id)],
  ["type", (a, b) => compare(a.type, b.type)],
  ["resource", (a, b) => compare(a.resource, b.resource)],
]);
export const SORTS = [...ORDERS.keys()];

const compare = (a, b) => (a < b ? -1 : +(a > b));
const time = (row) => (Number.isNaN(row.updated) ? row.seen : row.updated);
const newest = (a, b) => time(b) - time(a);

export const EVERYTHING = Object.freeze({
  severity: [], status: [], search: "", sort: "attention", reversed: false, unacknowledged: false, incident: "",
});

/** @param {URLSearchParams} query */
export function fromQuery(query) {
  const sort = query.get("sort") ?? "", name = sort.replace(/^-/, "");
  return {
    severity: query.getAll("severity"), status: query.getAll("status"), search: query.get("q") ?? "",
    sort: ORDERS.has(name) ? name : "attention", reversed: ORDERS.has(name) && sort.startsWith("-"),
    unacknowledged: query.has("unacknowledged"), incident: query.get("incident") ?? "",
  };
}

/** The query of a view; what the URL had beside ours stays. */
export function toQuery(view, before = "") {
  const query = new URLSearchParams(before);
  for (const name of ["severity", "status", "q", "sort", "unacknowledged", "incident"]) query.delete(name);
  for (const each of view.severity) query.append("severity", each);
  for (const each of view.status) query.append("status", each);
  if (view.search) query.set("q", view.search);
  if (view.sort !== "attention" || view.reversed) query.set("sort", (view.reversed ? "-" : "") + view.sort);
  if (view.unacknowledged) query.set("unacknowledged", "");
  if (view.incident) query.set("incident", view.incident);
  return query.toString();
}

/** The list with `value` in it, or without it where it was. */
export const toggled = (list, value) =>
  list.includes(value) ? list.filter((each) => each !== value) : [...list, value];

/** The rows that a view shows, in its order. `acknowledged` says of a row whether somebody has seen to it. */
export function select(rows, view, acknowledged = () => false) {
  const severities = new Set(view.severity), statuses = new Set(view.status);
  const words = view.search.toLowerCase().split(/\s+/).filter(Boolean);
  const found = [];
  for (const row of rows) {
    if (severities.size && !severities.has(row.severity)) continue;
    if (statuses.size && !statuses.has(row.status)) continue;
    if (words.length && !words.every((word) => row.searched.includes(word))) continue;
    const done = acknowledged(row);
    if (view.unacknowledged && done) continue;
    found.push({ row, place: row.open ? +(done && view.sort === "attention") : 2 });
  }
  const order = ORDERS.get(view.sort) ?? newest, sign = view.reversed ? -1 : 1;
  return found
    .sort((a, b) => a.place - b.place || sign * order(a.row, b.row) || newest(a.row, b.row))
    .map(({ row }) => row);
}

const USUAL = new Map([["severity", ["CRITICAL", "HIGH", "MEDIUM", "LOW"]], ["status", ["OPEN", "INVESTIGATING", "RESOLVED"]]]);
const MOST_VALUES = 9;

/** For each value of a field how many are open and how many there are: the usual ones first, then the most frequent. */
export function count(rows, field) {
  const found = new Map(USUAL.get(field).map((value) => [value, { value, open: 0, all: 0 }]));
  for (const row of rows) {
    const value = row[field], of = found.get(value) ?? { value, open: 0, all: 0 };
    of.all += 1;
    of.open += +row.open;
    found.set(value, of);
  }
  const all = [...found.values()], usual = USUAL.get(field).length;
  const others = all.slice(usual).sort((a, b) => b.all - a.all);
  return { values: [...all.slice(0, usual), ...others.slice(0, MOST_VALUES - usual)], left: Math.max(0, all.length - MOST_VALUES) };
}
