// What the scripted sequences cannot say: the page's events, the page's own mistakes, what is exported, and a real WebSocket.
import assert from "node:assert/strict";
import test from "node:test";

import * as exported from "../../client/async-relay.js";
import { settled, World } from "./world.mjs";

const { connect } = exported;
const url = "wss://relay.example/prod";
const history = { kind: "incident_history", incidents: [], nextCursor: null, position: "p1" };

async function begin(options = {}) {
  const world = new World();
  const relay = connect({ url, world: world.parts, ...options });
  await settled();
  return { world, relay };
}

async function beLive(options) {
  const { world, relay } = await begin(options);
  world.sockets[0].open();
  world.sockets[0].deliver(history);
  return { world, relay, socket: world.sockets[0] };
}

test("connect is all there is", () => assert.deepEqual(Object.keys(exported), ["connect"]));

test("a page that is looked at again asks for a sign of life, and one that is hidden does not", async () => {
  const { world, socket } = await beLive();
  world.page.document.hidden = true;
  world.page.document.dispatchEvent(new Event("visibilitychange"));
  assert.equal(socket.sent.length, 1);
  world.page.document.hidden = false;
  world.page.document.dispatchEvent(new Event("visibilitychange"));
  assert.deepEqual(socket.sent.at(-1), { action: "ping", timestamp: world.time });
});

test("a position stays behind what came too late for a page that closed", async () => {
  for (const frame of [
    [{ event_id: "a", position: "p2" }, { event_id: "b", position: "p3" }],
    { kind: "replay", recovered: true, messages: [{ event_id: "a" }, { event_id: "b" }], position: "p3", more: false },
  ]) {
    const got = [];
    const onMessage = ({ event_id: event }) => { got.push(event); relay.close(); };
    const { world, relay } = await begin({ onMessage, position: "p1" });
    world.sockets[0].open();
    if (Array.isArray(frame)) {
      world.sockets[0].deliver({ kind: "replay", recovered: true, messages: [], position: "p1", more: false });
    }
    world.sockets[0].deliver(frame);
    assert.deepEqual([got, relay.position], [["a"], "p1"]);
  }
});

test("a message of whatever kind is a message", async () => {
  const got = [];
  const { socket } = await beLive({ onMessage: ({ event_id: event }) => got.push(event) });
  const kinds = ["__proto__", "constructor", "toString"];
  socket.deliver(kinds.map((kind) => JSON.parse(`{"kind": "${kind}", "event_id": "${kind}"}`)));
  assert.deepEqual(got, kinds);
});

test("a page that was closed hears no events", async () => {
  const { world, relay } = await begin();
  world.sockets[0].die();
  relay.close();
  world.page.dispatchEvent(new Event("online"));
  world.page.document.dispatchEvent(new Event("visibilitychange"));
  await world.wait(100);
  assert.equal(world.sockets.length, 1);
  assert.equal(relay.state, "closed");
});

test("a page that was closed keeps nothing of the client", async () => {
  const heard = [];
  const target = () => ({
    addEventListener: (...event) => heard.push(event),
    removeEventListener: (...event) => heard.splice(heard.findIndex(([name, call]) => name === event[0] && call === event[1]), 1),
  });
  const world = new World();
  world.page = { ...target(), document: target() };
  const relay = connect({ url, world: world.parts });
  assert.deepEqual(heard.map(([name]) => name), ["online", "visibilitychange"]);
  relay.close();
  assert.deepEqual(heard, []);
});

test("a browser that is offline is refused nothing", async () => {
  const { world, relay } = await begin({ token: "t", refusedAfter: 1 });
  world.page.navigator.onLine = false;
  world.sockets[0].die();
  assert.equal(relay.state, "offline");
  world.page.navigator.onLine = true;
  await world.wait(1);
  world.sockets[1].die();
  assert.equal(relay.state, "refused");
});

test("what the page's own code throws is reported and stops nothing", async () => {
  const thrown = [];
  const outer = process.listeners("uncaughtException");
  process.removeAllListeners("uncaughtException");
  process.on("uncaughtException", (error) => thrown.push(error.message));
  const { relay, socket } = await beLive({ onMessage: () => { throw new Error("ours"); }, onState: () => { throw new Error("too"); } });
  socket.deliver({ kind: "remediation", event_id: "e", position: "p2" });
  await new Promise(setImmediate);
  process.removeAllListeners("uncaughtException");
  for (const each of outer) process.on("uncaughtException", each);
  assert.deepEqual(thrown, ["too", "too", "too", "ours"]);
  assert.equal(relay.position, "p2");
});

test("a callback may close, and nothing follows", async () => {
  const got = [];
  const { world, relay, socket } = await beLive({ onMessage: (message) => { got.push(message.event_id); relay.close(); } });
  socket.deliver([{ kind: "x", event_id: "1" }, { kind: "x", event_id: "2" }]);
  assert.deepEqual(got, ["1"]);
  await world.wait(10_000);
  assert.equal(world.sockets.length, 1);
  const other = await begin({ onState: (state) => state === "catching up" && other.relay.close() });
  other.world.sockets[0].open();
  assert.equal(other.relay.state, "closed");
  assert.equal(other.world.timers.length, 0);
});

test("nothing of the token is in what the page is told", async () => {
  const told = [];
  await begin({ token: "secret secret", onState: (state, detail) => told.push(state, detail) });
  assert.equal(told[2], "refused");
  assert.ok(!JSON.stringify(told).includes("secret"));
});

test("what the page has under a name of ours is its own", async () => {
  // An element's id is such a name in a browser.
  Object.assign(globalThis, { page: { addEventListener: 7 }, now: 7, random: 7, all: 7 });
  try {
    const world = new World();
    connect({ url, world: { WebSocket: world.WebSocket } }).close();
    await settled();
  } finally {
    for (const name of ["page", "now", "random", "all"]) delete globalThis[name];
  }
});

test("a token that comes after the end opens nothing", async () => {
  let give;
  const { world, relay } = await begin({ token: () => new Promise((resolve) => { give = resolve; }) });
  relay.close();
  give("t");
  await settled();
  assert.equal(world.sockets.length, 0);
});

test("a token that does not come is waited for no longer than a connection", async () => {
  const { world, relay } = await begin({ token: () => new Promise(() => {}) });
  await world.wait(20.1);
  assert.equal(relay.state, "offline");
});

test("nothing is told before connect has returned", async () => {
  const world = new World(), states = [];
  const relay = connect({ url, world: world.parts, onState: () => states.push(relay.state) });
  assert.deepEqual(states, []);
  await settled();
  assert.deepEqual(states, ["connecting"]);
});

test("the incidents are always the same Map", async () => {
  const { relay, socket } = await beLive();
  const { incidents } = relay;
  socket.deliver({ kind: "incident_update", incident_id: 7, sequence: "1" });
  assert.equal(relay.incidents, incidents);
  assert.deepEqual([...incidents.keys()], [7]);
});

test("without a world of its own it takes the real one", { skip: !globalThis.WebSocket && "Node 22 has a WebSocket" }, async () => {
  // Nobody listens there: it is closed before it is open.
  const states = await new Promise((resolve) => {
    const found = [];
    const relay = connect({ url: "ws://127.0.0.1:9/", onState: (state) => {
      found.push(state);
      if (state === "offline") relay.close();
      if (state === "closed") resolve(found);
    } });
  });
  assert.deepEqual(states, ["connecting", "offline", "closed"]);
});
