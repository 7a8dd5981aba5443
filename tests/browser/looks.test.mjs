// How the page looks and reads: in both themes, on a phone and on a wall, in Korean, with a screen reader, and quiet.

import assert from "node:assert/strict";
import { after, before } from "node:test";
import { begin, end, eventually, incident, onStage, relayWith } from "./stage.mjs";

before(begin);
after(end);

const LONG = "arn:aws:ec2:ap-northeast-2:123456789012:security-group-rule/with/a/long/path/sgr-0123456789abcdef0";
const ALL = [
  ...["CRITICAL", "HIGH", "MEDIUM", "LOW", "INFO", "NO-SUCH-SEVERITY-AT-ALL", ""].map((severity, at) => incident(`i-${at}`, { severity, resource: LONG })),
  incident("done", { severity: "CRITICAL", status: "RESOLVED" }), incident("i".repeat(200), { status: "A_VERY_LONG_STATUS_THAT_NOBODY_KNOWS", event_type: "T".repeat(300) }),
];
const PHONE = { width: 360, height: 740 }, WIDE = { width: 2560, height: 1440 };

/** A relay with every severity, a response, and something for operators. */
const everything = () => ({ relay: relayWith(ALL) });
async function fill(stage, page, relay) {
  await stage.live();
  relay.publish({ action: "revoke_rule", target: LONG, status: "FAILED" }, { action: "block", target: LONG, status: "SUCCEEDED" }, { action: "wait", target: LONG, status: "STARTED" });
  relay.publish({ ...incident("noted"), note: "n".repeat(3000) });
  relay.send({ kind: "weather".repeat(20) });
  relay.send("x".repeat(500));
  await stage.says("#shown", `${ALL.length + 1} of ${ALL.length + 1} shown`);
  await stage.row("done").click();
  await page.locator("#acknowledge").click();
  await page.locator("#close").click();
}

for (const colorScheme of ["light", "dark"]) {
  onStage(`axe finds no fault: ${colorScheme}, on a phone and wide, list and detail`, () => ({ ...everything(), media: { colorScheme } }), async (stage, page, relay) => {
    await fill(stage, page, relay);
    await page.setViewportSize(WIDE);
    await stage.operators();
    await stage.row("i-0").click();
    assert.deepEqual(await stage.faults(), []);
    // It covers the list.
    await page.setViewportSize(PHONE);
    assert.deepEqual(await stage.faults(), []);
    await page.locator("#close").click();
    assert.deepEqual(await stage.faults(), []);
  });
}

/** What sticks out of the window, or makes it scroll sideways. What scrolls or is cut by itself does not. */
const outside = (page) => page.evaluate(async () => {
  // The timeline fits itself to a new size after a frame.
  for (let frames = 0; frames < 2; frames += 1) await new Promise(requestAnimationFrame);
  const within = (each) => each.closest(".chips, .scroller, .unseen, .skip");
  const out = [...document.querySelectorAll("#page button, #page input, #page select, #page h1, #page h2, #page p, #page dd, #page section, #page aside")]
    .filter((each) => !within(each) && each.getBoundingClientRect().right > innerWidth + 1).map((each) => each.id || each.className || each.tagName);
  const { scrollWidth } = document.documentElement;
  return scrollWidth > innerWidth ? [`${scrollWidth} wide`, ...out] : out;
});

onStage("nothing scrolls sideways from 360 to 2,560 pixels", everything, async (stage, page, relay) => {
  await fill(stage, page, relay);
  for (const width of [360, 768, 1280, 2560]) {
    await page.setViewportSize({ width, height: 800 });
    assert.deepEqual(await outside(page), [], `list at ${width}`);
    await stage.operators();
    assert.deepEqual(await outside(page), [], `operators at ${width}`);
    await stage.operators(false);
    await stage.row("noted").click();
    assert.deepEqual(await outside(page), [], `detail at ${width}`);
    await page.locator("#close").click();
  }
});

onStage("the theme is the machine's until somebody chooses one, and is kept", { media: { colorScheme: "dark" } }, async (stage, page) => {
  const ground = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  const dark = await ground();
  await page.emulateMedia({ colorScheme: "light" });
  const light = await ground();
  assert.notEqual(light, dark);
  for (const expected of [light, dark]) {
    await page.locator("#theme").click();
    await eventually(ground, expected);
  }
  await page.reload();
  await eventually(ground, dark);
});

onStage("a browser that speaks Korean gets Korean", () => ({ ...everything(), locale: "ko-KR" }), async (stage, page, relay) => {
  await stage.live();
  relay.publish({ action: "block", target: LONG, status: "SUCCEEDED" });
  await eventually(() => page.locator("html").getAttribute("lang"), "ko");
  await stage.says("#state", "실시간");
  await stage.says("#shown", "전체 9 중 9 표시");
  await stage.row("i-0").click();
  await stage.operators();
  await stage.says("#acknowledge", "확인");
  // What is left in Latin letters came over the wire, or is a name.
  const ours = await stage.texts("h1, h2:not(#detail-heading), h3, .switches button, #detail .bar button, .heads button, .tools label, #unacknowledged, #operators dt");
  assert.ok(ours.length > 30, ours.join(", "));
  assert.deepEqual(ours.filter((each) => !/[가-힣]/.test(each) && each !== "UTC"), []);
});

onStage("nothing moves for somebody who asked for that", { relay: Object.assign(relayWith([]), { silent: true }), media: { reducedMotion: "reduce" } }, async (stage, page) => {
  await stage.state("catching up");
  const moving = () => page.evaluate(() => document.getAnimations().length);
  assert.equal(await moving(), 0);
  await page.emulateMedia({ reducedMotion: "no-preference" });
  await eventually(moving, 1);
});

onStage("a screen reader hears the sum of a burst, not each row of it", { clock: true }, async (stage, page, relay) => {
  await stage.live();
  await eventually(async () => { await page.clock.runFor(1_000); return /Live/.test(await page.locator("#announcer").innerText()); }, true);
  await page.evaluate(() => {
    window.said = [];
    new MutationObserver(() => window.said.push(document.getElementById("announcer").textContent)).observe(document.getElementById("announcer"), { childList: true, characterData: true, subtree: true });
  });
  for (let at = 0; at < 50; at += 1) {
    relay.publish(incident(`b-${at}`, { severity: at % 10 ? "LOW" : "CRITICAL" }));
    if (at === 24) await eventually(async () => { await page.clock.runFor(500); return (await stage.texts("#shown"))[0]; }, "25 of 25 shown");
  }
  await eventually(async () => { await page.clock.runFor(1_000); return page.evaluate(() => window.said); }, ["50 new, 5 critical"]);
});
