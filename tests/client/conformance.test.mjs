// The scripted sequences of client/conformance.json, which the Python twin is held to as well.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import { connect } from "../../client/async-relay.js";
import { settled, tokenUntil, World } from "./world.mjs";

const { scenarios } = JSON.parse(readFileSync(new URL("../../client/conformance.json", import.meta.url), "utf8"));

const written = (token) => (token && typeof token === "object" && "exp" in token ? tokenUntil(token.exp) : token);

/** What the client would be given: `tokens` one after the other, the last for ever. */
function tokens(list) {
  let at = 0;
  return async () => {
    const token = list[Math.min(at++, list.length - 1)];
    if (token?.throws) throw new Error("out of reach");
    return written(token);
  };
}

async function play({ options = {}, random = 0.5, steps }) {
  const world = new World(() => random);
  const seen = { messages: [], stale: [], states: [], history: [], sent: [] };
  world.onSend = (socket, words) => seen.sent.push([world.sockets.indexOf(socket) + 1, words]);
  const { tokens: given, ...others } = options;
  const relay = connect({
    url: "wss://relay.example/prod",
    ...(given && { token: tokens(given) }),
    ...others,
    world: world.parts,
    onMessage: (message) => seen.messages.push(message.event_id ?? message),
    onStale: (message) => seen.stale.push(message.event_id),
    onState: (state, detail) => seen.states.push(detail.retryIn === undefined ? state : [state, detail.retryIn]),
    onHistory: (found, about) => seen.history.push([found.map((each) => each.incident_id), about]),
  });
  await settled();
  const act = {
    open: (number) => world.sockets[number - 1].open(),
    send: ([number, ...frames]) => frames.forEach((frame) => world.sockets[number - 1].deliver(frame)),
    die: (number) => world.sockets.at(number - 1).die(),
    wait: (seconds) => world.wait(seconds),
    sleep: (seconds) => { world.time += seconds * 1_000; },
    wake: () => world.page.dispatchEvent(new Event("online")),
    close: () => relay.close(),
    expect: (wanted) => {
      for (const [name, value] of Object.entries(wanted)) assert.deepEqual(look[name](), value, name);
    },
  };
  const taken = (name) => () => seen[name].splice(0);
  const look = {
    state: () => relay.state,
    position: () => relay.position ?? null,
    incidents: () => Object.fromEntries(relay.incidents),
    order: () => [...relay.incidents.keys()],
    messages: taken("messages"),
    stale: taken("stale"),
    states: taken("states"),
    history: taken("history"),
    sent: () => seen.sent.splice(0).map(([number, words]) => [number, words]),
    sockets: () => world.sockets.length,
    closing: () => world.sockets.flatMap(({ readyState }, at) => (readyState === 2 ? [at + 1] : [])),
    url: () => world.sockets.at(-1).url,
    protocols: () => world.sockets.at(-1).protocols,
  };
  for (const [at, step] of steps.entries()) {
    const [[name, given]] = Object.entries(step);
    const tokened = JSON.parse(JSON.stringify(given), (_, value) => written(value));
    try {
      await act[name](tokened);
      await settled();
    } catch (error) {
      error.message = `step ${at + 1}, ${JSON.stringify(step)}: ${error.message}`;
      throw error;
    }
  }
}

for (const scenario of scenarios) test(scenario.name, () => play(scenario));
