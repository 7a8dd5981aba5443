// What the page shows of what the relay tells: everything, once, and never an older state.

import assert from "node:assert/strict";
import { after, before } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { ago, begin, end, eventually, incident, onStage, relayWith } from "./stage.mjs";

before(begin);
after(end);

const SEVERITIES = ["CRITICAL", "HIGH", "MEDIUM", "LOW"], STATUSES = ["OPEN", "INVESTIGATING", "RESOLVED", "OPEN", "OPEN"];
const many = (n) => Array.from({ length: n }, (_, at) =>
  incident(`i-${at}`, { severity: SEVERITIES[at % 4], status: STATUSES[at % 5], minutes: 200 - at % 200 }));

onStage("200 incidents of several pages of history, and their counts", () => ({ relay: relayWith(many(200), { page: 60 }) }), async (stage, page) => {
  await stage.says("#shown", "200 of 200 shown");
  assert.deepEqual(await stage.texts("#severities .tile"), SEVERITIES.map((each) => `${each} 40 open of 50`));
  assert.deepEqual(await stage.texts("#statuses .chip"), ["OPEN 120", "INVESTIGATING 40", "RESOLVED 40"]);
  await eventually(() => page.title(), "(40) Incidents");
  assert.equal(await page.locator("#incidents").getAttribute("aria-rowcount"), "201");
  await page.locator("#incidents").focus();
  await page.keyboard.press("End");
  // The least urgent of all: resolved, LOW, and the one that changed longest ago.
  await eventually(async () => (await stage.rows()).at(-1), "i-7 LOW RESOLVED");
});

onStage("messages come as objects and as arrays", {}, async (stage, _, relay) => {
  await stage.live();
  relay.publish(incident("one"));
  relay.publish(incident("two"), incident("three"), { action: "block_public_access", target: "arn:aws:s3:::bucket-two", status: "SUCCEEDED" });
  await eventually(async () => (await stage.rows()).sort(), ["one LOW OPEN", "three LOW OPEN", "two LOW OPEN"]);
  await stage.says("#latest", /^block_public_access SUCCEEDED arn ?:aws ?:s3:::bucket-two/);
});

onStage("what happened while the socket was cut is there after it", () => ({ relay: relayWith([incident("old")], { page: 2 }) }), async (stage, _, relay) => {
  await stage.live();
  relay.publish(incident("before"));
  await eventually(async () => (await stage.rows()).length, 2);
  relay.cut();
  for (const each of ["a", "b", "c"]) relay.publish(incident(each));
  relay.publish(incident("before", { status: "RESOLVED" }));
  await eventually(async () => (await stage.rows()).sort(), ["a LOW OPEN", "b LOW OPEN", "before LOW RESOLVED", "c LOW OPEN", "old LOW OPEN"]);
  await stage.live();
  await stage.operators();
  await stage.says(".log", /Offline/);
  assert.doesNotMatch((await stage.texts(".log")).join(), /gap/);
});

onStage("where the feed cannot tell what was missed, the page starts anew and says so", () => ({ relay: relayWith([incident("gone"), incident("kept")]) }), async (stage, _, relay) => {
  await stage.live();
  await eventually(async () => (await stage.rows()).length, 2);
  relay.cut();
  relay.items.delete("gone");
  relay.publish(incident("new"));
  relay.forget();
  await eventually(async () => (await stage.rows()).sort(), ["kept LOW OPEN", "new LOW OPEN"]);
  await stage.operators();
  await stage.says(".log", /history of 2 incidents after a gap; what happened between is lost/);
});

onStage("a late, older state does not replace a newer one, and has its place among the states", {}, async (stage, page, relay) => {
  await stage.live();
  const first = relay.publish(incident("i", { status: "OPEN", minutes: 9 })), late = { ...first, status: "INVESTIGATING", event_id: "late", sequence: "2", updated_at: ago(6) };
  relay.publish(incident("other"));
  relay.publish(incident("i", { status: "RESOLVED", minutes: 3 }));
  await eventually(async () => (await stage.rows()).sort(), ["i LOW RESOLVED", "other LOW OPEN"]);
  relay.send(late);
  await stage.operators();
  await eventually(() => page.locator("#operators dt", { hasText: "Overtaken" }).locator("+ dd").innerText(), "1");
  assert.deepEqual((await stage.rows()).sort(), ["i LOW RESOLVED", "other LOW OPEN"]);
  await stage.row("i").click();
  await eventually(async () => (await stage.texts("#states li")).map((each) => each.replace(/( \w+ \d+,)? \d\d:.*/, "")), ["OPEN LOW", "INVESTIGATING LOW · arrived late", "RESOLVED LOW"]);
});

const numbered = (from, to) => Array.from({ length: to - from }, (_, at) => incident(`i-${from + at}`, { minutes: 60 + at / 100 }));
/** Of a window of 800 pixels, with those beyond its edges. */
const MOST_ROWS = 50;

onStage("5,000 incidents: few rows are in the document, and a burst is drawn a few times a second", () => ({ relay: relayWith(numbered(0, 4000)) }), async (stage, page, relay) => {
  await stage.says("#shown", "4,000 of 4,000 shown");
  await page.evaluate(() => {
    window.work = { chosen: 0, most: 0, from: performance.now() };
    new MutationObserver(() => {
      window.work.chosen += 1;
      window.work.most = Math.max(window.work.most, document.querySelectorAll(".row.incident").length);
    }).observe(document.getElementById("shown"), { childList: true, characterData: true, subtree: true });
  });
  const burst = numbered(4000, 5000);
  while (burst.length) {
    relay.publish(...burst.splice(0, 25));
    await sleep(15);
  }
  await stage.says("#shown", "5,000 of 5,000 shown");
  const { chosen, most, from } = await page.evaluate(() => ({ ...window.work, from: performance.now() - window.work.from }));
  assert.ok(chosen >= 1 && chosen <= 2 + from / 200, `the list was chosen ${chosen} times in ${from} ms, for 40 frames`);
  assert.ok(most > 0 && most <= MOST_ROWS, `${most} rows`);
  await page.locator("#incidents").focus();
  await page.keyboard.press("End");
  await eventually(async () => (await stage.rows()).at(-1), "i-3999 LOW OPEN");
  assert.ok((await stage.rows()).length <= MOST_ROWS);
});

onStage("without a connection the page says why, as far as a page can know", {}, async (stage, page) => {
  await stage.live();
  let config = 'export const url = "ws://localhost:1"; export async function token() { throw new Error("no token: 404"); }';
  await page.route("**/config.js", (route) => route.fulfill({ contentType: "text/javascript", body: config }));
  await page.reload();
  await stage.says("#state", /^Offline, next try in \d+ s: no token: 404$/);
  await stage.says(".empty", "No incidents yet: no token: 404");
  config = 'export const url = "wss://YOUR-API.example/prod";';
  await page.reload();
  await stage.says("#state", "Not set up");
  await stage.says(".empty", "No incidents yet: Set the address of your WebSocket API in config.js.");
});
