// A relay with a feed, as unfriendly as the real one may be, on the clock of a World.
//
// - What is published gets its position before it is written, and is written after a while: one published later may be
//   in the feed, and with the clients, before.
// - The connections are read after the feed is written. To each a message comes late, twice, or is parked; what is parked
//   for a connection that ends in the meantime is lost, and the feed has it.
// - A resume starts an overlap before its position, and ends where the feed is at that moment. The position of a page
//   that is not the last is of a form of its own, and is continued exactly.
// - A history may be of some seconds ago, and the connections are found by an index that is late. Who may have missed
//   something by that is told to ask again.
// - Answers may be errors, or not come.

const OLD = 5_000, LATE = 4_000, SETTLE = 3_000, PARK = 20_000, OVERLAP = SETTLE + PARK + 1_000;

export class Server {
  constructor(world, random, { page = 4, hours = Infinity, feed = true, trouble = 0.1, arrays = 0.3, silent = false } = {}) {
    Object.assign(this, { world, random, page, hours, feed, trouble, arrays, silent });
    this.entries = [];
    this.published = [];
    this.connections = new Set();
    this.sequences = 0;
    this.recovered = true;
    world.onDial = (socket) => this.later(10, 200, () => this.dialled(socket));
    world.onSend = (socket, words) => this.later(5, 150, () => this.asked(socket, words));
    world.onClose = (socket) => this.later(0, 300, () => this.cut(socket));
  }

  chance(share) {
    return this.random() < share;
  }

  pick(list) {
    return list[Math.floor(this.random() * list.length)];
  }

  later(from, to, call) {
    this.world.setTimeout(call, from + this.random() * (to - from));
  }

  at(ms = this.world.time) {
    return Math.max(0, Math.floor(ms)).toString(36).padStart(9, "0");
  }

  dialled(socket) {
    if (socket.readyState > 0) return;
    if (this.chance(this.trouble)) return socket.die();
    this.connections.add(socket);
    socket.since = this.world.time;
    socket.found = socket.since + this.random() * LATE;
    socket.open();
  }

  cut(socket) {
    this.connections.delete(socket);
    socket.die();
  }

  post(socket, frame) {
    if (socket.readyState === 1 || socket.readyState === 2) socket.deliver(frame);
  }

  publish(incidents) {
    const sequence = String(++this.sequences), incident = this.pick(incidents);
    const message = { event_id: `e-${sequence}`, sequence, at: this.world.time };
    Object.assign(message, this.chance(0.8) ? { kind: "incident_update", incident_id: incident, status: sequence } : { kind: "remediation", action: sequence });
    if (this.feed) message.position = this.at() + String(this.sequences).padStart(5, "0");
    this.published.push(message);
    // A table has it before its stream says so.
    this.later(0, SETTLE, () => {
      this.entries.push(message);
      for (const socket of this.connections) if (socket.found <= this.world.time) this.send(socket, message);
    });
  }

  /** In order for each connection, unless it is parked. */
  send(socket, message) {
    if (this.chance(0.15)) return this.later(0, PARK, () => this.post(socket, message));
    const time = this.world.time + this.random() * 300;
    socket.lastPost = Math.max(time, socket.lastPost ?? 0);
    socket.posts ??= [];
    socket.posts.push(message);
    this.world.setTimeout(() => this.flush(socket), socket.lastPost - this.world.time);
    if (this.chance(0.1)) this.later(0, PARK, () => this.post(socket, message));
  }

  flush(socket) {
    const posts = socket.posts.splice(0);
    if (this.chance(this.arrays)) this.post(socket, posts);
    else posts.forEach((each) => this.post(socket, each));
  }

  asked(socket, words) {
    if (!this.connections.has(socket) || this.silent) return;
    const trouble = this.chance(this.trouble);
    if (trouble && this.chance(0.5)) return;
    const answer = trouble ? { kind: "error", message: "not now" } : this[words.action](words, socket);
    this.later(5, 400, () => this.post(socket, answer));
  }

  ping({ timestamp }) {
    return { type: "pong", timestamp, ...(this.feed && { position: this.at() + "zzzzz" }) };
  }

  /** For a connection that the index may lack, or since when something was read. */
  again(socket, read = this.world.time) {
    if (!this.feed) return {};
    if (read < socket.since) return { again: 0 };
    return this.world.time - socket.since < LATE ? { again: LATE / 1_000 } : {};
  }

  /** A list of some seconds ago serves everybody, page by page. */
  list() {
    if (!this.read || this.world.time - this.read.time > OLD) this.read = { time: this.world.time, entries: [...this.entries] };
    return this.read;
  }

  subscribe({ limit, cursor }, socket) {
    const { time, entries } = this.list();
    const first = cursor ? Math.min(time, parseInt(cursor.slice(0, 9), 36)) : time, position = this.at(first) + "zzzzz";
    cursor &&= cursor.slice(9);
    const newest = new Map();
    for (const each of entries) if (each.incident_id && !(+newest.get(each.incident_id)?.sequence > +each.sequence)) newest.set(each.incident_id, each);
    const all = [...newest.keys()].sort(), from = cursor ? all.findIndex((id) => id > cursor) : 0;
    const found = from < 0 ? [] : all.slice(from, from + Math.min(limit, this.page));
    const more = found.length > 0 && found.at(-1) !== all.at(-1);
    return {
      kind: "incident_history", incidents: found.map((id) => newest.get(id)),
      nextCursor: more ? this.at(first) + found.at(-1) : null,
      ...(this.feed && { position }), ...this.again(socket, first),
    };
  }

  resume({ position, parked }, socket) {
    if (!this.feed) return { kind: "error", message: "there is no feed" };
    const exactly = position.startsWith("exactly "), from = exactly ? position.slice(8) : position;
    const ms = parseInt(from.slice(0, 9), 36), now = this.world.time;
    if (ms > now || ms < now - this.hours) {
      this.recovered = false;
      return { kind: "replay", recovered: false };
    }
    const here = parked === false, since = here ? Math.min(ms, socket.since) - SETTLE - 1_000 : ms - OVERLAP;
    const after = exactly ? from : this.at(since);
    const found = this.entries.filter((each) => each.position > after).sort((a, b) => (a.position < b.position ? -1 : 1));
    const messages = found.slice(0, this.page), more = found.length > messages.length;
    const to = more ? `exactly ${messages.at(-1).position}` : this.at() + "zzzzz";
    return { kind: "replay", recovered: true, messages, more, position: to, ...this.again(socket) };
  }
}
