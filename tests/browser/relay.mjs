// The relay and its feed as a page meets them, on real sockets, and as unfriendly as a test asks for.

export class Relay {
  items = new Map();
  feed = [];
  clients = new Set();
  /** What clients asked, in order. */
  asked = [];
  /** It takes connections and says nothing. */
  silent = false;
  /** It takes none. */
  deaf = false;
  #position = 0;
  #forgotten = 0;

  /** @param page how many incidents or messages an answer has at most */
  constructor({ page = 200 } = {}) { this.page = page; }

  get position() { return String(this.#position).padStart(12, "0"); }

  /** An incident that is in the table already. */
  has(item) { this.items.set(item.incident_id, { ...item, sequence: this.#next() }); }

  /** A change, or several as one array: into the table, into the feed, and to whoever is connected. */
  publish(...changes) {
    const messages = changes.map((change) => this.#message(change));
    this.send(messages.length === 1 ? messages[0] : messages);
    return messages.at(-1);
  }

  /** Any frame, as it is: text, bytes or what JSON is made of. */
  send(frame) {
    const data = typeof frame === "string" || frame instanceof Uint8Array ? frame : JSON.stringify(frame);
    for (const client of this.clients) client.send(data);
  }

  /** Every connection breaks off, without a word. */
  cut() {
    for (const client of this.clients) client.terminate();
    this.clients.clear();
  }

  /** Its feed begins here. */
  forget() {
    this.#next();
    this.#forgotten = this.#position;
    this.feed = [];
  }

  connected(socket) {
    this.clients.add(socket);
    socket.on("close", () => this.clients.delete(socket));
    socket.on("message", (data) => {
      const words = JSON.parse(data);
      this.asked.push(words);
      const answer = this.silent ? undefined : this[`on_${words.action}`]?.(words);
      if (answer) socket.send(JSON.stringify(answer));
    });
  }

  on_ping({ timestamp }) { return { type: "pong", timestamp, position: this.position }; }

  on_subscribe({ limit = 50, cursor }) {
    const all = [...this.items.values()].reverse(), from = Number(cursor ?? 0), to = from + Math.min(limit, this.page);
    return { kind: "incident_history", incidents: all.slice(from, to), nextCursor: to < all.length ? String(to) : null, position: this.position };
  }

  on_resume({ position }) {
    if (Number(position) < this.#forgotten) return { kind: "replay", recovered: false };
    const after = this.feed.filter((each) => each.position > position), messages = after.slice(0, this.page), more = after.length > messages.length;
    return { kind: "replay", recovered: true, messages, more, position: more ? messages.at(-1).position : this.position };
  }

  #next() { return String(++this.#position); }

  #message(change) {
    const sequence = this.#next(), kind = "incident_id" in change ? "incident_update" : "remediation";
    const message = { kind, event_id: `e-${sequence}`, sequence, position: this.position, ...change };
    if (kind === "incident_update") this.items.set(change.incident_id, { ...this.items.get(change.incident_id), ...change, sequence });
    this.feed.push(message);
    return message;
  }
}
