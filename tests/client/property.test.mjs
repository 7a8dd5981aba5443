// Whatever comes in whatever order, and wherever it is cut: the picture of a client that never was cut.
import assert from "node:assert/strict";
import test from "node:test";

import { connect } from "../../client/async-relay.js";
import { Server } from "./server.mjs";
import { World } from "./world.mjs";

const HISTORIES = Number(process.env.HISTORIES ?? 100);

/** Numbers from 0 to 1, the same for the same seed (mulberry32). */
function seeded(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

async function live(seed, options = {}, client = {}) {
  const random = seeded(seed), world = new World(random), server = new Server(world, random, options);
  const incidents = ["a", "b", "c", "d", "e", "f"].slice(0, 1 + Math.floor(random() * 6));
  const got = { once: new Map(), newest: new Map(), positions: [], histories: [], rolledBack: [] };
  const note = (message) => got.once.set(message.event_id, (got.once.get(message.event_id) ?? 0) + 1);
  const relay = connect({
    url: "wss://relay.example/prod",
    rotateAfter: 15 + random() * 60,
    pingAfter: 5 + random() * 20,
    world: world.parts,
    onMessage: (message) => {
      note(message);
      const id = message.incident_id;
      if (id && got.newest.get(id) > +message.sequence) got.rolledBack.push(message.event_id);
      if (id) got.newest.set(id, +message.sequence);
    },
    onStale: note,
    onHistory: (found, about) => {
      got.histories.push(about);
      got.from ??= relay.position;
      for (const each of found) {
        got.once.set(each.event_id, got.once.get(each.event_id) ?? 0);
        got.newest.set(each.incident_id, Math.max(got.newest.get(each.incident_id) ?? 0, +each.sequence));
      }
    },
    ...client,
  });
  const steps = 40 + Math.floor(random() * 80);
  for (let step = 0; step < steps; step += 1) {
    const what = random();
    if (what < 0.5) for (let count = random() * 6; count > 0; count -= 1) server.publish(incidents);
    else if (what < 0.65 && server.connections.size) server.cut(server.pick([...server.connections]));
    else if (what < 0.7) world.page.dispatchEvent(new Event("online"));
    // A peer that is dead without a word: nothing comes, and nobody is told.
    else if (what < 0.74 && server.connections.size) server.connections.delete(server.pick([...server.connections]));
    await world.wait(what < 0.9 ? random() * 1.5 : random() * 40);
    if (relay.position) got.positions.push(relay.position);
  }
  server.trouble = 0;
  await world.wait(200);
  assert.equal(relay.state, "live");
  relay.close();
  return { server, got, relay };
}

const picture = (relay) => Object.fromEntries([...relay.incidents].map(([id, { sequence }]) => [id, sequence]).sort());
const truth = (server) => {
  const newest = {};
  for (const each of server.published) if (each.incident_id) newest[each.incident_id] = each.sequence;
  return Object.fromEntries(Object.entries(newest).sort());
};

function forEverySeed(name, options, check, client) {
  test(name, async () => {
    for (let seed = 1; seed <= HISTORIES; seed += 1) {
      try {
        check(await live(seed, options, client));
      } catch (cause) {
        throw new Error(`seed ${seed}: ${cause.message.slice(0, 1_000)}`, { cause });
      }
    }
  });
}

forEverySeed("with a feed nothing is missing, nothing comes twice, and nothing is rolled back", {}, ({ server, got, relay }) => {
  assert.deepEqual(picture(relay), truth(server));
  // What was published before the first history is in that, as far as it counts.
  const missed = server.published.filter((each) => each.position > got.from && !got.once.has(each.event_id));
  assert.deepEqual(missed.map((each) => each.event_id), []);
  assert.deepEqual([...got.once].filter(([, count]) => count > 1), []);
  assert.deepEqual(got.rolledBack, []);
  assert.deepEqual([...got.positions].sort(), got.positions);
  assert.deepEqual(got.histories.map(({ gap }) => gap), [false]);
});

forEverySeed("with a feed that forgets, the picture is right and nothing comes twice or is rolled back", { hours: 30_000 }, ({ server, got, relay }) => {
  assert.deepEqual(picture(relay), truth(server));
  assert.deepEqual([...got.once].filter(([, count]) => count > 1), []);
  assert.deepEqual(got.rolledBack, []);
});

forEverySeed("without a feed nothing comes twice or is rolled back", { feed: false }, ({ got }) => {
  assert.deepEqual([...got.once].filter(([, count]) => count > 1), []);
  assert.deepEqual(got.rolledBack, []);
});

forEverySeed("a server that answers nothing gives what comes, once", { silent: true }, ({ got }) => {
  assert.deepEqual([...got.once].filter(([, count]) => count > 1), []);
  assert.deepEqual(got.rolledBack, []);
}, { pingAfter: 9_999 });
