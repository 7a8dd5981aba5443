// Thousands: what the page does is bounded, however many there are. How long it takes is for long_tasks.mjs to say.

import assert from "node:assert/strict";
import { eventually, incident, onStage, relayWith } from "./stage.mjs";

const many = (from, to) => Array.from({ length: to - from }, (_, at) => incident(`i-${from + at}`, { minutes: 60 + at / 100 }));
/** Of a window of 800 pixels, with those beyond its edges. */
const MOST_ROWS = 50;

onStage("5,000 incidents: few rows are in the document, and a burst is drawn a few times a second", () => ({ relay: relayWith(many(0, 4000)) }), async (stage, page, relay) => {
  await stage.says("#shown", "4,000 of 4,000 shown");
  await page.evaluate(() => {
    window.work = { chosen: 0, most: 0, from: performance.now() };
    new MutationObserver(() => {
      window.work.chosen += 1;
      window.work.most = Math.max(window.work.most, document.querySelectorAll(".row.incident").length);
    }).observe(document.getElementById("shown"), { childList: true, characterData: true, subtree: true });
  });
  const burst = many(4000, 5000);
  while (burst.length) relay.publish(...burst.splice(0, 5));
  await stage.says("#shown", "5,000 of 5,000 shown");
  const { chosen, most, from } = await page.evaluate(() => ({ ...window.work, from: performance.now() - window.work.from }));
  assert.ok(chosen >= 1 && chosen <= 2 + from / 200, `the list was chosen ${chosen} times in ${from} ms, for 200 frames`);
  assert.ok(most > 0 && most <= MOST_ROWS, `${most} rows`);
  await page.locator("#incidents").focus();
  await page.keyboard.press("End");
  await eventually(async () => (await stage.rows()).at(-1), "i-3999 LOW OPEN");
  assert.ok((await stage.rows()).length <= MOST_ROWS);
});
