// @ts-check
/**
 * A gapless picture, without repeats, never rolled back; async-relay.d.ts describes it.
 *
 * Position first, then data: it moves over what was delivered. One connection leads; the next is opened beside it, and
 * takes over when it has caught up.
 *
 * @typedef {import("./async-relay.js").Message} Message
 * @typedef {{item?: Message, message?: Message}} Known as its table has it, and as it was published
 * @typedef {{
 *   socket?: WebSocket, opened?: boolean, over?: boolean, retired?: boolean, liveAt?: number, held?: Message[],
 *   heardAt?: number, asked?: string,
 *   fresh?: boolean, here?: boolean, again?: number, gap?: boolean, cursor?: string, tries: number, start?: string, page?: string, found: Message[],
 *   expiresAt?: number, renewing?: boolean, timers: Record<string, any>,
 * }} Link `held`: while messages wait; `liveAt`: caught up; `here`: it missed things itself
 */

const FIRST_PAUSE = 500, LONGEST_PAUSE = 20_000, STEADY = 5_000, MINUTE = 60_000;
const DIAL = 20_000, ANSWER = 10_000, PAGE = 200;

/** @type {typeof import("./async-relay.js").connect} */
export const connect = (options) => {
  const { url, token, inUrl, protocols = ["async-relay.v2", "async-relay.v1"], history = PAGE } = options;
  const { pingAfter = 60, rotateAfter = 6_600, refusedAfter = 10, memory = 20_000 } = options;
  const all = globalThis, { now = Date.now, random = Math.random, page = all } = options.world ?? {};
  const { setTimeout = all.setTimeout, clearTimeout = all.clearTimeout, WebSocket = all.WebSocket } = options.world ?? {};
  let state = /** @type {import("./async-relay.js").State} */ ("offline");
  let position = options.position ?? undefined;
  /** @type {Link | undefined} */
  let current;
  /** @type {Link | undefined} */
  let next;
  let pauses = 0, refusals = 0, wasLive = !!position, answers = false, ended = false;
  /** @type {Set<string>} */
  const seen = new Set();
  /** @type {Map<any, Known>} */
  const known = new Map();
  /** @type {Map<any, Message>} */
  const incidents = new Map();

  const link = () => /** @type {Link} */ ({ held: [], found: [], tries: 0, timers: {} });
  const idle = link();

  /** @param {Link} of @param {string} name @param {number} ms @param {() => void} call */
  const after = (of, name, ms, call) => {
    clearTimeout(of.timers[name]);
    if (!ended && !of.over && !of.retired) of.timers[name] = setTimeout(call, Math.min(ms, 2 ** 31 - 1));
  };

  /** @param {Link} of */
  const stop = (of) => Object.values(of.timers).forEach(clearTimeout);

  /** What the page throws stops nothing here. @param {() => void} call */
  const tell = (call) => {
    try { call(); } catch (error) { queueMicrotask(() => { throw error; }); }
  };

  /** @param {typeof state} name @param {object} [detail] */
  const say = (name, detail = {}) => {
    if (state === name && name !== "offline") return;
    state = name;
    tell(() => options.onState?.(name, detail));
  };

  const look = () => {
    if (ended) return;
    const live = current?.liveAt || (!current?.held && position === undefined);
    say(!current ? "connecting" : live ? "live" : "catching up");
  };

  const pause = () => random() * Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** pauses++);

  const dial = async () => {
    if (next || ended) return;
    const made = next = link();
    stop(idle);
    look();
    after(made, "dial", DIAL, () => drop(made));
    let granted;
    try { granted = typeof token === "function" ? await token() : token; } catch { return drop(made); }
    if (made.over) return;
    if (token !== undefined && !granted) return end("refused", "there is no token");
    try {
      const to = new URL(url), offered = [...protocols];
      if (inUrl) {
        for (const each of offered.splice(0).slice(0, 1)) to.searchParams.set("protocol", each);
        if (granted) to.searchParams.set("access_token", granted);
      } else if (granted) offered.push(`bearer.${granted}`);
      made.socket = Object.assign(new WebSocket(to.href, offered), {
        onopen: () => opened(made),
        onmessage: (/** @type {any} */ { data }) => heard(made, data),
        onclose: () => drop(made, true),
        onerror() {},
      });
    } catch {
      return end("refused", "no WebSocket takes this URL or token");
    }
    made.expiresAt = expiry(granted);
  };

  /** @param {Link} made */
  const opened = (made) => {
    if (made.over) return;
    made.opened = true;
    refusals = 0;
    clearTimeout(made.timers.dial);
    quiet(made);
    after(made, "rotate", rotateAfter * 1_000 * (1 - random() / 20), dial);
    keep(made);
    if (!current) lead(made);
    ask(made);
    look();
  };

  /** @param {Link} made */
  const lead = (made) => {
    const old = current;
    current = made;
    next = undefined;
    if (!old) return;
    // It is heard until it is closed.
    old.retired = true;
    old.renewing = false;
    old.asked = undefined;
    stop(old);
    release(old);
    old.socket?.close();
  };

  /** It is over. @param {Link} made @param {boolean} [closed] */
  const drop = (made, closed) => {
    if (made.over) return;
    made.over = true;
    // With a position they come again, in their order.
    if (position === undefined) release(made);
    stop(made);
    made.socket?.close();
    if (ended || made.retired) return;
    if (closed && !made.opened && token !== undefined && page.navigator?.onLine !== false) refusals += 1;
    if (made.liveAt && now() - made.liveAt >= STEADY) pauses = 0;
    if (made !== current) next = undefined;
    else {
      current = undefined;
      if (next?.opened) lead(next);
    }
    if (current && !next) after(current, "rotate", pause(), dial);
    if (current || next) return look();
    if (refusals >= refusedAfter) return end("refused", `closed ${refusals} times before it was open`);
    const wait = pause();
    after(idle, "retry", wait, dial);
    say("offline", { retryIn: wait / 1_000 });
  };

  const wake = () => {
    if (page.document?.hidden) return;
    if (current) probe(current);
    else dial();
  };

  /** @param {typeof state} name @param {string} [reason] */
  const end = (name, reason) => {
    if (ended) return;
    ended = true;
    page.removeEventListener?.("online", wake);
    page.document?.removeEventListener("visibilitychange", wake);
    for (const each of [current, next, idle]) if (each) drop(each);
    say(name, { reason });
  };

  /** @param {Link} made @param {object} words */
  const send = (made, words) => {
    if (made.socket?.readyState === 1) made.socket.send(JSON.stringify(words));
  };

  /** @param {Link} made */
  const quiet = (made) => after(made, "quiet", pingAfter * 1_000, () => probe(made));

  /** A server that never answered need not answer this. @param {Link} made */
  const probe = (made) => {
    send(made, { action: "ping", timestamp: now() });
    after(made, "quiet", ANSWER, () => answers ? drop(made) : quiet(made));
  };

  /** Have a new one before this one ends. @param {Link} made @param {number} [share] */
  const keep = (made, share = 0.8) => {
    if (typeof token !== "function" || !made.expiresAt) return;
    const left = made.expiresAt * 1_000 - now();
    after(made, "renew", Math.max(left * share, left - 5 * MINUTE, 10_000), async () => {
      let fresh;
      try { fresh = await token(); } catch { return keep(made, 0.5); }
      if (made.over || made.retired) return;
      if (!fresh) return end("refused", "there is no token any more");
      made.renewing = true;
      made.expiresAt = expiry(fresh) ?? made.expiresAt;
      send(made, { action: "refresh", access_token: fresh });
      after(made, "renew", ANSWER, () => renewed(made));
    });
  };

  /** In place; without an answer, by a new connection. @param {Link} made @param {any} [answer] */
  const renewed = (made, answer) => {
    made.renewing = false;
    made.expiresAt = answer?.expiresAt ?? made.expiresAt;
    keep(made);
    if (!answer) dial();
  };

  /** Every fifth try is for a server that lost its feed. @param {Link} made */
  const ask = (made) => {
    const from = made.fresh || made.tries % 5 === 4 ? undefined : made.cursor ?? position;
    made.asked = from === undefined ? "subscribe" : "resume";
    made.cursor = from ?? made.cursor;
    send(made, from !== undefined ? { action: "resume", position: from, parked: made.here ? false : undefined } : {
      action: "subscribe", limit: Math.max(1, Math.min(PAGE, history - made.found.length)), cursor: made.page,
    });
    after(made, "answer", ANSWER, () => unanswered(made));
  };

  /** Nobody waits for it any more; the position stays. @param {Link} made */
  const unanswered = (made) => {
    release(made);
    made.tries += 1;
    made.found = [];
    made.start = made.page = undefined;
    if (answers || made.asked === "resume") {
      after(made, "answer", random() * Math.min(MINUTE, 1_000 * 2 ** made.tries), () => ask(made));
    }
    made.asked = undefined;
    look();
  };

  /** What it got may be older than the connection. @param {Link} made @param {string} [to] */
  const caughtUp = (made, to) => {
    if (ended) return;
    const again = to ? made.again : undefined;
    if (again === undefined) {
      position = further(position, to);
      made.cursor = undefined;
    } else Object.assign(made, { here: true, fresh: false, again: undefined, cursor: to });
    if (again === 0) return ask(made);
    wasLive = true;
    made.asked = undefined;
    made.liveAt ??= now();
    clearTimeout(made.timers.answer);
    if (again) after(made, "answer", again * 1_000, () => ask(made));
    release(made);
    if (made !== current && !made.over) lead(made);
    look();
  };

  /** @param {Link} made */
  const release = (made) => {
    const held = made.held ?? [];
    made.held = undefined;
    for (const each of held) deliver(made, each);
  };

  /** @param {Link} made @param {any} answer */
  const replayed = (made, { recovered, messages = [], position: to = made.cursor, more, again }) => {
    if (made.asked !== "resume") return;
    made.tries = 0;
    if (!recovered && !made.here) {
      made.fresh = true;
      made.gap = wasLive;
      position = undefined;
      return ask(made);
    }
    messages.forEach(take);
    made.again ??= again;
    if (!more) return caughtUp(made, to);
    if (to === made.cursor) return drop(made);
    made.cursor = to;
    ask(made);
  };

  /** @param {Link} made @param {any} answer */
  const told = (made, { incidents: some = [], nextCursor, position: start, complete, again }) => {
    if (made.asked !== "subscribe") return;
    // It has its feed still.
    if (!made.fresh && position !== undefined && start && made.tries++ < 14) return ask(made);
    made.fresh = true;
    made.start ??= start ?? undefined;
    made.again ??= again;
    made.found.push(...some);
    made.page = nextCursor ?? undefined;
    if (made.page && some.length && made.found.length < history) return ask(made);
    made.found.splice(history);
    // The machine may have slept.
    const beside = current?.liveAt && now() - (current.heardAt ?? 0) < pingAfter * 1_000 + 2 * ANSWER;
    const gap = made.gap || (wasLive && !beside);
    position = beside && position !== undefined ? position : made.start;
    if (gap) incidents.clear();
    [...made.found].reverse().forEach(read);
    tell(() => options.onHistory?.(made.found, { gap, complete: complete !== false && !made.page }));
    caughtUp(made, made.start);
  };

  /** @param {Link} made @param {unknown} data */
  const heard = (made, data) => {
    if (made.over) return;
    made.heardAt = now();
    quiet(made);
    let frame;
    try { frame = JSON.parse(String(data)); } catch { return; }
    for (const each of [frame].flat()) if (each && typeof each === "object" && !Array.isArray(each)) receive(made, each);
  };

  /** @param {Link} made @param {any} message */
  const receive = (made, message) => {
    const { kind, type } = message;
    // API Gateway's own errors have no kind.
    const failed = kind === "error" || (!kind && message.requestId && message.connectionId);
    const answer = kind === "replay" ? replayed : kind === "incident_history" ? told : kind === "refreshed" && renewed;
    if (answer || failed || type === "pong") answers = true;
    if (answer) answer(made, message);
    else if (failed) made.asked ? unanswered(made) : made.renewing && renewed(made);
    else if (type === "ping" || type === "pong") move(made, message);
    else if (made.held) made.held.push(message);
    else deliver(made, message);
  };

  /** @param {Link} made @param {Message} message */
  const deliver = (made, message) => {
    take(message);
    move(made, message);
  };

  /** @param {Link} made @param {Message} message */
  const move = (made, message) => {
    if (!ended && made.liveAt && !made.cursor) position = further(position, message.position);
  };

  /** @param {Message} message */
  const take = (message) => {
    const { event_id: event, incident_id: id } = message;
    if (ended || seen.has(event ?? "")) return;
    if (event) forget(seen.add(event));
    if (id !== undefined) {
      const of = known.get(id) ?? {}, sign = of.message ? order(message, of.message) : 1;
      if (sign === 0 && message.sequence) return;
      if (!(sign < 0)) of.message = message;
      if (sign < 0 || (of.item && order(message, of.item) < 0)) return tell(() => options.onStale?.(message));
      show(id, of, { ...of.item, ...message });
    }
    tell(() => options.onMessage?.(message));
  };

  /** @param {Message} found */
  const read = (found) => {
    const id = found.incident_id, of = known.get(id) ?? {}, name = found.sequence ? "message" : "item";
    if (!of[name] || !(order(found, of[name]) < 0)) of[name] = found;
    const { item, message } = of, sign = item && message ? order(message, item) : name === "message" ? 1 : -1;
    show(id, of, sign >= 0 || (sign !== sign && name === "message") ? { ...item, ...message } : { ...item });
  };

  /** @param {any} id @param {Known} of @param {any} now */
  const show = (id, of, now) => {
    known.delete(id);
    incidents.delete(id);
    incidents.set(id, now);
    incidents.delete(forget(known.set(id, of)));
  };

  /** @param {Set<any> | Map<any, any>} all */
  const forget = (all) => {
    if (all.size <= memory) return;
    const [oldest] = all.keys();
    all.delete(oldest);
    return oldest;
  };

  page.addEventListener?.("online", wake);
  page.document?.addEventListener("visibilitychange", wake);
  queueMicrotask(dial);
  return {
    incidents,
    get state() { return state; },
    get position() { return position; },
    close: () => end("closed"),
  };
};

/**
 * Below 0: `a` is older than `b`; NaN: nobody can say, and what came last counts.
 *
 * @param {Message} a @param {Message} b
 */
const order = (a, b) => {
  const one = text(a.sequence), two = text(b.sequence);
  if (one && two) return one.length - two.length || compare(one, two);
  const apart = instant(a.updated_at) - instant(b.updated_at);
  return apart || (apart === 0 ? compare(String(a.updated_at), String(b.updated_at)) : NaN);
};

/** @param {string} a @param {string} b */
const compare = (a, b) => (a < b ? -1 : +(a > b));

/** @param {unknown} value */
const text = (value) => (typeof value === "string" ? value : "");

/** @param {unknown} value */
const instant = (value) => {
  if (typeof value === "number") return value < 1e11 ? value * 1_000 : value;
  const [time, , zone] = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?$/.exec(text(value)) ?? [""];
  return Date.parse(zone ? time : `${time}Z`);
};

/** The position ahead, or what came last. @param {any} a @param {any} b */
const further = (a, b) => (b == null || (a?.length === b.length && a > b) ? a : b);

/** @param {unknown} token @returns {number | undefined} */
const expiry = (token) => {
  try {
    return +JSON.parse(atob(String(token).split(".")[1].replace(/-/g, "+").replace(/_/g, "/"))).exp || undefined;
  } catch {
    return undefined;
  }
};
