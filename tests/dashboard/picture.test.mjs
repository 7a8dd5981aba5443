// The picture, what of it stays while somebody points at it, and what this browser keeps.
import assert from "node:assert/strict";
import test from "node:test";

import { Announcer } from "../../dashboard/announcer.js";
import { Hold } from "../../dashboard/hold.js";
import { BANDS, lastHour, MINUTES, stacked } from "../../dashboard/hour.js";
import { keyOf, Picture, rankOf, RESOLVED } from "../../dashboard/incidents.js";
import { Kept } from "../../dashboard/kept.js";

const MINUTE = 60_000, NOW = Date.parse("2026-01-01T12:00:30Z");
const at = (minutes) => new Date(NOW - minutes * MINUTE).toISOString();

const item = (id, more = {}) => ({
  kind: "incident_update", incident_id: id, status: "OPEN", severity: "HIGH", event_type: "Leak", resource: "arn:x", created_at: at(9), updated_at: at(9), ...more,
});

function pictured(...items) {
  const picture = new Picture(RESOLVED);
  for (const each of items) picture.change(each, NOW, each);
  return picture;
}

const statuses = (picture, id) => picture.states(keyOf(id)).map(({ status }) => status);

test("an id is itself: a number is not its text, and none is none", () => {
  assert.equal(new Set([7, "7", true, "true", { a: 1 }, "__proto__", "\u001fnumber=7"].map(keyOf)).size, 7);
  assert.equal(keyOf("INC-1"), "INC-1");
  for (const none of [undefined, null, ""]) assert.equal(keyOf(none), undefined);
  assert.notEqual(keyOf(0), undefined);
});

test("severities have ranks in any case, and what nobody knows comes behind them", () => {
  const ranks = ["critical", "HIGH", "Medium", "LOW", "INFO", "SEV0", ""].map(rankOf);
  assert.deepEqual(ranks, [0, 1, 2, 3, 4, 5, 6]);
  assert.equal(rankOf("informational"), rankOf("info"));
  assert.equal(rankOf("constructor"), rankOf("SEV0"));
});

test("a row has every field as text, whatever it was", () => {
  const [row] = pictured(item(7, { status: false, severity: { a: [1] }, event_type: null, type: 1e21, resource: "", arn: undefined, sg: ["sg-1"] })).rows.values();
  assert.deepEqual([row.id, row.status, row.severity, row.type, row.resource], ["7", "false", '{"a":[1]}', "1e+21", '["sg-1"]']);
});

test("the incident's own state says whether it is open, in the words of the owner", () => {
  const picture = new Picture(["Fixed"]);
  picture.change(item("a", { status: "FIXED" }), NOW);
  picture.change(item("b", { status: "RESOLVED" }), NOW);
  assert.deepEqual([...picture.rows.values()].map(({ open }) => open), [false, true]);
});

test("a row is replaced and never changed, and tells what it was before", () => {
  const picture = pictured(item("a")), old = picture.rows.get("a");
  const { before, row } = picture.change(item("a", { status: "RESOLVED" }), NOW + 5);
  assert.equal(before, old);
  assert.deepEqual([old.status, row.status, row.seen], ["OPEN", "RESOLVED", NOW]);
});

test("only what is told now is fresh", () => {
  const picture = new Picture(RESOLVED);
  assert.equal(picture.change(item("a"), NOW).row.fresh, 0);
  assert.equal(picture.change(item("a"), NOW, item("a")).row.fresh, 0);
  assert.equal(picture.change(item("a"), NOW, item("a"), true).row.fresh, NOW);
});

test("states follow each other, and a repeat is none", () => {
  const picture = pictured(item("a"), item("a", { updated_at: at(8) }), item("a", { status: "RESOLVED" }), item("a", { status: "OPEN", severity: "LOW" }));
  assert.deepEqual(statuses(picture, "a"), ["OPEN", "RESOLVED", "OPEN"]);
});

test("a late state takes its place among the states and leaves the row alone", () => {
  const picture = pictured(item("a", { sequence: "9" }), item("a", { status: "RESOLVED", sequence: "11" }));
  picture.late(item("a", { status: "INVESTIGATING", sequence: "10" }), NOW, true);
  assert.deepEqual(statuses(picture, "a"), ["OPEN", "INVESTIGATING", "RESOLVED"]);
  assert.equal(picture.states("a")[1].late, true);
  assert.equal(picture.rows.get("a").status, "RESOLVED");
  picture.late(item("nobody"), NOW);
  assert.equal(picture.rows.size, 1);
});

test("states are kept in bounds", () => {
  const picture = pictured(...Array.from({ length: 300 }, (_, n) => item("a", { status: `S${n}` })));
  assert.equal(picture.states("a").length, 100);
  assert.equal(picture.states("a").at(-1).status, "S299");
  for (let n = 0; n < 50; n += 1) picture.late(item("a", { status: `L${n}`, updated_at: at(10) }), NOW);
  assert.equal(picture.states("a").length, 100);
});

test("a huge severity or status is kept as its beginning, since all are compared with all", () => {
  const [row] = pictured(item("a", { severity: "S".repeat(100_000), status: "T".repeat(100_000) })).rows.values();
  assert.deepEqual([row.severity.length, row.status.length, row.item.severity.length], [500, 500, 100_000]);
});

test("what is still stays as it was, whatever comes", () => {
  const picture = pictured(item("a")), still = picture.still();
  picture.change(item("a", { status: "RESOLVED" }), NOW);
  picture.late(item("a", { status: "INVESTIGATING" }), NOW);
  picture.responded({ action: "stop", target: "arn:x" }, NOW);
  assert.deepEqual([statuses(still, "a"), still.rows.get("a").status, still.responsesTo(still.rows.get("a"))], [["OPEN"], "OPEN", []]);
});

test("a sequence that is no text is none, whatever it is", () => {
  const picture = pictured(item("a", { sequence: { toString: 1, valueOf: 1 } }));
  assert.deepEqual([statuses(picture, "a"), picture.states("a")[0].sequence], [["OPEN"], undefined]);
});

test("the incident that changed longest ago is forgotten first", () => {
  const picture = new Picture(RESOLVED);
  for (let n = 0; n < 20_001; n += 1) picture.change(item(`i-${n}`), NOW);
  assert.equal(picture.rows.size, 20_000);
  assert.equal(picture.rows.has("i-0"), false);
  assert.deepEqual(picture.states("i-0"), []);
});

test("responses belong to an incident by its resource or its id, in the order of their times", () => {
  const picture = pictured(item("a", { arn: "arn:y" }), item("b", { resource: "-" }));
  for (const [action, more] of [["3", { target: "arn:y", time: at(1) }], ["1", { target: "arn:x", time: at(3) }], ["2", { incident_id: "a", time: at(2) }],
    ["no", { target: "arn:z" }], ["nobody's", { target: "-" }], ["b", { target: "-", incident: "b" }]]) picture.responded({ action, ...more }, NOW);
  const found = (key) => picture.responsesTo(picture.rows.get(key)).map(({ action }) => action);
  assert.deepEqual(found("a"), ["1", "2", "3"]);
  assert.deepEqual(found("b"), ["b"]);
});

test("search finds any word of any field, and a huge field costs no more than its beginning", () => {
  const [row] = pictured(item("a", { owner: { Team: "Payments" }, huge: `${"x".repeat(100_000)}END` })).rows.values();
  assert.ok(row.searched.includes("payments"));
  assert.ok(row.searched.length < 3_000);
});

test("a history after a gap begins anew", () => {
  const picture = pictured(item("a"));
  picture.clear();
  assert.deepEqual([picture.rows.size, picture.states("a").length], [0, 0]);
});

// ── hold ──

const all = (picture) => [...picture.rows.values()];
const keys = (rows) => rows.map(({ key }) => key).join(" ");

test("while somebody points at them rows stay, change in place, and new ones wait", () => {
  const picture = pictured(item("a"), item("b")), hold = new Hold();
  hold.order(all(picture), picture.rows, false);
  picture.change(item("a", { status: "RESOLVED" }), NOW);
  picture.change(item("c"), NOW);
  const { shown, waiting } = hold.order(all(picture), picture.rows, true);
  assert.deepEqual([keys(shown), keys(waiting), shown[0].status], ["a b", "c", "RESOLVED"]);
  assert.equal(keys(hold.order(all(picture), picture.rows, false).shown), "b a c");
});

test("a pause keeps everything, and counts what is new or other", () => {
  const picture = pictured(item("a"), item("b")), hold = new Hold();
  assert.deepEqual(hold.source(picture.rows), { rows: picture.rows, changed: 0 });
  hold.pause(picture.rows);
  picture.change(item("a", { status: "RESOLVED" }), NOW);
  picture.change(item("c"), NOW);
  const { rows, changed } = hold.source(picture.rows);
  assert.deepEqual([hold.paused, changed, rows.size, rows.get("a").status], [true, 2, 2, "OPEN"]);
  hold.play();
  assert.equal(hold.source(picture.rows).rows, picture.rows);
});

// ── the last hour ──

test("the last hour has an incident in the minute and the severity it began in", () => {
  const rows = all(pictured(
    item("now", { severity: "CRITICAL", created_at: at(0) }), item("old", { created_at: at(61) }), item("first", { severity: "LOW", created_at: at(59) }),
    item("odd", { severity: "SEV0", created_at: at(0) }), item("untold", { created_at: "?" }), item("future", { created_at: at(-5) }),
  ));
  const { minutes, bands } = lastHour(rows, NOW);
  assert.deepEqual([minutes.length, minutes.at(-1) * 1000], [MINUTES, NOW - 30_000]);
  const total = bands.map((band) => band.reduce((a, b) => a + b));
  assert.deepEqual([total, bands[0].at(-1), bands[3][0], bands[1].at(-1)], [[1, 1, 0, 1, 1], 1, 1, 1]);
  assert.equal(stacked(bands)[BANDS - 1].at(-1), 3);
});

// ── what this browser keeps ──

class Store extends Map {
  getItem(name) { return this.get(name) ?? null; }
  setItem(name, value) { this.set(name, value); }
}

test("settings and acknowledgements outlive the page", () => {
  const store = new Store(), [row] = all(pictured(item("a"))), kept = new Kept(store);
  kept.set("theme", "dark");
  kept.toggle(row);
  assert.deepEqual([new Kept(store).setting("theme"), new Kept(store).acknowledged(row)], ["dark", true]);
  kept.toggle(row);
  assert.equal(new Kept(store).acknowledged(row), false);
});

test("an acknowledgement ends where the incident is worse than it was", () => {
  const kept = new Kept(new Store()), row = (more) => all(pictured(item("a", more)))[0];
  kept.toggle(row({ severity: "MEDIUM" }));
  const holds = [{ severity: "LOW" }, { severity: "MEDIUM", status: "RESOLVED" }, { severity: "HIGH" }].map((each) => kept.acknowledged(row(each)));
  assert.deepEqual(holds, [true, true, false]);
  const other = new Kept(new Store());
  other.toggle(row({ status: "RESOLVED" }));
  assert.equal(other.acknowledged(row({ status: "OPEN" })), false);
});

test("an acknowledgement ends where the incident opens again, or is worse again, after it was better", () => {
  for (const [better, worse] of [[{ status: "RESOLVED" }, {}], [{ severity: "LOW" }, {}], [{ severity: "CRITICAL" }, {}]]) {
    const kept = new Kept(new Store()), row = (more) => all(pictured(item("a", more)))[0];
    kept.toggle(row());
    kept.saw(row(better));
    assert.equal(kept.acknowledged(row(better)), better.severity !== "CRITICAL");
    kept.saw(row(worse));
    assert.equal(kept.acknowledged(row(worse)), false);
  }
});

test("what was seen to get better is kept too, once for all of it", async () => {
  const store = new Store(), kept = new Kept(store), row = (id, status) => all(pictured(item(id, { status })))[0];
  for (const id of ["a", "b"]) kept.toggle(row(id, "OPEN"));
  let writes = 0;
  store.setItem = (name, value) => { writes += 1; store.set(name, value); };
  for (const id of ["a", "b", "stranger"]) kept.saw(row(id, "RESOLVED"));
  await undefined;
  const later = new Kept(store);
  assert.deepEqual([writes, ...["a", "b"].map((id) => later.acknowledged(row(id, "OPEN")))], [1, false, false]);
});

test("two tabs do not forget what the other one kept", () => {
  const store = new Store(), [a, b] = all(pictured(item("a"), item("b"))), [one, other] = [new Kept(store), new Kept(store)];
  one.toggle(a);
  other.toggle(b);
  one.set("theme", "dark");
  other.set("zone", "utc");
  const later = new Kept(store);
  assert.deepEqual([later.acknowledged(a), later.acknowledged(b), later.setting("theme"), later.setting("zone")], [true, true, "dark", "utc"]);
});

test("what is kept may be broken, full or forbidden", () => {
  const [row] = all(pictured(item("a")));
  for (const broken of ["{", "7", '{"a":1}', "[1,[2,null],null]"]) assert.equal(new Kept(new Store([["async-relay.acknowledged", broken]])).acknowledged(row), false);
  const kept = new Kept(undefined);
  const [other] = all(pictured(item("b")));
  kept.toggle(row);
  kept.toggle(other);
  assert.deepEqual([row, other].map((each) => kept.acknowledged(each)), [true, true]);
});

// ── what a screen reader is told ──

test("some seconds are one sentence, and nothing is nothing", () => {
  const announcer = new Announcer((name, values) => `${name} ${Object.values(values)}`);
  assert.equal(announcer.take(0), undefined);
  announcer.note(undefined, { open: true, rank: 0 });
  announcer.note({ open: true }, { open: true, rank: 0 });
  announcer.note({ open: false }, { open: true, rank: 1 });
  announcer.note({ open: true }, { open: false, rank: 0 });
  announcer.note(undefined, { open: false, rank: 0 });
  announcer.announce("live");
  assert.equal(announcer.take(NOW), "live. say.opened 2,1. say.resolved 1");
  announcer.announce("offline");
  assert.equal(announcer.take(NOW + 5_000), undefined);
  assert.equal(announcer.take(NOW + 6_000), "offline");
  assert.equal(announcer.take(NOW + 60_000), undefined);
});

test("of many sentences the last are said", () => {
  const announcer = new Announcer(String);
  for (const each of "abcdefg") announcer.announce(each);
  assert.equal(announcer.take(NOW), "d. e. f. g");
});
