// The page: what the client tells goes into the picture, and the picture to the screen once a frame at most.

import { html, render } from "./vendor/preact.js";
import { Alarm } from "./alarm.js";
import { Announcer } from "./announcer.js";
import { connect } from "./async-relay.js";
import { standing } from "./connection.js";
import { counted, Frames } from "./frames.js";
import { Hold } from "./hold.js";
import { lastHour } from "./hour.js";
import { RESOLVED } from "./incidents.js";
import { Intake } from "./intake.js";
import { Kept } from "./kept.js";
import { Page } from "./page.js";
import { text } from "./shorten.js";
import { clock, Lateness } from "./times.js";
import { count, fromQuery, select, toQuery } from "./view.js";
import { chosen, speaker } from "./words.js";

/** The detail covers the list. */
const NARROW = matchMedia("(max-width: 959px)");
/** Fingers have no keys to be told of. */
const TOUCH = matchMedia("(pointer: coarse)");
const TICK = 1_000, LONGEST = 10_000, RESHOW = 250, LATEST = 30;
/** What can be chosen, the usual first. */
const CHOICES = { sound: [false, true], notify: [false, true], zone: ["local", "utc"], theme: ["auto", "light", "dark"] };

const language = chosen(navigator.languages ?? [navigator.language]), say = speaker(language);
const kept = new Kept(storage()), alarm = new Alarm(), announcer = new Announcer(say), hold = new Hold();
const lateness = new Lateness(), frames = new Frames(lateness);
const receive = (resolved) => new Intake(resolved, { frames, lateness, announcer, say, changed: renew, saw: (row) => kept.saw(row), alarm: disturb });
let intake = receive(RESOLVED), url = "", problem = "";
let view = fromQuery(new URLSearchParams(location.search)), active = view.incident || undefined;
let held = false, still, operators = false, times;
let chosenRows = { shown: [], waiting: [] }, counts, hour, critical = 0, changed = 0, all = intake.picture.rows, latest = [];
let stale = true, due, drawnAt = 0, asked = false, hourAt = -TICK, behind = false;

function storage() {
  try { return localStorage; } catch { return undefined; }
}

const setting = (name) => kept.setting(name, CHOICES[name][0]);
const acknowledged = (row) => kept.acknowledged(row);
const now = () => Date.now() - lateness.skew;

// ── what a person does ──

/** Another view, at once even where rows are held: it was asked for. To open or close an incident asks for no other rows. */
function look(change) {
  const opens = change.incident && !view.incident;
  view = { ...view, ...change };
  remember(opens);
  show(change.incident === undefined);
}

/** An incident that opens is a step that "back" takes back. */
function remember(step) {
  const query = toQuery(view, location.search), where = `${location.pathname}${query && `?${query}`}${location.hash}`;
  // Some browsers allow a page only so many a minute; the next one brings it up to date.
  try { step ? history.pushState(null, "", where) : history.replaceState(null, "", where); } catch { /* see above */ }
}

/** `enter`: go there too; where it covers the list there is nowhere else to be. */
function open(key = active, enter = false) {
  if (key === undefined) return;
  active = key;
  look({ incident: key });
  if (enter || NARROW.matches) document.getElementById("detail").focus();
}

function close() {
  look({ incident: "" });
  toList();
}

/** Beside an incident that is open the next one opens. Keys may come faster than frames. */
function move(by) {
  const rows = chosenRows.shown, at = rows.findIndex(({ key }) => key === active);
  active = rows[Math.min(rows.length - 1, Math.max(0, at < 0 && by === -1 ? 0 : at + by))]?.key;
  if (view.incident && active !== undefined) view = { ...view, incident: active };
  remember();
  draw();
}

const sort = (name) => look({ sort: name, reversed: view.sort === name && !view.reversed });

function acknowledge(row) {
  kept.toggle(row);
  // While paused it may be another one by now.
  const now = intake.picture.rows.get(row.key);
  if (now) kept.saw(now);
  show(false);
}

function pause() {
  if (hold.paused) return catchUp();
  hold.pause(intake.picture.rows);
  still = intake.picture.still();
  show(true);
}

function catchUp() {
  hold.play();
  still = undefined;
  show(true);
}

function holdRows(wanted) {
  if (held && !wanted) renew();
  held = wanted;
}

function toggleOperators() {
  operators = !operators;
  draw();
}

function set(name, value) {
  kept.set(name, value);
  dress();
  draw();
}

const next = (name) => set(name, CHOICES[name][(CHOICES[name].indexOf(setting(name)) + 1) % CHOICES[name].length]);

async function toggleSound() {
  next("sound");
  if (setting("sound")) await alarm.sound();
}

async function toggleNotify() {
  if (setting("notify")) return set("notify", false);
  const granted = await alarm.mayNotify();
  problem = granted ? "" : say("notifyDenied");
  set("notify", granted);
}

function onKeyDown(event) {
  const typing = event.target.closest?.("input, select, textarea");
  // What the list did itself is done, and the Enter that ends a Korean syllable is no key of ours.
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || event.isComposing) return;
  if (event.key === "Escape") return escape(typing);
  if (typing?.id === "search" && (event.key === "Enter" || event.key === "ArrowDown")) {
    event.preventDefault();
    return fromSearch();
  }
  if (typing) return;
  const row = inSight();
  if (event.key === "/") document.getElementById("search").focus();
  else if (event.key === "p") pause();
  else if (event.key === "a" && row) acknowledge(row);
  else if (event.key === "j" || event.key === "k") step(event.key === "j" ? 1 : -1);
  else return;
  event.preventDefault();
}

/** From anywhere; who reads an incident goes on reading. */
function step(by) {
  if (!document.activeElement?.closest("#detail")) toList();
  move(by);
}

function fromSearch() {
  toList();
  move(-Infinity);
}

/** Where it is covered by an incident, nowhere. */
const toList = () => document.getElementById("incidents").focus();

/** The row that a key is about, as it is shown: the open one, or the chosen one of the list. */
const inSight = () => (view.incident ? all.get(view.incident) : chosenRows.shown.find(({ key }) => key === active));

function escape(typing) {
  if (typing?.id === "search" && view.search) look({ search: "" });
  else if (typing) typing.blur();
  else if (view.incident) close();
  else if (operators) toggleOperators();
}

/** Something CRITICAL happened now: said aloud where the person asked for it. */
function disturb(row) {
  if (acknowledged(row)) return;
  if (setting("sound")) alarm.sound();
  if (setting("notify")) alarm.notify(row, () => open(row.key));
}

const act = { toList, look, open, close, move, sort, acknowledge, pause, catchUp, hold: holdRows, toggleOperators, toggleSound, toggleNotify, next, setting };

// ── what is shown ──

/** Something changed: the rows are chosen anew, a few times a second at most. */
function renew() {
  stale = true;
  due ??= setTimeout(() => { due = undefined; draw(); }, Math.max(0, RESHOW - (performance.now() - drawnAt)));
}

/** At the next frame; whatever happens until then is in it. */
function draw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    if (stale && !due) show(false);
    else paint();
  });
}

/** Choose what is shown from what there is. `wanted`: somebody asked for it, so nothing is held. */
function show(wanted) {
  stale = false;
  drawnAt = performance.now();
  ({ rows: all, changed } = hold.source(intake.picture.rows));
  const rows = [...all.values()];
  chosenRows = hold.order(select(rows, view, acknowledged), all, held && !wanted);
  counts = { severity: count(rows, "severity"), status: count(rows, "status"), all: rows.length };
  critical = rows.filter((row) => row.rank === 0 && row.open && !acknowledged(row)).length;
  if (!hold.paused) latest = intake.picture.responses.slice(-LATEST).reverse();
  if (wanted || drawnAt - hourAt >= TICK) [hour, hourAt, behind] = [lastHour(rows, now()), drawnAt, false];
  else behind = true;
  paint();
}

function dress() {
  times = clock(language, setting("zone") === "utc");
  document.documentElement.lang = language;
  document.documentElement.dataset.theme = setting("theme");
}

function paint() {
  const context = { say, times, now: now(), language, acknowledged, setting, utc: setting("zone") === "utc" };
  const { answered, connection, picture, log } = intake;
  const of = {
    ...chosenRows, view, counts, hour, changed, active, latest, operators, problem, answered, frames, lateness, picture, log,
    paused: hold.paused, narrow: NARROW.matches, touch: TOUCH.matches, url, detail: view.incident && detailOf(all.get(view.incident)),
    delay: connection.state === "live" ? lateness.delay(Date.now()) : undefined, why: intake.obstacle,
    standing: { ...standing({ ...connection, reason: intake.obstacle, answered, now: Date.now() }), state: connection.state },
  };
  render(html`<${Page} of=${of} act=${act} context=${context} />`, document.getElementById("page"));
  document.title = (critical ? `(${critical}) ` : "") + say("title");
}

function detailOf(row) {
  const picture = still ?? intake.picture;
  return row ? { row, states: picture.states(row.key), responses: picture.responsesTo(row) } : {};
}

/** A hidden page has no frames, and its title is seen all the same. */
function tick() {
  const words = announcer.take(Date.now());
  if (words) document.getElementById("announcer").textContent = words;
  if (document.hidden) show(false);
  else if (behind || performance.now() - drawnAt >= LONGEST) renew();
  else draw();
}

// ── begin ──

async function begin() {
  let config;
  try { config = await import("./config.js"); } catch { return fail("noConfig"); }
  if (!config.url || text(config.url).includes("YOUR-API")) return fail("noUrl");
  intake = receive(config.resolved ?? RESOLVED);
  ({ url } = config);
  const { token, inUrl, history: most = 1000 } = config;
  intake.relay = connect({ url, token: intake.asking(token), inUrl, history: most, ...intake.callbacks, world: { WebSocket: counted(WebSocket, frames) } });
}

/** The page goes on, and says so where operators look. */
function mistaken(message) {
  frames.cannotRead("page", text(message));
  renew();
}

function fail(name) {
  problem = say(name);
  intake.connection = { state: "not set up", since: Date.now(), reason: problem };
  renew();
}

dress();
show(true);
addEventListener("keydown", onKeyDown);
addEventListener("error", ({ message }) => mistaken(message));
addEventListener("unhandledrejection", ({ reason }) => mistaken(reason?.message));
addEventListener("popstate", () => {
  view = fromQuery(new URLSearchParams(location.search));
  active = view.incident || active;
  show(true);
});
if (setting("sound")) addEventListener("pointerdown", () => alarm.prepare(), { once: true });
setInterval(tick, TICK);
begin();
