// The picture: a row for each incident, the states it went through, and what was done about it.
//
// - Rows are never changed, only replaced: who holds an old one sees how it was.
// - Keys are texts in Maps; nothing that came from outside is ever a property's name.

import { instant } from "./times.js";
import { cut, text } from "./shorten.js";

const MOST_ROWS = 20_000, MOST_RESPONSES = 5_000, MOST_STATES = 100, MOST_SEARCHED = 2_000;
/** Of a severity or status: what is counted by is compared with all others, and a browser gives huge texts of one length one hash. */
const MOST_NAME = 500;
/** The statuses of an incident that needs nobody any more, where config.js names no others. */
export const RESOLVED = ["RESOLVED", "CLOSED", "FALSE_POSITIVE", "SUPPRESSED", "ARCHIVED"];
const SEVERITIES = ["CRITICAL", "HIGH", "MEDIUM", "LOW", "INFO"];
const OTHER = SEVERITIES.length, NONE = OTHER + 1;

/** A text for an id, its own where it is text, other for 7 than for "7"; undefined where there is none. */
export function keyOf(id) {
  if (id === undefined || id === null || id === "") return undefined;
  return typeof id === "string" ? id.replace(/^\u001f/, "$&$&") : `\u001f${typeof id}=${text(id)}`;
}

/** 0 is the worst; what nobody knows comes after what is known. */
export function rankOf(severity) {
  const upper = severity.toUpperCase(), at = SEVERITIES.indexOf(upper === "INFORMATIONAL" ? "INFO" : upper);
  return at >= 0 ? at : severity ? OTHER : NONE;
}

const name = (value) => cut(text(value), MOST_NAME).kept;
const first = (...values) => text(values.find((each) => text(each) !== ""));

export class Picture {
  rows = new Map();
  responses = [];
  #states = new Map();
  #resolved;

  constructor(resolved) { this.#resolved = new Set(resolved.map((each) => each.toUpperCase())); }

  /** The history takes the place of everything. */
  clear() {
    this.rows.clear();
    this.#states.clear();
  }

  /** A newer state; the rows before and after it. `message`: how it was told, else it is of the history; `now`: not caught up with. */
  change(item, arrived, message, now = false) {
    const key = keyOf(item.incident_id), before = this.rows.get(key), row = this.#row(key, item, arrived, before, now ? arrived : 0);
    this.rows.delete(key);
    this.rows.set(key, row);
    const states = this.states(key), last = states.at(-1), state = this.#state(message ?? item, row, arrived);
    if (!last || last.status !== state.status || last.severity !== state.severity) this.#keep(key, [...states, state]);
    if (this.rows.size > MOST_ROWS) this.#forget(this.rows.keys().next().value);
    return { before, row };
  }

  /** A state that was overtaken by a newer one: it has a place among the states, and changes nothing else. `now`: as above. */
  late(message, arrived, now) {
    const key = keyOf(message.incident_id), states = [...this.states(key)];
    if (!states.length) return;
    const state = { ...this.#state(message, { severity: "", status: "" }, arrived), late: now };
    const at = states.findIndex((each) => after(each, state));
    states.splice(at < 0 ? states.length - 1 : at, 0, state);
    this.#keep(key, states);
  }

  #keep(key, states) { this.#states.set(key, states.slice(-MOST_STATES)); }

  responded(message, arrived) {
    const time = instant(message.time ?? message.timestamp);
    this.responses.push({
      action: text(message.action), target: first(message.target, message.resource), status: text(message.status),
      of: text(message.incident_id ?? message.incident), at: Number.isNaN(time) ? arrived : time, item: message,
    });
    if (this.responses.length > MOST_RESPONSES) this.responses.shift();
  }

  /** All as it is now, which stays so. */
  still() {
    const copy = new Picture([]);
    copy.rows = new Map(this.rows);
    copy.responses = [...this.responses];
    copy.#states = new Map(this.#states);
    return copy;
  }

  states(key) { return this.#states.get(key) ?? []; }

  /** What was done about it, by its id or its resource, the oldest first. */
  responsesTo({ item, id }) {
    const names = new Set([item.resource, item.arn, item.sg].map(text).filter((each) => each && each !== "-"));
    return this.responses.filter(({ of, target }) => (of && of === id) || names.has(target)).sort((a, b) => a.at - b.at);
  }

  #forget(key) {
    this.rows.delete(key);
    this.#states.delete(key);
  }

  #row(key, item, arrived, before, fresh) {
    const severity = name(item.severity), status = name(item.status);
    const created = instant(item.created_at), updated = instant(item.updated_at);
    return {
      key, item, severity, status, id: text(item.incident_id),
      type: first(item.event_type, item.type), resource: first(item.arn, item.resource, item.sg),
      rank: rankOf(severity), open: !this.#resolved.has(status.toUpperCase()),
      created, updated: Number.isNaN(updated) ? created : updated, seen: before?.seen ?? arrived, fresh,
      searched: Object.values(item).map((each) => text(each).slice(0, MOST_SEARCHED)).join("\n").toLowerCase(),
    };
  }

  #state(of, row, arrived) {
    const at = instant(of.updated_at ?? of.created_at);
    return {
      status: name(of.status) || row.status, severity: name(of.severity) || row.severity,
      at: Number.isNaN(at) ? arrived : at, sequence: typeof of.sequence === "string" && /^\d{1,60}$/.test(of.sequence) ? BigInt(of.sequence) : undefined,
    };
  }
}

/** Whether `one` is of a later time than `two`, by sequence where both have one. */
const after = (one, two) =>
  one.sequence !== undefined && two.sequence !== undefined ? one.sequence > two.sequence : one.at > two.at;
