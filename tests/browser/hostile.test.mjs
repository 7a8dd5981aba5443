// Bad input: the page shows what it can, tells operators what it could not read, executes nothing and goes on.

import assert from "node:assert/strict";
import { after, before } from "node:test";
import { ago, begin, end, eventually, incident, onStage, relayWith } from "./stage.mjs";

before(begin);
after(end);

const MARKUP = '"><img src=x onerror="owned=1"><script>owned=1</script><svg onload=owned=1>';
const LINK = "javascript:owned=1", FIELDS = ["incident_id", "status", "severity", "event_type", "type", "resource", "arn", "sg", "created_at", "updated_at", "note"];
const VALUES = [MARKUP, LINK, 7, -0.5, 1e300, true, false, null, [MARKUP, [1]], { [MARKUP]: MARKUP, __proto: { constructor: 1 } }, "", "\u202egnp.exe\u0000", "${owned=1}{{owned=1}}"];

const foreign = (page) => page.evaluate(() =>
  document.querySelectorAll("img, iframe, #page script, #page a:not(.skip), #page [onerror], #page [onload], #page [src]").length);

onStage("script in every field, as every kind of value, is text", {}, async (stage, page, relay) => {
  await stage.live();
  for (const field of FIELDS) VALUES.forEach((value, at) => relay.publish({ ...incident(`${field}-${at}`), [field]: value }));
  relay.publish({ ...incident("all"), ...Object.fromEntries(FIELDS.slice(1).map((each) => [each, MARKUP])), [MARKUP]: MARKUP });
  for (const each of ["action", "target", "status", "time", MARKUP]) VALUES.forEach((value) => relay.publish({ action: "a", target: "t", status: "s", [each]: value }));
  relay.send({ kind: MARKUP, [MARKUP]: MARKUP });
  relay.send(MARKUP);
  relay.send({ kind: "error", message: MARKUP });
  // null and "" are no id.
  const rows = FIELDS.length * VALUES.length + 1 - 2;
  await stage.says("#shown", `${rows} of ${rows} shown`);
  await page.locator("#search").fill("note script");
  await stage.operators();
  await stage.says("#unknown-kinds", /"><img src=x onerror="owned=1"><script>/);
  await stage.says("#unread", /errors the server reported: 1 time Last one: "><img src=x/);
  await page.locator("#search").fill("all onerror");
  for (const key of ["End", "Home"]) { await page.locator("#incidents").focus(); await page.keyboard.press(key); }
  await page.keyboard.press("Enter");
  await stage.says("#detail-heading", MARKUP);
  await eventually(async () => (await stage.texts("#fields dt")).at(-1), MARKUP);
  assert.equal(await foreign(page), 0);
  for (let at = 0; at < 12; at += 1) await page.keyboard.press("ArrowDown");
  assert.equal(await foreign(page), 0);
});

onStage("frames nobody can read are counted for operators, and what comes after them is shown", {}, async (stage, page, relay) => {
  await stage.live();
  const bad = ["not JSON", "{", "", new Uint8Array([1, 2, 3]), null, 7, [1, [2], "x"], { kind: "weather" }, {}, { kind: "incident_update" },
    { kind: "incident_update", incident_id: null }, { kind: "incident_history", incidents: 7 }, { kind: "replay", recovered: true, messages: 7 },
    { kind: "error", message: "not now" }, { message: "Forbidden", connectionId: "c", requestId: "r" }];
  for (const each of bad) relay.send(each);
  relay.publish(incident("after"));
  await eventually(() => stage.rows(), ["after LOW OPEN"]);
  await stage.operators();
  const unread = (await stage.texts("#unread li")).map((each) => each.split(" Last")[0]);
  assert.deepEqual(unread, [
    "frames that are not JSON: 3 times", "binary frames: 1 time", "messages that are not objects: 5 times",
    "incidents without an id: 2 times", "errors the server reported: 2 times",
  ]);
  assert.deepEqual((await stage.texts("#unknown-kinds li")).map((each) => each.split(":")[0]), ["weather", "-"]);
});

onStage("missing and huge fields are shown as far as that is of use", {}, async (stage, page, relay) => {
  await stage.live();
  const deep = JSON.parse("[".repeat(3000) + "]".repeat(3000));
  relay.publish({ incident_id: "bare" });
  relay.publish({ ...incident("huge"), event_type: "T".repeat(100_000), resource: `arn:${"x".repeat(100_000)}/the-end`, note: "n".repeat(100_000), deep });
  relay.publish({ ...incident("wide"), ...Object.fromEntries(Array.from({ length: 1000 }, (_, at) => [`field-${at}`, at])) });
  relay.publish({ incident_id: "L".repeat(50_000) });
  await stage.says("#shown", "4 of 4 shown");
  await stage.row("bare").click();
  await stage.says("#fields", /^kind incident_update Copy event_id e-1 Copy/);
  await stage.row("huge").click();
  await stage.says("#fields", /n… 92,000 more characters|nnn … 92,000 more characters/);
  await stage.row("wide").click();
  await stage.says("#detail", /811 more values/);
  await eventually(() => page.evaluate(() => document.getElementById("page").innerText.length < 40_000), true);
});

for (const [name, minutes, said] of [["ahead", 60, "60 min ahead"], ["behind", -60, "60 min behind"]]) {
  onStage(`a clock that is ${name} is told, and times are corrected`, {}, async (stage, _, relay) => {
    await stage.live();
    relay.send({ type: "ping", timestamp: Date.now() - minutes * 60_000, position: relay.position });
    relay.publish(incident("now", { minutes: minutes + 3 }));
    await stage.says("#delay", new RegExp(`this computer’s clock is ${said}; times are corrected`));
    await stage.says(".changed-cell .relative", "3m ago");
  });
}

onStage("stamps that no date can be made of stop nothing", {}, async (stage, _, relay) => {
  await stage.live();
  for (const timestamp of [1e300, -1e300, 8.64e15, { toString: 1, valueOf: 1 }]) relay.send({ type: "ping", timestamp, position: relay.position });
  for (const each of [8.64e15, 1e300, { toString: 1, valueOf: 1 }]) relay.publish({ ...incident("odd"), updated_at: each, created_at: each }, incident(`beside-${each.toString}`.slice(0, 8)));
  relay.publish(incident("after"));
  await eventually(async () => (await stage.rows()).sort(), ["after LOW OPEN", "beside-1 LOW OPEN", "beside-f LOW OPEN", "odd LOW OPEN"]);
  await eventually(() => stage.row("after").locator(".relative").innerText(), "5m ago");
});

onStage("a server that never answers: the page says so, and shows what comes", { relay: Object.assign(relayWith([]), { silent: true }), clock: true }, async (stage, page, relay) => {
  await stage.state("catching up");
  await stage.says("#state", "Loading what you missed");
  const slow = async () => { await page.clock.runFor(1_000); return /^Connected, but the server has not answered for \d+ s$/.test(await page.locator("#state").innerText()); };
  await eventually(slow, true);
  await page.clock.runFor(5_000);
  await stage.says("#state", "Live, but the server did not send what happened before");
  relay.publish(incident("all-the-same"));
  await eventually(async () => { await page.clock.runFor(500); return stage.rows(); }, ["all-the-same LOW OPEN"]);
});

onStage("a server that takes no connection: the page says how long, and tries again", { clock: true }, async (stage, page, relay) => {
  await stage.live();
  relay.deaf = true;
  stage.forgives = /WebSocket is closed before the connection is established/;
  relay.cut();
  await stage.says("#state", /^(Offline|Connecting)/);
  await eventually(async () => { await page.clock.runFor(2_000); return /^Connecting: no answer for \d+ s$/.test(await page.locator("#state").innerText()); }, true);
  relay.deaf = false;
  relay.publish(incident("meanwhile", { updated_at: ago(1) }));
  await eventually(async () => { await page.clock.runFor(5_000); return stage.rows(); }, ["meanwhile LOW OPEN"]);
});
