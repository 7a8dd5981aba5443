// What a person does with the page, with a mouse or with keys alone, and what of it stays.

import assert from "node:assert/strict";
import { after, before } from "node:test";
import { begin, end, eventually, incident, onStage, relayWith } from "./stage.mjs";

before(begin);
after(end);

const SOME = [
  incident("old-low", { minutes: 50 }), incident("new-low", { minutes: 10 }),
  incident("high", { severity: "HIGH", status: "INVESTIGATING" }), incident("done", { severity: "CRITICAL", status: "RESOLVED" }),
];
const ALL = ["high HIGH INVESTIGATING", "new-low LOW OPEN", "old-low LOW OPEN", "done CRITICAL RESOLVED"];
const withSome = () => ({ relay: relayWith(SOME) });

onStage("the open and the severe come first, and a head sorts by its column", withSome, async (stage, page) => {
  await eventually(() => stage.rows(), ALL);
  const head = page.locator(".incident-cell.head button");
  await head.click();
  await eventually(() => stage.rows(), [ALL[0], ALL[1], ALL[2], ALL[3]]);
  await head.click();
  await eventually(() => stage.rows(), [ALL[2], ALL[1], ALL[0], ALL[3]]);
  assert.equal(await page.locator(".incident-cell.head").getAttribute("aria-sort"), "descending");
  assert.deepEqual(stage.query(), ["sort=-incident"]);
});

onStage("filter and search stand in the URL, and a reload keeps them", withSome, async (stage, page) => {
  await eventually(() => stage.rows(), ALL);
  await page.keyboard.press("/");
  assert.equal(await stage.focused(), "search");
  await page.keyboard.type("LOW bucket-");
  await eventually(() => stage.rows(), ["new-low LOW OPEN", "old-low LOW OPEN"]);
  await page.keyboard.press("Enter");
  assert.equal(await stage.focused(), "incidents");
  await eventually(() => stage.texts(".row.active .incident-cell"), ["new-low"]);
  await page.locator("#statuses .chip", { hasText: "OPEN" }).click();
  await page.locator("#search").fill("old");
  await eventually(() => stage.rows(), ["old-low LOW OPEN"]);
  assert.deepEqual(stage.query(), ["status=OPEN", "q=old"]);
  await page.reload();
  await eventually(() => stage.rows(), ["old-low LOW OPEN"]);
  await stage.says("#shown", "1 of 4 shown");
  assert.equal(await page.locator("#search").inputValue(), "old");
  await page.locator("#clear").click();
  await eventually(() => stage.rows(), ALL);
  assert.deepEqual(stage.query(), []);
});

onStage("paused, nothing changes but the number of what is new", withSome, async (stage, page, relay) => {
  await eventually(() => stage.rows(), ALL);
  await page.locator("#pause").click();
  relay.publish(incident("while-paused", { severity: "CRITICAL" }));
  relay.publish(incident("high", { severity: "HIGH", status: "RESOLVED" }));
  await stage.says("#waiting", "↑ 2 new while paused");
  assert.deepEqual(await stage.rows(), ALL);
  await stage.says("#shown", "4 of 4 shown");
  await page.locator("#pause").click();
  await eventually(() => stage.rows(), ["while-paused CRITICAL OPEN", ALL[1], ALL[2], ALL[3], "high HIGH RESOLVED"]);
  assert.equal(await page.locator("#waiting").count(), 0);
});

onStage("rows do not move under the pointer", withSome, async (stage, page, relay) => {
  await eventually(() => stage.rows(), ALL);
  const place = (await stage.row("new-low").boundingBox()).y;
  await stage.row("new-low").hover();
  relay.publish(incident("urgent", { severity: "CRITICAL" }));
  relay.publish(incident("high", { severity: "HIGH", status: "RESOLVED" }));
  await stage.says("#waiting", "↑ 1 new, 1 critical");
  await eventually(() => stage.rows(), ["high HIGH RESOLVED", ALL[1], ALL[2], ALL[3]]);
  assert.equal((await stage.row("new-low").boundingBox()).y, place);
  await page.mouse.move(5, 5);
  await eventually(() => stage.rows(), ["urgent CRITICAL OPEN", ALL[1], ALL[2], ALL[3], "high HIGH RESOLVED"]);
});

onStage("to open an incident moves no row either", withSome, async (stage, page, relay) => {
  await eventually(() => stage.rows(), ALL);
  await stage.row("new-low").hover();
  relay.publish(incident("urgent", { severity: "CRITICAL" }));
  await stage.says("#waiting", "↑ 1 new, 1 critical");
  await stage.row("new-low").click();
  await stage.says("#detail", /bucket-new-low/);
  await page.locator("#close").click();
  assert.deepEqual(await stage.rows(), ALL);
});

onStage("paused, what is acknowledged is what is seen", withSome, async (stage, page, relay) => {
  await eventually(() => stage.rows(), ALL);
  await page.locator("#pause").click();
  await stage.row("high").click();
  relay.publish(incident("high", { severity: "CRITICAL" }));
  await stage.says("#waiting", "↑ 1 new while paused");
  await page.keyboard.press("a");
  await eventually(() => page.locator("#states li").count(), 1);
  await page.locator("#pause").click();
  await eventually(() => page.locator("#states li").count(), 2);
  assert.deepEqual(await stage.texts(".row.acknowledged"), []);
});

onStage("acknowledged, resolved and open again is not acknowledged", withSome, async (stage, page, relay) => {
  await stage.row("high").click();
  await page.keyboard.press("a");
  await eventually(() => stage.texts(".row.acknowledged .incident-cell"), ["high"]);
  relay.publish(incident("high", { severity: "HIGH", status: "RESOLVED" }), incident("high", { severity: "HIGH", status: "OPEN" }));
  await eventually(() => stage.texts(".row.acknowledged .incident-cell"), []);
});

onStage("a key acknowledges what is seen: not what is filtered out, and after going on what is open", withSome, async (stage, page) => {
  await eventually(() => stage.rows(), ALL);
  await stage.row("high").click();
  await page.goBack();
  await eventually(() => page.locator("#detail").count(), 0);
  await page.locator("#incidents").focus();
  await page.keyboard.press("End");
  await page.goForward();
  await stage.says("#detail", /bucket-high/);
  await page.keyboard.press("a");
  await eventually(() => stage.texts(".row.acknowledged .incident-cell"), ["high"]);
  await page.keyboard.press("Escape");
  await page.locator("#search").fill("new-low");
  await page.locator("#search").blur();
  await eventually(() => stage.rows(), ["new-low LOW OPEN"]);
  await page.keyboard.press("a");
  await page.locator("#clear").click();
  await eventually(() => stage.texts(".row.acknowledged .incident-cell"), ["high"]);
});

onStage("acknowledged is kept over a reload, until the incident is worse", withSome, async (stage, page, relay) => {
  await stage.row("high").click();
  await page.locator("#acknowledge").click();
  await eventually(() => stage.texts(".row.acknowledged .incident-cell"), ["high"]);
  await page.reload();
  await eventually(() => stage.texts(".row.acknowledged .incident-cell"), ["high"]);
  await page.locator("#unacknowledged").click();
  await eventually(() => stage.rows(), ALL.slice(1));
  await stage.live();
  await page.mouse.move(5, 5);
  relay.publish(incident("high", { severity: "CRITICAL", status: "OPEN" }));
  await eventually(() => stage.rows(), ["high CRITICAL OPEN", ...ALL.slice(1)]);
});

onStage("keys alone reach an incident and the way back", withSome, async (stage, page) => {
  await eventually(() => stage.rows(), ALL);
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await eventually(() => stage.focused(), "incidents");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("j");
  await page.keyboard.press("Enter");
  await eventually(() => stage.focused(), "detail");
  await stage.says("#detail", /bucket-new-low/);
  assert.deepEqual(stage.query(), ["incident=new-low"]);
  await page.keyboard.press("j");
  await stage.says("#detail", /bucket-old-low/);
  await page.keyboard.press("k");
  await stage.says("#detail", /bucket-new-low/);
  await page.keyboard.press("a");
  await page.keyboard.press("Escape");
  await eventually(() => stage.focused(), "incidents");
  assert.equal(await page.locator("#detail").count(), 0);
  assert.deepEqual(await stage.texts(".row.active.acknowledged .incident-cell"), ["new-low"]);
  assert.deepEqual(await stage.rows(), ALL);
  await page.keyboard.press("j");
  await eventually(() => stage.texts(".row.active .incident-cell"), ["old-low"]);
  assert.equal(new URL(page.url()).hash, "");
});

onStage("a detail has the whole item, its states and what was done about it", withSome, async (stage, page, relay) => {
  await stage.live();
  relay.publish(incident("high", { severity: "HIGH", status: "RESOLVED", minutes: 1, details: { ports: [22, 3389], open: true }, score: 0 }));
  relay.publish({ action: "revoke_rule", target: "arn:aws:s3:::bucket-high", status: "FAILED" }, { action: "other", target: "elsewhere", status: "STARTED" });
  await eventually(() => stage.rows(), [...ALL.slice(1), "high HIGH RESOLVED"]);
  await stage.row("high").click();
  await stage.says("#fields", /details \{ "ports": \[ 22, 3389 \], "open": true \} Copy score 0 Copy/);
  await stage.says("#responses", /^revoke_rule FAILED arn ?:aws ?:s3:::bucket-high/);
  assert.equal(await page.locator("#responses li").count(), 1);
  assert.deepEqual((await stage.texts("#states li")).map((each) => each.split(" ")[0]), ["INVESTIGATING", "RESOLVED"]);
});

onStage("an open CRITICAL row looks selected when it is", { relay: relayWith([incident("one", { severity: "CRITICAL" }), incident("two", { severity: "CRITICAL" })]) }, async (stage, page) => {
  await stage.row("one").click();
  const colour = (id) => stage.row(id).evaluate((row) => getComputedStyle(row).backgroundColor);
  await page.mouse.move(5, 5);
  await eventually(async () => (await colour("one")) !== (await colour("two")), true);
});
