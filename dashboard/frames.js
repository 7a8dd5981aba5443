// What comes over the wire, counted for operators. The client reads the same frames; here only what it passes over in
// silence matters: what nobody can read, kinds nobody knows, and the server's own errors.

import { cut, text, visible } from "./shorten.js";

const SAMPLE = 300, MOST_KINDS = 30;
const ANSWERS = new Set(["incident_history", "replay", "refreshed"]);
const SHOWN = new Set(["incident_update", "remediation"]);

export class Frames {
  frames = 0;
  characters = 0;
  messages = 0;
  stale = 0;
  /** Why something could not be read -> how often, and the last one. */
  unread = new Map();
  /** Kinds that are not shown -> the same. */
  unknown = new Map();
  answered = false;
  /** The last frame was an answer: what is in it happened before. */
  answering = false;
  trip = undefined;
  /** The last connection was closed before it was open; a browser tells no page why. */
  unopened = false;
  #lateness;

  constructor(lateness) { this.#lateness = lateness; }

  get problems() {
    let all = 0;
    for (const { times } of [...this.unread.values(), ...this.unknown.values()]) all += times;
    return all;
  }

  heard(data, at) {
    this.frames += 1;
    this.answering = false;
    this.characters += data?.length ?? data?.size ?? 0;
    if (typeof data !== "string") return this.cannotRead("binary", text(data));
    let frame;
    try { frame = JSON.parse(data); } catch { return this.cannotRead("notJson", data); }
    for (const each of Array.isArray(frame) ? frame : [frame]) this.#message(each, at);
  }

  cannotRead(why, sample) { tally(this.unread, why, sample); }

  #message(message, at) {
    this.messages += 1;
    if (message === null || typeof message !== "object" || Array.isArray(message)) return this.cannotRead("notObject", message === null ? "null" : text(message));
    const { kind, type } = message;
    if (kind === "error" || (!kind && message.requestId && message.connectionId)) return this.cannotRead("serverError", text(message.message));
    if (ANSWERS.has(kind)) return this.#answer(message);
    if (type === "ping") return this.#lateness.beat(Number(text(message.timestamp) || NaN), at);
    if (type === "pong") return this.#pong(message, at);
    if (!SHOWN.has(kind)) tally(this.unknown, text(kind) || "-", text(message));
  }

  #answer(message) {
    if (message.kind !== "refreshed") this.answered = this.answering = true;
    if (Array.isArray(message.messages)) for (const each of message.messages) this.#message(each, NaN);
  }

  #pong({ timestamp }, at) {
    if (typeof timestamp === "number") this.trip = Math.max(0, at - timestamp);
  }
}

function tally(counts, name, sample) {
  const key = counts.has(name) || counts.size < MOST_KINDS ? visible(cut(name, 80).kept) : "…";
  const { times } = counts.get(key) ?? { times: 0 };
  counts.set(key, { times: times + 1, sample: visible(cut(sample, SAMPLE).kept) });
}

/** A WebSocket whose frames, and whether it opens, are noted before the client reads them. */
export const counted = (Socket, frames) => class extends Socket {
  constructor(...where) {
    super(...where);
    let opened = false;
    this.addEventListener("open", () => { opened = true; frames.unopened = false; });
    this.addEventListener("close", () => { frames.unopened = !opened; });
    this.addEventListener("message", ({ data }) => frames.heard(data, Date.now()));
  }
};
