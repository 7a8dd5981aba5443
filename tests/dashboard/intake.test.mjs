// What the client tells, on its way into the picture.
import assert from "node:assert/strict";
import test from "node:test";

import { Announcer } from "../../dashboard/announcer.js";
import { Frames } from "../../dashboard/frames.js";
import { RESOLVED } from "../../dashboard/incidents.js";
import { Intake } from "../../dashboard/intake.js";
import { Lateness } from "../../dashboard/times.js";

function begin(state = "live") {
  const lateness = new Lateness(), frames = new Frames(lateness), announcer = new Announcer((name, { n } = {}) => `${name}${n ?? ""}`);
  const seen = { alarms: [], states: [], changes: 0, lateness, frames, announcer };
  const say = (name, { n } = {}) => `${name}${n ?? ""}`;
  const intake = new Intake(RESOLVED, {
    lateness, frames, announcer, say, changed: () => { seen.changes += 1; }, saw: (row) => seen.states.push(`${row.id} ${row.status}`), alarm: (row) => seen.alarms.push(row.id),
  });
  intake.relay = { state, incidents: new Map() };
  return { intake, seen, ...intake.callbacks };
}

const item = (id, more = {}) => ({ kind: "incident_update", incident_id: id, status: "OPEN", severity: "CRITICAL", updated_at: new Date(Date.now() - 100).toISOString(), ...more });
const shown = ({ picture }) => [...picture.rows.values()].map(({ id, status }) => `${id} ${status}`);

test("an incident shows what the client knows of it, the whole item where it has it", () => {
  const { intake, onMessage } = begin();
  intake.relay.incidents.set("a", item("a", { owner: "payments" }));
  onMessage(item("a"));
  assert.equal(intake.picture.rows.get("a").item.owner, "payments");
});

test("what happens now disturbs once, and is measured", () => {
  const { onMessage, seen } = begin();
  for (const status of ["OPEN", "INVESTIGATING"]) onMessage(item("a", { status }));
  assert.deepEqual(seen.alarms, ["a"]);
  assert.ok(seen.lateness.delay(Date.now()) >= 100);
  assert.match(seen.announcer.take(0), /say.opened1/);
});

test("what is caught up with is shown, disturbs nobody and is no delay", () => {
  const { intake, onMessage, onHistory, seen } = begin("catching up");
  onMessage(item("a"));
  onHistory([item("b", { kind: undefined })], { gap: false });
  assert.deepEqual(shown(intake), ["a OPEN", "b OPEN"]);
  assert.deepEqual([seen.alarms, seen.lateness.delay(Date.now()), seen.announcer.take(0)], [[], undefined, "say.loaded1"]);
});

test("what a replay beside a live connection tells disturbs, but is neither fresh nor late nor a delay", () => {
  const { intake, onMessage, onStale, seen } = begin();
  seen.frames.heard('{"kind":"replay"}', 0);
  onMessage(item("a"));
  onStale(item("a", { status: "NEW" }));
  assert.deepEqual([seen.alarms, intake.picture.rows.get("a").fresh, seen.lateness.delay(Date.now()), intake.picture.states("a")[0].late], [["a"], 0, undefined, false]);
  seen.frames.heard("{}", 0);
  onMessage(item("a", { status: "INVESTIGATING" }));
  onStale(item("a", { status: "NEW" }));
  assert.ok(intake.picture.rows.get("a").fresh);
  assert.equal(intake.picture.states("a").at(-2).late, true);
});

test("a history after a gap takes the place of the picture, and one without is added", () => {
  const { intake, onMessage, onHistory } = begin();
  onMessage(item("a"));
  onHistory([item("b")], { gap: false });
  assert.deepEqual(shown(intake), ["a OPEN", "b OPEN"]);
  onHistory([item("c")], { gap: true });
  assert.deepEqual(shown(intake), ["c OPEN"]);
  assert.deepEqual(intake.log.map(({ words }) => words), ["op.history1", "op.gap1"]);
});

test("a long history is taken in portions, and what it has is no news meanwhile", async () => {
  const { intake, onHistory, onMessage, seen } = begin();
  onHistory(Array.from({ length: 1_200 }, (_, n) => item(`i-${n}`)), { gap: false });
  assert.deepEqual([intake.picture.rows.size, intake.loaded], [500, false]);
  onMessage(item("i-900"));
  assert.deepEqual(seen.alarms, []);
  while (!intake.loaded) await new Promise(setImmediate);
  assert.equal(intake.picture.rows.size, 1_200);
  onMessage(item("new"));
  assert.deepEqual(seen.alarms, ["new"]);
});

test("what is new while a long history is on its way disturbs all the same", () => {
  const { onHistory, onMessage, seen } = begin();
  onHistory([...Array.from({ length: 1_200 }, (_, n) => item(`i-${n}`)), item("was-high", { severity: "HIGH" })], { gap: false });
  for (const id of ["new", "i-3", "was-high"]) onMessage(item(id));
  assert.deepEqual(seen.alarms, ["new", "was-high"]);
});

test("a gap takes the place of a history that is still on its way", async () => {
  const { intake, onHistory } = begin();
  onHistory(Array.from({ length: 1_200 }, (_, n) => item(`i-${n}`)), { gap: false });
  onHistory([item("after")], { gap: true });
  while (!intake.loaded) await new Promise(setImmediate);
  assert.deepEqual(shown(intake), ["after OPEN"]);
});

test("of a history the newest come first, and are the last to be forgotten", () => {
  const { intake, onHistory } = begin();
  onHistory([item("newest"), item("oldest")], { gap: false });
  assert.deepEqual(shown(intake), ["oldest OPEN", "newest OPEN"]);
});

test("each state that is known is told to what was acknowledged", () => {
  const { onMessage, onHistory, seen } = begin("catching up");
  onMessage(item("a", { status: "RESOLVED" }));
  onHistory([item("b")], { gap: false });
  assert.deepEqual(seen.states, ["a RESOLVED", "b OPEN"]);
});

test("an incident without an id is counted, wherever it comes from, and others go on", () => {
  const { intake, onMessage, onHistory, seen } = begin();
  for (const id of [undefined, null, ""]) onMessage(item(id));
  onHistory([item(""), item("a")], { gap: false });
  assert.deepEqual([shown(intake), seen.frames.unread.get("noId").times], [["a OPEN"], 4]);
});

test("responses are kept, kinds nobody knows are not, and a late state is counted", () => {
  const { intake, onMessage, onStale, seen } = begin();
  onMessage({ kind: "remediation", action: "stop", target: "arn:x" });
  onMessage({ kind: "weather" });
  onStale(item("a"));
  assert.deepEqual([intake.picture.responses.length, intake.picture.rows.size, seen.frames.stale, seen.changes], [1, 0, 1, 3]);
});

test("states are logged one by one, and tries in a row are one story to a listener", () => {
  const { intake, onState, seen } = begin();
  for (const state of ["connecting", "live", "offline", "connecting", "offline", "connecting", "live"]) onState(state, { retryIn: 2 });
  assert.equal(intake.log.length, 7);
  assert.equal(seen.announcer.take(0), "live. say.offline. live");
});

test("a refusal says why in the reader's words", () => {
  const { intake, onState } = begin();
  const reasons = ["there is no token any more", "closed 10 times before it was open", "no WebSocket takes this URL or token"].map((reason) => {
    onState("refused", { reason });
    return intake.connection.reason;
  });
  assert.deepEqual(reasons, ["reason.noToken", "reason.closed", "reason.url"]);
});

test("why there is no token is said until there is one, and then whether a connection opens", async () => {
  const { intake, onState, seen } = begin(), answers = [new Error("no token: 404\u202e"), undefined, "token"];
  const token = intake.asking(async () => { const answer = answers.shift(); if (answer !== "token") throw answer; return answer; });
  await assert.rejects(token(), /404/);
  assert.equal(intake.obstacle, "no token: 404\\u202e");
  onState("offline", { retryIn: 2 });
  assert.equal(intake.log.at(-1).words, "offlineWhy");
  await assert.rejects(async () => token());
  assert.equal(intake.obstacle, "?");
  assert.equal(await token(), "token");
  assert.equal(intake.obstacle, undefined);
  seen.frames.unopened = true;
  assert.equal(intake.obstacle, "reason.unopened");
  assert.equal(intake.asking("text"), "text");
});

test("the server has answered once its history is there", () => {
  const { intake, onHistory, seen } = begin();
  assert.equal(intake.answered, false);
  onHistory([], { gap: false });
  assert.equal(intake.answered, true);
  const other = begin();
  other.seen.frames.heard('{"kind":"replay"}', 0);
  assert.deepEqual([other.intake.answered, seen.changes], [true, 1]);
});
