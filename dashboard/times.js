// Times as people read them, and how far this computer's clock is from the server's.

/** Milliseconds since 1970 of ISO text (without a zone: UTC), seconds or milliseconds; NaN for anything else. */
export function instant(value) {
  if (typeof value === "string" && /^\d{9,14}(\.\d+)?$/.test(value)) return instant(Number(value));
  if (typeof value === "number") return inRange(value < 1e11 ? value * 1000 : value);
  if (typeof value !== "string") return NaN;
  const found = /^(\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)(Z|[+-]\d\d:?\d\d)?$/.exec(value);
  return found ? Date.parse(`${found[1].replace(" ", "T")}${found[2] ?? "Z"}`) : NaN;
}

/** What a date can be made of. */
const inRange = (ms) => (Math.abs(ms) <= 8.64e15 ? ms : NaN);

const STEPS = [[60, "second", 1], [3600, "minute", 60], [86400, "hour", 3600], [Infinity, "day", 86400]];

/** What writes times in one language. `utc`: in UTC, else in this computer's zone. */
export function clock(language, utc) {
  const ago = new Intl.RelativeTimeFormat(language, { numeric: "auto", style: "narrow" });
  const zone = utc ? { timeZone: "UTC" } : {};
  const parts = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23", ...zone };
  const day = new Intl.DateTimeFormat(language, { year: "numeric", month: "short", day: "numeric", ...zone });
  const other = new Intl.DateTimeFormat(language, { month: "short", day: "numeric", ...parts, second: undefined });
  const hours = new Intl.DateTimeFormat(language, parts);
  const full = new Intl.DateTimeFormat(language, {
    year: "numeric", month: "short", day: "numeric", ...parts, timeZoneName: "short",
  });
  const name = new Intl.DateTimeFormat(language, { timeZoneName: "short", ...zone });
  return {
    /** "3 min ago"; what is in the future by a clock's fault is "now". */
    relative(ms, now) {
      if (Number.isNaN(ms)) return "";
      const seconds = (now - ms) / 1000, apart = Math.abs(seconds) < 2 ? 0 : seconds;
      const [, unit, size] = STEPS.find(([below]) => Math.abs(apart) < below);
      return ago.format(-Math.trunc(apart / size), unit);
    },
    /** "14:03:22", with the day where it is another one. */
    short(ms, now) {
      if (Number.isNaN(ms)) return "";
      return day.format(ms) === day.format(now) ? hours.format(ms) : other.format(ms);
    },
    /** With date and zone. */
    full: (ms) => (Number.isNaN(ms) ? "" : full.format(ms)),
    zone: (ms) => name.formatToParts(ms).find(({ type }) => type === "timeZoneName")?.value ?? "",
  };
}

const NOISE = 2000, SAMPLES = 60, ENOUGH = 5;
/** What is of a while ago says nothing of the delay now (ms). */
const RECENT = 30_000;
/** Heartbeats of some minutes each: what a clock was before somebody set it right is soon forgotten. */
const BEATS = 5;
/** One or two messages prove nothing. */
const MOST = 3;
/** No clock is a century wrong (ms); such a stamp is none, and no date could be made of what it corrects. */
const CENTURY = 3.16e12;

/**
 * How long changes take to arrive, with the difference of the clocks told apart as far as that can be known.
 *
 * Only a heartbeat's stamp is the server's own and made just before it was sent. A message's is its writer's: one that
 * comes before it was written proves a difference, one that comes late may be late.
 */
export class Lateness {
  #beats = [];
  #changes = [];
  /** When each of the changes came. */
  #came = [];

  /** @param stamp ms by the server's clock @param at ms by ours */
  beat(stamp, at) { if (believed(at - stamp)) keep(this.#beats, at - stamp, BEATS); }

  change(stamp, at) {
    if (!believed(at - stamp)) return;
    keep(this.#changes, at - stamp, SAMPLES);
    keep(this.#came, at, SAMPLES);
  }

  /** By how many ms this computer's clock is ahead; 0 where that cannot be told from noise. */
  get skew() {
    if (this.#beats.length) {
      const least = Math.min(...this.#beats);
      return Math.abs(least) < NOISE ? 0 : least;
    }
    // One writer whose clock is ahead proves nothing: most of them must be.
    const sorted = ordered(this.#changes);
    if (sorted.length < MOST) return 0;
    return sorted[sorted.length >> 1] < -NOISE ? sorted[Math.floor(sorted.length / 10)] : 0;
  }

  /** The usual ms from a change to its arrival; undefined where none came of late. `now`: ms by our clock. */
  delay(now) {
    const recent = this.#changes.filter((_, each) => now - this.#came[each] < RECENT);
    if (!recent.length) return undefined;
    return Math.max(0, ordered(recent)[recent.length >> 1] - this.skew);
  }

  /** Whether what looks like a delay may be the clocks: everything is late by much, and no heartbeat says why. */
  get unclear() {
    return !this.#beats.length && this.#changes.length >= ENOUGH && Math.min(...this.#changes) > 5 * NOISE;
  }
}

const ordered = (samples) => samples.toSorted((a, b) => a - b);

const believed = (value) => Math.abs(value) < CENTURY;

function keep(samples, value, most) {
  samples.push(value);
  if (samples.length > most) samples.shift();
}
