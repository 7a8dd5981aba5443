// The page as it looks, made of what app.js knows (`of`) and what a person can do (`act`).

import { html } from "./vendor/preact.js";
import { Severities, Statuses } from "./counts.js";
import { Detail, Responses } from "./detail.js";
import { Header } from "./header.js";
import { List } from "./list.js";
import { Operators } from "./operators.js";
import { Timeline } from "./timeline.js";
import { EVERYTHING, SORTS, toggled, toQuery } from "./view.js";

export function Page({ of, act, context }) {
  const { view, counts } = of, { say } = context, toggle = (name) => (value) => act.look({ [name]: toggled(view[name], value) });
  const covered = of.narrow && !!view.incident;
  return html`
    <a class="skip" href="#incidents" onClick=${(event) => { event.preventDefault(); act.toList(); }}>${say("skip")}</a>
    <${Header} standing=${of.standing} lateness=${of.lateness} delay=${of.delay} problems=${of.frames.problems} switches=${switches(of, act, say)} say=${say}
      open=${of.operators} onOperators=${act.toggleOperators} />
    ${of.problem && html`<p id="problem" class="problem" role="alert">${of.problem}</p>`}
    ${of.operators && html`<${Operators} ...${of} context=${context} onClose=${act.toggleOperators} />`}
    <main class=${view.incident ? "with-detail" : ""}>
      <div class="overview" inert=${covered}>
        <${Severities} counts=${counts.severity} chosen=${view.severity} say=${say} onToggle=${toggle("severity")} />
        <${Timeline} hour=${of.hour} theme=${context.setting("theme")} context=${context} />
      </div>
      <${Tools} of=${of} act=${act} say=${say} toggle=${toggle} covered=${covered} />
      <div class="columns">
        <${List} rows=${of.shown} waiting=${waiting(of, say)} active=${of.active} view=${view} context=${context} covered=${covered} opened=${!!view.incident}
          onHeld=${act.hold} onMove=${act.move} onOpen=${act.open} onSort=${act.sort} onWaiting=${act.catchUp} emptyText=${empty(of, say)} />
        ${view.incident
          ? html`<${Detail} ...${of.detail} context=${context} onClose=${act.close} onAcknowledge=${act.acknowledge} />`
          : html`<aside class="side latest" aria-labelledby="latest-heading"><h2 id="latest-heading">${say("latestResponses")}</h2>
              <${Responses} id="latest" found=${of.latest} none=${say("latestNone")} context=${context} /></aside>`}
      </div>
    </main>`;
}

function Tools({ of, act, say, toggle, covered }) {
  const { view, counts } = of;
  return html`<div class="tools" inert=${covered}>
    <input id="search" type="search" value=${view.search} placeholder=${say(of.touch ? "search" : "searchHint")} aria-label=${say("search")} autocomplete="off"
      spellcheck=${false} onInput=${({ target }) => act.look({ search: target.value })} />
    <${Statuses} counts=${counts.status} chosen=${view.status} say=${say} onToggle=${toggle("status")} />
    <button type="button" id="unacknowledged" class="chip" aria-pressed=${String(view.unacknowledged)}
      onClick=${() => act.look({ unacknowledged: !view.unacknowledged })}>${say("unacknowledged")}</button>
    ${filtered(view) && html`<button type="button" id="clear" class="chip" onClick=${() => act.look(NO_FILTER)}>${say("clear")}</button>`}
    <span class="push"></span>
    <label class="sort">${say("sort")} <select id="sort" value=${view.sort} onChange=${({ target }) => act.look({ sort: target.value, reversed: false })}>
      ${SORTS.map((name) => html`<option value=${name} selected=${view.sort === name}>${say(`sort.${name}`)}</option>`)}</select></label>
    <span id="shown" class="dim">${say("shown", { n: of.shown.length, all: counts.all })}</span>
  </div>`;
}

const NO_FILTER = { severity: [], status: [], search: "", unacknowledged: false };
const filtered = (view) => toQuery({ ...EVERYTHING, ...Object.fromEntries(Object.keys(NO_FILTER).map((name) => [name, view[name]])) }) !== "";

function empty({ counts, view, answered, why }, say) {
  if (counts.all && filtered(view)) return say("nothingFits");
  if (answered) return say("empty");
  return why ? say("loadingWhy", { reason: why }) : say("loading");
}

const switches = ({ paused }, act, say) => [
  { id: "pause", label: say(paused ? "play" : "pause"), pressed: paused, onClick: act.pause },
  { id: "sound", label: say("sound"), hint: say("soundHint"), pressed: act.setting("sound"), onClick: act.toggleSound },
  { id: "notify", label: say("notify"), hint: say("notifyHint"), pressed: act.setting("notify"), onClick: act.toggleNotify },
  { id: "zone", label: choice("zone", act, say), hint: say("zone"), onClick: () => act.next("zone") },
  { id: "theme", label: choice("theme", act, say), hint: say("theme"), onClick: () => act.next("theme") },
];

const choice = (name, act, say) => `${say(name)}: ${say(`${name}.${act.setting(name)}`)}`;

/** What the button above the list says. */
function waiting({ paused, changed, waiting: rows }, say) {
  if (paused) return { length: changed, text: say("changedWhilePaused", { n: changed }) };
  const { length } = rows, critical = rows.filter(({ rank, open }) => rank === 0 && open).length;
  return { length, critical, text: say(critical ? "waitingCritical" : "waiting", { n: length, critical }) };
}
