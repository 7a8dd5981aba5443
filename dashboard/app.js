// The page: what the client tells goes into the picture, and the picture to the screen once a frame at most.

import { html, render } from "./vendor/preact.js";
import { Alarm, alarming, canNotify } from "./alarm.js";
import { connect } from "./async-relay.js";
import { standing } from "./connection.js";
import { Severities, Statuses } from "./counts.js";
import { Detail, Responses } from "./detail.js";
import { counted, Frames } from "./frames.js";
import { Header } from "./header.js";
import { Hold } from "./hold.js";
import { lastHour } from "./hour.js";
import { keyOf, Picture, RESOLVED } from "./incidents.js";
import { Kept } from "./kept.js";
import { List } from "./list.js";
import { Operators } from "./operators.js";
import { middleCut, text, visible } from "./shorten.js";
import { Summary } from "./summary.js";
import { Timeline } from "./timeline.js";
import { clock, instant, Lateness } from "./times.js";
import { count, EVERYTHING, fromQuery, select, SORTS, toggled, toQuery } from "./view.js";
import { chosen, speaker } from "./words.js";

/** The detail covers the list. */
const NARROW = matchMedia("(max-width: 999px)");
const PORTION = 500, TICK = 1_000, LONGEST = 10_000, ANNOUNCE = 6_000, RESHOW = 200, LATEST = 30, MOST_LOG = 50;

const language = chosen(navigator.languages ?? [navigator.language]), say = speaker(language);
const kept = new Kept(storage()), alarm = new Alarm(), summary = new Summary(), hold = new Hold();
const lateness = new Lateness(), frames = new Frames(lateness);
let picture = new Picture(RESOLVED);
let relay, url = "", problem = "";
let view = fromQuery(new URLSearchParams(location.search));
let connection = { state: "connecting", since: Date.now() };
let held = false, active = view.incident || undefined, operators = false, times, loaded = false;
let shown = { shown: [], waiting: [] }, counts, hour, changed = 0, all = picture.rows;
let stale = true, drawnAt = 0, asked = false, hourAt = -TICK;
const log = [];

function storage() {
  try { return localStorage; } catch { return undefined; }
}

// ── what the client tells ──────────────────────────────────────────────────────────────────────────────────────────

function onMessage(message) {
  const at = Date.now();
  if (message.kind === "incident_update") changeIncident(message, at);
  else if (message.kind === "remediation") picture.responded(message, at);
  renew();
}

function changeIncident(message, at) {
  if (keyOf(message.incident_id) === undefined) return frames.cannotRead("noId", text(message));
  if (relay.state === "live") lateness.change(instant(message.updated_at ?? message.created_at), at);
  const { before, row } = picture.change(relay.incidents.get(message.incident_id) ?? message, at, message);
  summary.note(before, row);
  if (loaded && alarming(relay.state, before, row) && !kept.acknowledged(row)) raise(row);
}

function onHistory(found, { gap }) {
  if (gap) picture.clear();
  note(say(gap ? "op.gap" : "op.history", { n: found.length }));
  announce(say("say.loaded", { n: found.length }));
  absorb(found, 0);
}

/** Some at a time, so that a long history leaves the page free for hands between. */
function absorb(found, from) {
  const at = Date.now();
  for (const each of found.slice(from, from + PORTION)) {
    if (keyOf(each.incident_id) === undefined) frames.cannotRead("noId", text(each));
    else picture.change(relay.incidents.get(each.incident_id) ?? each, at);
  }
  loaded = from + PORTION >= found.length;
  if (!loaded) setTimeout(absorb, 0, found, from + PORTION);
  renew();
}

function onStale(message) {
  frames.stale += 1;
  picture.late(message, Date.now());
  renew();
}

function onState(state, { retryIn, reason }) {
  const now = Date.now();
  connection = { state, since: now, retryAt: now + (retryIn ?? 0) * 1000, reason: reason && why(reason) };
  const { name, ...values } = standing({ ...connection, answered: true, now });
  note(say(name, values));
  announce(say(name, values));
  renew();
}

/** The client's reasons are English; the page's are the reader's. */
const why = (reason) =>
  say(reason.startsWith("there is no token") ? "reason.noToken" : reason.startsWith("closed") ? "reason.closed" : "reason.url");

function note(words) {
  log.push({ at: Date.now(), words });
  if (log.length > MOST_LOG) log.shift();
}

function raise(row) {
  if (kept.setting("sound")) alarm.sound();
  if (kept.setting("notify") && canNotify() && Notification.permission === "granted") {
    const of = (value) => visible(middleCut(value, 120));
    alarm.notify(`${of(row.severity)}: ${of(row.type)}`, `${of(row.resource)}\n${of(row.id)}`, row.key, () => open(row.key));
  }
}

// ── what the person does ───────────────────────────────────────────────────────────────────────────────────────────

/** Another view, at once even where rows are held: it was asked for. */
function look(change) {
  view = { ...view, ...change };
  remember();
  show(true);
}

function remember() {
  const query = toQuery(view, location.search);
  history.replaceState(null, "", `${location.pathname}${query && `?${query}`}${location.hash}`);
}

/** `enter`: go there too; where it covers the list there is nowhere else to be. */
function open(key = active, enter = false) {
  if (key === undefined) return;
  active = key;
  look({ incident: key });
  if (enter || NARROW.matches) document.getElementById("detail").focus();
}

/** Beside an incident that is open the next one opens. Keys may come faster than frames. */
function move(by) {
  const rows = shown.shown, at = rows.findIndex(({ key }) => key === active);
  active = rows[Math.min(rows.length - 1, Math.max(0, at < 0 && by === -1 ? 0 : at + by))]?.key;
  if (view.incident && active !== undefined) view = { ...view, incident: active };
  remember();
  draw();
}

function close() {
  look({ incident: "" });
  document.getElementById("incidents")?.focus();
}

function sort(name) {
  look({ sort: name, reversed: view.sort === name && !view.reversed });
}

function acknowledge(row) {
  kept.toggle(row);
  renew();
}

function pause() {
  if (hold.paused) hold.play();
  else hold.pause(picture.rows);
  show(true);
}

function set(name, value) {
  kept.set(name, value);
  dress();
  draw();
}

function next(name, values) {
  const at = values.indexOf(kept.setting(name, values[0]));
  set(name, values[(at + 1) % values.length]);
}

async function toggleSound() {
  const on = !kept.setting("sound");
  set("sound", on);
  if (on) await alarm.sound();
}

async function toggleNotify() {
  if (kept.setting("notify")) return set("notify", false);
  const granted = canNotify() && (await Notification.requestPermission()) === "granted";
  set("notify", granted);
  if (!granted) announce(say("notifyDenied"));
}

function onKeyDown(event) {
  const typing = event.target.closest?.("input, select, textarea");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") return escape(typing);
  if (typing) return;
  const row = picture.rows.get(active);
  if (event.key === "/") document.getElementById("search").focus();
  else if (event.key === "p") pause();
  else if (event.key === "a" && row) acknowledge(row);
  else if ((event.key === "j" || event.key === "k") && event.target === document.body) document.getElementById("incidents").focus();
  else return;
  event.preventDefault();
}

function escape(typing) {
  if (typing?.id === "search" && view.search) return look({ search: "" });
  if (typing) typing.blur();
  else if (view.incident) close();
  else if (operators) toggleOperators();
}

function toggleOperators() {
  operators = !operators;
  draw();
}

// ── what is shown ──────────────────────────────────────────────────────────────────────────────────────────────────

/** Something changed: the list is chosen anew, a few times a second at most. */
function renew() {
  stale = true;
  draw();
}

/** At the next frame; whatever happens until then is in it. */
function draw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    const since = performance.now() - drawnAt;
    if (stale && since < RESHOW) setTimeout(draw, RESHOW - since);
    if (stale && since >= RESHOW) show(false);
    else paint();
  });
}

/** Choose what is shown from what there is. */
function show(wanted) {
  stale = false;
  drawnAt = performance.now();
  const source = hold.source(picture.rows);
  all = source.rows;
  changed = source.changed;
  const rows = [...all.values()];
  shown = hold.order(select(rows, view, acknowledged), all, held && !wanted);
  counts = { severity: count(rows, "severity"), status: count(rows, "status"), all: rows.length };
  if (wanted || drawnAt - hourAt >= TICK) [hour, hourAt] = [lastHour(rows, now()), drawnAt];
  paint();
}

const acknowledged = (row) => kept.acknowledged(row);
const now = () => Date.now() - lateness.skew;

function dress() {
  times = clock(language, kept.setting("zone") === "utc");
  document.documentElement.lang = language;
  document.documentElement.dataset.theme = kept.setting("theme", "auto");
}

function paint() {
  const context = { say, times, now: now(), language, acknowledged, utc: kept.setting("zone") === "utc" };
  const of = { ...standing({ ...connection, answered: frames.answered || loaded, now: Date.now() }), state: connection.state };
  render(html`<${Page} context=${context} standing=${of} />`, document.getElementById("page"));
  const critical = counts.severity.values.find(({ value }) => value === "CRITICAL")?.open ?? 0;
  document.title = (critical ? `(${critical}) ` : "") + say("title");
}

function Page({ context, standing }) {
  const theme = kept.setting("theme", "auto"), { severity, status } = counts;
  const toggle = (name) => (value) => look({ [name]: toggled(view[name], value) });
  const row = all.get(view.incident), filtered = toQuery({ ...view, sort: "attention", reversed: false, incident: "" }) !== "";
  return html`
    <a class="skip" href="#incidents">${say("skip")}</a>
    <${Header} standing=${standing} lateness=${lateness} problems=${frames.problems} switches=${switches(theme)} say=${say}
      open=${operators} onOperators=${toggleOperators} />
    ${problem && html`<p id="problem" class="problem" role="alert">${problem}</p>`}
    ${operators && html`<${Operators} frames=${frames} lateness=${lateness} picture=${picture} log=${log} url=${host()} context=${context} onClose=${toggleOperators} />`}
    <main class=${row || view.incident ? "with-detail" : ""}>
      <div class="overview">
        <${Severities} counts=${severity} chosen=${view.severity} say=${say} onToggle=${toggle("severity")} />
        <${Timeline} hour=${hour} theme=${theme} context=${context} />
      </div>
      <div class="tools">
        <input id="search" type="search" value=${view.search} placeholder=${say("searchHint")} aria-label=${say("search")} autocomplete="off" spellcheck=${false}
          onInput=${({ target }) => look({ search: target.value })} />
        <${Statuses} counts=${status} chosen=${view.status} say=${say} onToggle=${toggle("status")} />
        <button type="button" id="unacknowledged" class="chip" aria-pressed=${String(view.unacknowledged)}
          onClick=${() => look({ unacknowledged: !view.unacknowledged })}>${say("unacknowledged")}</button>
        ${filtered && html`<button type="button" id="clear" class="chip" onClick=${() => look({ ...EVERYTHING, sort: view.sort, reversed: view.reversed, incident: view.incident })}>${say("clear")}</button>`}
        <span class="push"></span>
        <label class="sort">${say("sort")} <select id="sort" value=${view.sort} onChange=${({ target }) => look({ sort: target.value, reversed: false })}>
          ${SORTS.map((name) => html`<option value=${name} selected=${view.sort === name}>${say(`sort.${name}`)}</option>`)}</select></label>
        <span id="shown" class="dim">${say("shown", { n: shown.shown.length, all: counts.all })}</span>
      </div>
      <div class="columns">
        <${List} rows=${shown.shown} waiting=${waiting()} active=${active} view=${view} context=${context} onHeld=${onHeld}
          onMove=${move} onOpen=${open} onSort=${sort} onWaiting=${catchUp} emptyText=${emptyText(filtered)} />
        ${view.incident
          ? html`<${Detail} row=${row} states=${picture.states(view.incident)} responses=${row ? picture.responsesTo(row) : []}
              context=${context} onClose=${close} onAcknowledge=${acknowledge} />`
          : html`<aside class="side latest" aria-labelledby="latest-heading"><h2 id="latest-heading">${say("latestResponses")}</h2>
              <${Responses} id="latest" found=${picture.responses.slice(-LATEST).reverse()} none=${say("latestNone")} context=${context} /></aside>`}
      </div>
    </main>`;
}

const emptyText = (filtered) => say(counts.all && filtered ? "nothingFits" : loaded || frames.answered ? "empty" : "loading");

const switches = (theme) => [
  { id: "pause", label: say(hold.paused ? "play" : "pause"), pressed: hold.paused, onClick: pause },
  { id: "sound", label: say("sound"), hint: say("soundHint"), pressed: !!kept.setting("sound"), onClick: toggleSound },
  { id: "notify", label: say("notify"), hint: say("notifyHint"), pressed: !!kept.setting("notify"), onClick: toggleNotify },
  { id: "zone", label: setting("zone", "local"), onClick: () => next("zone", ["local", "utc"]) },
  { id: "theme", label: setting("theme", "auto"), onClick: () => next("theme", ["auto", "light", "dark"]) },
];

const setting = (name, usual) => html`<span class="wide">${say(name)}: </span>${say(`${name}.${kept.setting(name, usual)}`)}`;

/** What the button above the list says. */
function waiting() {
  if (hold.paused) return { length: changed, text: say("changedWhilePaused", { n: changed }) };
  const { length } = shown.waiting, critical = shown.waiting.filter(({ rank, open }) => rank === 0 && open).length;
  return { length, critical, text: say(critical ? "waitingCritical" : "waiting", { n: length, critical }) };
}

function catchUp() {
  hold.play();
  show(true);
}

function onHeld(now) {
  if (held && !now) renew();
  held = now;
}

/** Without its query, which may have a token. */
function host() {
  try { return new URL(url).origin + new URL(url).pathname; } catch { return text(url).split("?")[0]; }
}

let said = [], announcedAt = 0;

/** To a screen reader, with what else happened in these seconds. */
function announce(words) { said.push(words); }

function speak(at) {
  if (at - announcedAt < ANNOUNCE) return;
  const happened = summary.take();
  if (happened?.opened && loaded) said.push(say("say.opened", { n: happened.opened, critical: happened.critical }));
  if (happened?.resolved && loaded) said.push(say("say.resolved", { n: happened.resolved }));
  if (!said.length) return;
  document.getElementById("announcer").textContent = said.slice(-4).join(". ");
  said = [];
  announcedAt = at;
}

/** A hidden page has no frames, and its title is seen all the same. */
function tick() {
  speak(Date.now());
  if (document.hidden) show(false);
  else if (performance.now() - drawnAt >= LONGEST) renew();
  else draw();
}

// ── begin ──────────────────────────────────────────────────────────────────────────────────────────────────────────

async function begin() {
  let config;
  try { config = await import("./config.js"); } catch { problem = say("noConfig"); return renew(); }
  if (config.resolved) picture = new Picture(config.resolved);
  ({ url } = config);
  if (!url || text(url).includes("YOUR-API")) { problem = say("noUrl"); return renew(); }
  const { token, inUrl, history: most = 1000 } = config;
  relay = connect({
    url, token, inUrl, history: most, onMessage, onHistory, onStale, onState, world: { WebSocket: counted(WebSocket, frames) },
  });
}

dress();
show(true);
addEventListener("keydown", onKeyDown);
addEventListener("error", ({ message }) => { frames.cannotRead("page", text(message)); renew(); });
addEventListener("popstate", () => { view = fromQuery(new URLSearchParams(location.search)); show(true); });
setInterval(tick, TICK);
begin();
