// A world for the client in which nothing happens by itself: a clock that the test turns, and sockets it holds in hand.

export const START = 1_700_000_000_000;

/** A token that ends so many seconds after the start. */
export const tokenUntil = (exp) =>
  `e30.${Buffer.from(JSON.stringify({ exp: START / 1_000 + exp })).toString("base64url")}.x`;

export class World {
  constructor(random = () => 0.5) {
    this.random = random;
    this.time = START;
    this.timers = [];
    this.sockets = [];
    const world = this;
    this.WebSocket = class extends Socket {
      constructor(url, protocols) {
        super(world, url, protocols);
      }
    };
    this.page = Object.assign(new EventTarget(), { document: Object.assign(new EventTarget(), { hidden: false }), navigator: { onLine: true } });
    this.now = () => this.time;
    // In the order in which they are due, the next one at the end.
    this.setTimeout = (call, ms) => {
      const timer = { at: this.time + Math.max(1, ms), call };
      let from = 0, to = this.timers.length;
      while (from < to) {
        const middle = (from + to) >> 1;
        if (this.timers[middle].at > timer.at) from = middle + 1;
        else to = middle;
      }
      this.timers.splice(from, 0, timer);
      return timer;
    };
    this.clearTimeout = (timer) => {
      const at = this.timers.indexOf(timer);
      if (at >= 0) this.timers.splice(at, 1);
    };
    this.onDial = this.onSend = this.onClose = () => {};
  }

  /** What the client gets of it. */
  get parts() {
    const { WebSocket, setTimeout, clearTimeout, now, page } = this;
    return { WebSocket, setTimeout, clearTimeout, now, page, random: () => this.random() };
  }

  async wait(seconds) {
    await settled();
    const end = this.time + seconds * 1_000;
    while (this.timers.length && this.timers.at(-1).at <= end) {
      const { at, call } = this.timers.pop();
      this.time = Math.max(this.time, at);
      call();
      await settled();
    }
    this.time = end;
  }
}

/** Let what has been promised come about. */
export const settled = async () => {
  for (let turn = 0; turn < 3; turn += 1) await null;
};

class Socket {
  constructor(world, url, protocols) {
    if (protocols.some((each) => !/^[\w.!#$%&'*+^`|~-]+$/.test(each))) throw new SyntaxError("no such protocol");
    Object.assign(this, { world, url, protocols, readyState: 0, sent: [] });
    world.sockets.push(this);
    world.onDial(this);
  }
  open() {
    this.readyState = 1;
    this.onopen();
  }
  /** The server sends. */
  deliver(frame) {
    this.onmessage({ data: typeof frame === "string" ? frame : JSON.stringify(frame) });
  }
  /** The connection is over, whoever ended it. */
  die() {
    if (this.readyState === 3) return;
    this.readyState = 3;
    this.onclose({ code: 1006 });
  }
  // What the client calls.
  send(text) {
    this.sent.push(JSON.parse(text));
    this.world.onSend(this, JSON.parse(text));
  }
  close() {
    if (this.readyState < 2) this.readyState = 2;
    this.world.onClose(this);
  }
}
