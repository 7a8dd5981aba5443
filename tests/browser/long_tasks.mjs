// How long the page keeps hands waiting with 5,000 incidents: the longest task of each thing a person does with it.
//
//     CHROMIUM=/usr/bin/chromium node long_tasks.mjs
//
// It is a measurement and no test. A busy machine makes a task longer but no more work, so that what counts is the
// processor's time: where a task takes over 100 ms of it, this fails. What PerformanceObserver saw stands beside it.

import { setTimeout as sleep } from "node:timers/promises";
import { begin, end, eventually, incident, relayWith, Stage } from "./stage.mjs";

const MANY = 5_000, MOST = 100, SEVERITIES = ["LOW", "MEDIUM", "HIGH", "CRITICAL"];
const at = (index) => incident(`i-${index}`, { severity: SEVERITIES[index % 4], status: index % 3 ? "OPEN" : "RESOLVED", minutes: index % 90 });

/** The page tells of each task over 50 ms, the browser's own threshold; before the page is opened. */
const observe = () => {
  window.tasks = [];
  new PerformanceObserver((list) => window.tasks.push(...list.getEntries().map(({ duration }) => duration))).observe({ type: "longtask", buffered: true });
};

async function search(page) {
  await page.locator("#search").pressSequentially("bucket-i-49", { delay: 50 });
  await page.locator("#search").fill("");
}

async function sort(page) {
  for (const name of ["resource", "incident", "changed"]) await page.locator(`.${name}-cell.head button`).click();
}

async function filter(page) {
  for (const name of ["CRITICAL", "LOW", "CRITICAL", "LOW"]) await page.locator("#severities .tile", { hasText: name }).click();
}

async function scroll(page) {
  await page.locator("#incidents").hover();
  for (let each = 0; each < 40; each += 1) await page.mouse.wheel(0, 900);
}

async function keys(page) {
  await page.locator("#incidents").focus();
  for (let each = 0; each < 30; each += 1) await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Escape");
  await page.locator("#search").focus();
}

/** A hundred changes a second. */
async function changes(page, relay) {
  for (let each = 0; each < 500; each += 10) {
    relay.publish(...Array.from({ length: 10 }, (_, more) => at(each + more)));
    await sleep(100);
  }
}

await begin();
const relay = relayWith(Array.from({ length: MANY }, (_, index) => at(index)));
const stage = await Stage.open({ relay, before: observe }), { page } = stage, tracer = page.context().browser(), worst = [];

/** The longest task of the page's main thread by the processor's time (ms): what it would take on a machine of its own. */
function longestAlone(trace) {
  const events = JSON.parse(trace).traceEvents;
  const main = new Set(events.filter(({ name, args }) => name === "thread_name" && args.name === "CrRendererMain").map(({ pid, tid }) => `${pid} ${tid}`));
  return Math.max(0, ...events.filter(({ ph, tdur, pid, tid }) => ph === "X" && tdur && main.has(`${pid} ${tid}`)).map(({ tdur }) => tdur)) / 1000;
}

async function measure(name, act) {
  await tracer.startTracing(page, { categories: ["toplevel"] });
  await act(page, relay);
  await sleep(500);
  const alone = Math.round(longestAlone(await tracer.stopTracing()));
  const tasks = await page.evaluate(() => window.tasks.splice(0)), longest = Math.round(Math.max(0, ...tasks));
  worst.push(alone);
  console.log(`${name.padEnd(8)} longest task ${String(alone).padStart(4)} ms of the processor's time; ${tasks.length} over 50 ms on the clock${longest ? `, up to ${longest}` : ""}`);
}

try {
  await measure("load", () => eventually(async () => (await stage.texts("#shown"))[0], "5,000 of 5,000 shown"));
  for (const act of [changes, search, sort, filter, scroll, keys]) await measure(act.name, act);
} finally {
  await stage.close();
  await end();
}
process.exitCode = +(Math.max(...worst) > MOST);
