// One incident, whole: its states, what was done about it, and every field as it came.

import { html, useEffect, useRef } from "./vendor/preact.js";
import { Copy, Ends, Outcome, Severity, Status, Time, Value } from "./parts.js";
import { text, visible, cut } from "./shorten.js";

const MOST_FIELDS = 200;

export function Detail({ row, states, responses, context, onClose, onAcknowledge }) {
  const { say, acknowledged } = context, heading = useRef();
  useEffect(() => { if (heading.current) heading.current.closest("aside").scrollTop = 0; }, [row?.key]);
  if (!row) return html`<aside id="detail" class="side detail" aria-label=${say("gone")} tabindex="-1">
    <${Bar} say=${say} onClose=${onClose} /><p>${say("gone")}</p></aside>`;
  const done = acknowledged(row);
  return html`<aside id="detail" class="side detail" aria-labelledby="detail-heading" tabindex="-1">
    <${Bar} say=${say} onClose=${onClose}>
      <button type="button" id="acknowledge" class="primary" aria-pressed=${done ? "true" : "false"} onClick=${() => onAcknowledge(row)}>
        ${say(done ? "unacknowledge" : "acknowledge")}</button></${Bar}>
    <h2 id="detail-heading" ref=${heading}><bdi>${visible(cut(row.type || row.id, 200).kept)}</bdi></h2>
    <p class="badges"><${Severity} row=${row} say=${say} /> <${Status} row=${row} say=${say} />${done && html` <span class="tick">✓ ${say("acknowledged")}</span>`}</p>
    <dl class="facts">
      <${Fact} name=${say("incident")} value=${row.id} say=${say} />
      <${Fact} name=${say("resource")} value=${row.resource} say=${say} />
      <${When} name=${say("began")} ms=${row.created} raw=${row.item.created_at} context=${context} />
      <${When} name=${say("lastChange")} ms=${row.updated} raw=${row.item.updated_at} context=${context} />
    </dl>
    <h3>${say("states")}</h3>
    <ol id="states" class="states">${states.map((state) => html`<li><bdi>${visible(cut(state.status || say("none"), 80).kept)}</bdi>
      <span class="dim"> <bdi>${visible(cut(state.severity, 80).kept)}</bdi>${state.late && ` · ${say("lateState")}`}</span>
      <${Time} ms=${state.at} now=${context.now} times=${context.times} both=${true} /></li>`)}</ol>
    <h3>${say("responses")}</h3>
    <${Responses} id="responses" found=${responses} none=${say("responsesNone")} context=${context} />
    <h3>${say("fields")}</h3>
    <${Fields} item=${row.item} say=${say} />
  </aside>`;
}

const Bar = ({ say, onClose, children }) => html`<div class="bar">${children}
  <button type="button" id="close" onClick=${onClose}>${say("close")} <kbd>Esc</kbd></button></div>`;

const Fact = ({ name, value, say }) => value && html`<dt>${name}</dt><dd><bdi class="value">${visible(cut(value, 1000).kept)}</bdi>
  <${Copy} value=${value} field=${name} say=${say} /></dd>`;

function When({ name, ms, raw, context }) {
  if (raw === undefined) return null;
  const known = !Number.isNaN(ms), { say, times, now } = context;
  return html`<dt>${name}</dt><dd>${known ? `${times.full(ms)} · ${times.relative(ms, now)}` : html`<${Value} value=${raw} say=${say} />`}</dd>`;
}

export const Responses = ({ id, found, none, context }) => found.length === 0 ? html`<p class="dim">${none}</p>`
  : html`<ol id=${id} class="responses">${found.map((each) => html`<li>
    <span class="action"><bdi>${visible(cut(each.action, 120).kept)}</bdi></span> <${Outcome} status=${each.status} />
    <${Ends} value=${each.target} tail=${14} />
    <${Time} ms=${each.at} now=${context.now} times=${context.times} both=${true} /></li>`)}</ol>`;

function Fields({ item, say }) {
  const names = Object.keys(item), some = names.slice(0, MOST_FIELDS);
  return html`<dl id="fields" class="fields">${some.map((name) => html`<dt><bdi>${visible(cut(name, 200).kept)}</bdi></dt>
    <dd><${Value} value=${item[name]} say=${say} /> <${Copy} value=${text(item[name])} field=${cut(name, 60).kept} say=${say} /></dd>`)}</dl>
    ${names.length > some.length && html`<p class="dim">${say("other", { n: names.length - some.length })}</p>`}`;
}
