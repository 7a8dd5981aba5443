// What is shown of what came: filters, times, words, foreign text, the connection, and what nobody could read.
import assert from "node:assert/strict";
import test from "node:test";

import { alarming } from "../../dashboard/alarm.js";
import { standing } from "../../dashboard/connection.js";
import { counted, Frames } from "../../dashboard/frames.js";
import { Picture, RESOLVED } from "../../dashboard/incidents.js";
import { cut, ends, middleCut, text, visible } from "../../dashboard/shorten.js";
import { clock, instant, Lateness } from "../../dashboard/times.js";
import { count, EVERYTHING, fromQuery, select, toggled, toQuery } from "../../dashboard/view.js";
import { chosen, en, ko, span, speaker } from "../../dashboard/words.js";

const NOW = Date.parse("2026-01-01T12:00:00Z");

function rows(...lines) {
  const picture = new Picture(RESOLVED);
  for (const [id, severity, status, seconds = 0, more = {}] of lines) {
    picture.change({ incident_id: id, severity, status, updated_at: new Date(NOW + seconds * 1000).toISOString(), ...more }, NOW);
  }
  return [...picture.rows.values()];
}

const ids = (found) => found.map(({ id }) => id).join(" ");
const looked = (found, view, acknowledged) => ids(select(found, { ...EVERYTHING, ...view }, acknowledged));

// ── view ──

const SOME = rows(["low", "LOW", "OPEN", 9], ["done", "CRITICAL", "RESOLVED", 10], ["old", "CRITICAL", "OPEN", 1], ["new", "CRITICAL", "INVESTIGATING", 2], ["odd", "SEV0", "OPEN", 3]);

test("what is open comes before what is resolved, then the worst, then the newest", () => {
  assert.equal(looked(SOME), "new old low odd done");
});

test("whatever the order is by, and whichever way, open comes first", () => {
  for (const sort of ["changed", "severity", "status", "incident", "type", "resource"]) {
    for (const reversed of [false, true]) assert.equal(looked(SOME, { sort, reversed }).split(" ").at(-1), "done");
  }
  assert.equal(looked(SOME, { sort: "changed" }), "low odd new old done");
  assert.equal(looked(SOME, { sort: "incident", reversed: true }), "old odd new low done");
});

test("what somebody acknowledged comes behind what nobody did, and can be left out", () => {
  const seen = ({ id }) => id === "new";
  assert.equal(looked(SOME, {}, seen), "old low odd new done");
  assert.equal(looked(SOME, { unacknowledged: true }, seen), "old low odd done");
});

test("filters of one field add up, of several fields must all fit", () => {
  assert.equal(looked(SOME, { severity: ["CRITICAL", "LOW"] }), "new old low done");
  assert.equal(looked(SOME, { severity: ["CRITICAL"], status: ["OPEN", "RESOLVED"] }), "old done");
});

test("every word of a search must be in the incident, in any case and anywhere", () => {
  assert.equal(looked(SOME, { search: "  critical INVEST " }), "new");
  assert.equal(looked(SOME, { search: "critical low" }), "");
});

test("a view comes back from its query as it was", () => {
  const view = { severity: ["a,b", ""], status: ["<&>", "열림"], search: "x y+z%", sort: "changed", reversed: true, unacknowledged: true, incident: "7" };
  assert.deepEqual(fromQuery(new URLSearchParams(toQuery(view))), view);
  assert.equal(toQuery(EVERYTHING), "");
  assert.equal(toQuery(EVERYTHING, "?tenant=a&q=old&severity=HIGH"), "tenant=a");
});

test("a query that nobody wrote is no view", () => {
  for (const odd of ["sort=constructor", "sort=--changed", "sort="]) assert.equal(fromQuery(new URLSearchParams(odd)).sort, "attention");
});

test("a filter is put in and taken out", () => {
  assert.deepEqual(toggled(toggled(["a"], "b"), "a"), ["b"]);
});

test("counts say how many are open, with the usual values first and no list without end", () => {
  const { values, left } = count(SOME, "severity");
  assert.deepEqual(values.map(({ value, open, all }) => [value, open, all]), [["CRITICAL", 2, 3], ["HIGH", 0, 0], ["MEDIUM", 0, 0], ["LOW", 1, 1], ["SEV0", 1, 1]]);
  assert.equal(left, 0);
  const many = count(rows(...Array.from({ length: 40 }, (_, n) => [n, `S${n}`, "OPEN"])), "severity");
  assert.deepEqual([many.values.length, many.left], [9, 35]);
});

// ── times ──

test("a time is ISO text, seconds or milliseconds, and a zone that is not said is UTC", () => {
  for (const same of ["2026-01-01T12:00:00Z", "2026-01-01T12:00:00", "2026-01-01 12:00:00.000000", "2026-01-01T21:00:00+09:00", NOW / 1000, NOW, String(NOW)]) {
    assert.equal(instant(same), NOW, same);
  }
  for (const none of [undefined, null, "", "soon", "12", {}, [], true, Infinity, 1e300, NaN, "2026-99-99T00:00:00Z"]) assert.ok(Number.isNaN(instant(none)), String(none));
});

test("ages are in the reader's language, and the future is now", () => {
  const { relative } = clock("en", true), korean = clock("ko", true).relative;
  assert.deepEqual([0, 59, 60, 3_700, 90_000].map((ago) => relative(NOW - ago * 1000, NOW)), ["now", "59s ago", "1m ago", "1h ago", "yesterday"]);
  assert.equal(korean(NOW - 120_000, NOW), "2분 전");
  assert.equal(relative(NOW + 1_500, NOW), "now");
  assert.equal(relative(NaN, NOW), "");
});

test("absolute times say their zone, and the day where it is another", () => {
  const { full, short, zone } = clock("en", true);
  assert.match(full(NOW), /2026.*12:00:00.*UTC/);
  assert.equal(short(NOW, NOW), "12:00:00");
  assert.match(short(NOW - 86_400_000, NOW), /Dec 31/);
  assert.equal(zone(NOW), "UTC");
  // The same day of another year is another day.
  assert.notEqual(short(NOW - 365 * 86_400_000, NOW), short(NOW, NOW));
  assert.equal(full(NaN), "");
});

function lateness(beats, changes) {
  const found = new Lateness();
  for (const each of beats) found.beat(NOW, NOW + each);
  for (const each of changes) found.change(NOW, NOW + each);
  return [found.skew, found.delay(-Infinity), found.unclear];
}

test("a delay is the usual one, and none is told before something came", () => {
  assert.deepEqual(lateness([], []), [0, undefined, false]);
  assert.deepEqual(lateness([], [100, 900, 200]), [0, 200, false]);
});

test("a delay is of the last half minute, and none where nothing came in it", () => {
  const found = new Lateness();
  for (let n = 0; n < 70; n += 1) found.change(NOW, NOW + 5_000);
  found.change(NOW + 40_000, NOW + 40_100);
  assert.deepEqual([found.delay(NOW + 6_000), found.delay(NOW + 40_100), found.delay(NOW + 90_000)], [5_000, 100, undefined]);
});

test("a heartbeat tells a clock that is ahead from changes that are late", () => {
  assert.deepEqual(lateness([60_100, 60_400], [60_500, 60_700, 60_600]), [60_100, 500, false]);
  assert.deepEqual(lateness([100], [60_500]), [0, 60_500, false]);
});

test("what comes before it was written proves a clock that is behind", () => {
  assert.deepEqual(lateness([], [-30_000, -29_000, -29_500]), [-30_000, 500, false]);
});

test("one writer whose clock is ahead moves nobody else's times", () => {
  assert.deepEqual(lateness([], [300, -3_600_000, 200, 400]), [0, 300, false]);
});

test("one message or two prove nothing about this clock", () => {
  assert.deepEqual(lateness([], [-3_600_000, -3_600_000]), [0, 0, false]);
});

test("a stamp of another century is none, so that every time can be written", () => {
  assert.deepEqual(lateness([1e300, -1e300, 8.64e15], [8.6e15, -8.6e15, 100]), [0, 100, false]);
});

test("a clock that was set right is believed after a few heartbeats", () => {
  assert.equal(lateness([-600_000, -600_000, 20, 30, 20, 30, 20], [])[0], 0);
});

test("without a heartbeat, everything late may be the clocks", () => {
  assert.deepEqual(lateness([], [60_000, 60_000, 60_000, 60_000, 60_000]), [0, 60_000, true]);
});

test("what has no time counts for nothing", () => {
  assert.deepEqual(lateness([NaN], [NaN, 100]), [0, 100, false]);
});

// ── foreign text ──

test("any value is text, and none is nothing", () => {
  assert.deepEqual([undefined, null, 0, false, 1e21, [1, null], { a: "b" }].map(text), ["", "", "0", "false", "1e+21", "[1,null]", '{"a":"b"}']);
});

test("characters that hide or turn round others are written out", () => {
  assert.equal(visible("a\u202eb\u0000c\u200f\nd"), "a\\u202eb\\u0000c\\u200f\\u000ad");
  assert.equal(visible("a\n\tb\u0007", true), "a\n\tb\\u0007");
  assert.equal(visible("한글 <b> 😀"), "한글 <b> 😀");
});

test("huge texts are cut, and say by how much", () => {
  assert.deepEqual(cut("abcdef", 4), { kept: "abcd", left: 2 });
  assert.deepEqual(cut("abc", 4), { kept: "abc", left: 0 });
});

test("a middle cut leaves both ends, and no half of a character", () => {
  assert.equal(middleCut("abcdefghij", 5), "ab…ij");
  assert.equal(middleCut("abc", 3), "abc");
  for (let most = 3; most < 12; most += 1) assert.ok(middleCut("😀".repeat(20), most).isWellFormed?.() ?? true);
  assert.ok(!/[\ud800-\udbff](?![\udc00-\udfff])/.test(cut("😀😀", 3).kept));
});

test("the tail of an ARN begins at a separator, and head and tail are all of it", () => {
  const arn = "arn:aws:iam::111122223333:user/ci-0a1b2c3d", [head, tail] = ends(arn);
  assert.deepEqual([head + tail, tail], [arn, ":user/ci-0a1b2c3d"]);
  assert.deepEqual(ends("SecurityGroupOpened", 10), ["Security", "GroupOpened"]);
  assert.deepEqual(ends("short"), ["short", ""]);
  assert.deepEqual(ends("INC-007-0110"), ["INC-00", "7-0110"]);
  assert.ok(ends("x".repeat(100_000)).join("").length < 300);
  assert.equal(ends(`${"a".repeat(50)}\u202e/x`).join("").includes("\u202e"), false);
});

// ── words ──

test("both languages say the same things with the same values", () => {
  assert.deepEqual(Object.keys(ko).sort(), Object.keys(en).sort());
  const values = (words) => [...new Set(words.match(/\{\w+\}/g))].sort();
  for (const name of Object.keys(en)) assert.deepEqual(values(ko[name]), values(en[name]), name);
  for (const words of [...Object.values(en), ...Object.values(ko)]) assert.ok(words.trim());
});

test("the first language of the browser that the page has is taken", () => {
  assert.deepEqual([["ko-KR", "en"], ["fr", "EN-us", "ko"], ["fr"], []].map(chosen), ["ko", "en", "en", "en"]);
});

test("one is one and many are many, and a value that is foreign stays text", () => {
  const say = speaker("en");
  assert.deepEqual([say("op.times", { n: 1 }), say("op.times", { n: 1200 })], ["1 time", "1,200 times"]);
  assert.equal(say("filterBy", { value: "$& {n} <b>" }), "Show only $& {n} <b>");
  assert.equal(speaker("ko")("op.times", { n: 1 }), "1번");
});

test("spans are in the unit that suits them", () => {
  const say = speaker("en");
  assert.deepEqual([0, 340, 42_000, 180_000, -9_000_000].map((ms) => span(say, ms)), ["0.1 s", "0.3 s", "42 s", "3 min", "3 h"]);
});

// ── the connection ──

const stands = (state, seconds, more = {}) => standing({ state, since: NOW - seconds * 1000, now: NOW, answered: true, ...more });

test("each state is a sentence with a tone", () => {
  assert.deepEqual(stands("live", 1), { tone: "good", name: "live" });
  assert.deepEqual(stands("connecting", 1), { tone: "busy", name: "connecting" });
  assert.deepEqual(stands("catching up", 1), { tone: "busy", name: "catchingUp" });
  assert.deepEqual(stands("offline", 1, { retryAt: NOW + 2_100 }), { tone: "bad", name: "offline", seconds: 3 });
  assert.deepEqual(stands("offline", 9, { retryAt: NOW - 2_100 }), { tone: "bad", name: "offline", seconds: 0 });
  assert.deepEqual(stands("offline", 1, { retryAt: NOW, reason: "no token: 404" }), { tone: "bad", name: "offlineWhy", seconds: 0, reason: "no token: 404" });
  assert.deepEqual(stands("not set up", 1), { tone: "bad", name: "notSetUp" });
  assert.deepEqual(stands("refused", 1, { reason: "why" }), { tone: "bad", name: "refused", reason: "why" });
  assert.deepEqual(stands("closed", 1), { tone: "bad", name: "closed" });
});

test("a server that does not answer is said to be one", () => {
  assert.deepEqual(stands("connecting", 8), { tone: "bad", name: "connectingSlow", seconds: 8 });
  assert.deepEqual(stands("catching up", 9), { tone: "busy", name: "catchingUpSlow", seconds: 9 });
  assert.equal(stands("live", 0, { answered: false }).name, "liveUnanswered");
});

test("every sentence there is has its words", () => {
  for (const state of ["live", "connecting", "catching up", "offline", "refused", "not set up", "closed"]) {
    for (const seconds of [0, 60]) for (const answered of [true, false]) assert.ok(en[stands(state, seconds, { answered, reason: seconds }).name]);
  }
});

// ── alarms ──

test("only what becomes CRITICAL and is open may disturb anybody", () => {
  const [critical, resolved, high] = rows(["a", "CRITICAL", "OPEN"], ["b", "CRITICAL", "RESOLVED"], ["c", "HIGH", "OPEN"]);
  assert.deepEqual([undefined, high, resolved, critical].map((before) => alarming(before, critical)), [true, true, true, false]);
  for (const row of [resolved, high]) assert.equal(alarming(undefined, row), false);
});

// ── frames ──

function heard(...data) {
  const lateness = new Lateness(), frames = new Frames(lateness);
  for (const each of data) frames.heard(typeof each === "object" && !(each instanceof ArrayBuffer) ? JSON.stringify(each) : each, NOW);
  return frames;
}

const tally = (counts) => Object.fromEntries([...counts].map(([name, { times }]) => [name, times]));

test("what nobody can read is counted by its reason, with the last one to look at", () => {
  const frames = heard("{", "", new ArrayBuffer(2), [1, null], { kind: "error", message: "no" }, { message: "Forbidden", requestId: "r", connectionId: "c" });
  assert.deepEqual(tally(frames.unread), { notJson: 2, binary: 1, notObject: 2, serverError: 2 });
  assert.equal(frames.unread.get("serverError").sample, "Forbidden");
  assert.equal(frames.problems, 7);
});

test("every reason has its words", () => {
  for (const why of [...heard("{", new ArrayBuffer(2), [1], { kind: "error" }).unread.keys(), "noId", "page"]) assert.ok(en[`why.${why}`], why);
});

test("kinds that are not shown are counted by name, hostile or many", () => {
  const frames = heard({ kind: "weather" }, { kind: "weather" }, { kind: "__proto__" }, {}, { kind: "incident_update" }, { kind: "remediation" }, { type: "ping" });
  assert.deepEqual([...frames.unknown.keys()], ["weather", "__proto__", "-"]);
  assert.equal(heard(...Array.from({ length: 100 }, (_, n) => ({ kind: `k${n}` }))).unknown.size, 31);
});

test("a huge sample is cut", () => {
  assert.equal(heard("x".repeat(100_000)).unread.get("notJson").sample.length, 300);
});

test("messages in arrays and in replays count one by one", () => {
  const frames = heard([{ kind: "remediation" }, { kind: "a" }], { kind: "replay", messages: [{ kind: "a" }, 7] });
  assert.deepEqual([frames.frames, frames.messages, tally(frames.unknown), tally(frames.unread)], [2, 5, { a: 2 }, { notObject: 1 }]);
  assert.equal(heard({ kind: "replay", messages: 7 }).frames, 1);
  assert.equal(heard({ kind: "replay", messages: "none" }).frames, 1);
});

test("a history or a replay is an answer, and nothing else is", () => {
  assert.equal(heard({ kind: "refreshed" }, { kind: "incident_update" }, { type: "pong" }).answered, false);
  assert.equal(heard({ kind: "incident_history" }).answered, true);
  assert.equal(heard({ kind: "replay" }).answered, true);
});

test("pongs tell the round trip, and heartbeats the clock", () => {
  const lateness = new Lateness(), frames = new Frames(lateness);
  frames.heard(JSON.stringify({ type: "pong", timestamp: NOW - 40 }), NOW);
  frames.heard(JSON.stringify({ type: "ping", timestamp: NOW - 90_000 }), NOW);
  assert.deepEqual([frames.trip, lateness.skew], [40, 90_000]);
});

test("a socket's frames are counted before the client reads them", () => {
  class Socket extends EventTarget { constructor(...where) { super(); this.where = where; } }
  const frames = new Frames(new Lateness()), socket = new (counted(Socket, frames))("wss://x", ["p"]);
  socket.onmessage = () => {};
  socket.dispatchEvent(Object.assign(new Event("message"), { data: "{}" }));
  assert.deepEqual([socket.where, frames.frames], [["wss://x", ["p"]], 1]);
});

test("a socket that is closed before it is open is told from one that was open", () => {
  const frames = new Frames(new Lateness()), make = () => new (counted(EventTarget, frames))();
  make().dispatchEvent(new Event("close"));
  assert.equal(frames.unopened, true);
  const socket = make();
  for (const each of ["open", "close"]) socket.dispatchEvent(new Event(each));
  assert.equal(frames.unopened, false);
});
