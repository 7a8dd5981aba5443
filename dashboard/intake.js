// What the client tells, on its way into the picture: incidents, responses, the history, and how the connection is.

import { alarming } from "./alarm.js";
import { standing } from "./connection.js";
import { keyOf, Picture } from "./incidents.js";
import { cut, text, visible } from "./shorten.js";
import { instant } from "./times.js";

const PORTION = 500, MOST_LOG = 50, MOST_REASON = 200;
/** States that are worth a listener's time: tries that follow each other are one story. */
const SPOKEN = new Map([["live", "live"], ["offline", "say.offline"], ["refused", "refused"]]);

export class Intake {
  picture;
  /** The client's connection, once there is one. */
  relay;
  connection = { state: "connecting", since: Date.now() };
  loaded = false;
  log = [];
  #of;
  #spoken;
  /** Why the last token could not be had. */
  #noToken = "";
  /** What a history has and the picture has not yet: key -> incident. */
  #coming = new Map();

  /** @param of `frames`, `lateness`, `announcer`, `say`; `changed()` after anything, `saw(row)` for each state, `alarm(row)` for what may disturb */
  constructor(resolved, of) {
    this.picture = new Picture(resolved);
    this.#of = of;
  }

  /** The client's options that tell. */
  get callbacks() {
    return {
      onMessage: (message) => this.#message(message, Date.now()), onHistory: (found, detail) => this.#history(found, detail),
      onStale: (message) => this.#stale(message), onState: (state, detail) => this.#state(state, detail, Date.now()),
    };
  }

  /** config.js's `token`; the client only tries again where it throws, and here it is kept what it threw. */
  asking(token) {
    if (typeof token !== "function") return token;
    return async () => {
      try {
        const granted = await token();
        this.#noToken = "";
        return granted;
      } catch (error) {
        this.#noToken = text(error?.message ?? error) || "?";
        throw error;
      }
    };
  }

  /** Why there is no connection, as far as that is known. */
  get obstacle() {
    if (this.connection.reason) return this.connection.reason;
    if (this.#noToken) return visible(cut(this.#noToken, MOST_REASON).kept);
    return this.#of.frames.unopened ? this.#of.say("reason.unopened") : undefined;
  }

  /** Whether the server ever said what happened before. */
  get answered() { return this.loaded || this.#of.frames.answered; }

  /** Whether what is told happens now; a replay goes on for a while beside what is live. */
  get #now() { return this.relay.state === "live" && !this.#of.frames.answering; }

  #message(message, at) {
    if (message.kind === "incident_update") this.#incident(message, at);
    else if (message.kind === "remediation") this.picture.responded(message, at);
    this.#of.changed();
  }

  #incident(message, at) {
    const key = keyOf(message.incident_id);
    if (key === undefined) return this.#of.frames.cannotRead("noId", text(message));
    if (this.#coming.has(key)) this.#known(key, this.#coming.get(key), at);
    const live = this.relay.state === "live", now = this.#now;
    if (now) this.#of.lateness.change(instant(message.updated_at ?? message.created_at), at);
    const { before, row } = this.picture.change(this.relay.incidents.get(message.incident_id) ?? message, at, message, now);
    this.#of.saw(row);
    if (!live) return;
    this.#of.announcer.note(before, row);
    if (alarming(before, row)) this.#of.alarm(row);
  }

  #history(found, { gap }) {
    const { say, announcer } = this.#of;
    if (gap) this.picture.clear();
    this.#note(say(gap ? "op.gap" : "op.history", { n: found.length }));
    announcer.announce(say("say.loaded", { n: found.length }));
    const at = Date.now(), before = this.#coming.size;
    if (gap) this.#coming.clear();
    // The newest come first, and are to be forgotten last.
    for (const each of [...found].reverse()) {
      const key = keyOf(each.incident_id);
      if (key === undefined) this.#of.frames.cannotRead("noId", text(each));
      else this.#coming.set(key, this.relay.incidents.get(each.incident_id) ?? each);
    }
    if (!before) this.#absorb(at);
  }

  /** Some at a time, so that a long history leaves the page free for hands between. */
  #absorb(at) {
    for (const [key, item] of [...this.#coming].slice(0, PORTION)) this.#known(key, item, at);
    this.loaded ||= !this.#coming.size;
    if (this.#coming.size) setTimeout(() => this.#absorb(at), 0);
    this.#of.changed();
  }

  /** An incident of the history, before anything newer of it. */
  #known(key, item, at) {
    this.#coming.delete(key);
    this.#of.saw(this.picture.change(item, at).row);
  }

  #stale(message) {
    this.#of.frames.stale += 1;
    this.picture.late(message, Date.now(), this.#now);
    this.#of.changed();
  }

  #state(state, { retryIn, reason }, at) {
    const { say, announcer } = this.#of;
    this.connection = { state, since: at, retryAt: at + (retryIn ?? 0) * 1000, reason: reason && say(why(reason)) };
    const { name, ...values } = standing({ ...this.connection, reason: this.obstacle, answered: true, now: at });
    this.#note(say(name, values));
    if (SPOKEN.has(state) && state !== this.#spoken) announcer.announce(say(SPOKEN.get(state), values));
    if (SPOKEN.has(state)) this.#spoken = state;
    this.#of.changed();
  }

  #note(words) {
    this.log.push({ at: Date.now(), words });
    if (this.log.length > MOST_LOG) this.log.shift();
  }
}

/** The client's reasons are English; the page's are the reader's. */
const why = (reason) => (reason.startsWith("there is no token") ? "reason.noToken" : reason.startsWith("closed") ? "reason.closed" : "reason.url");
