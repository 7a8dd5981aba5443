// How many there are, by severity and by status; each number is a filter.

import { html } from "./vendor/preact.js";
import { rankOf } from "./incidents.js";
import { Shape, TONES } from "./parts.js";
import { cut, visible } from "./shorten.js";

const label = (value, say) => visible(cut(value, 40).kept) || say("none");

export const Severities = ({ counts, chosen, say, onToggle }) => html`<div id="severities" class="tiles" role="group" aria-label=${say("severity")}>
  ${counts.values.map(({ value, open, all }) => html`<button type="button" key=${value} class=${`tile ${TONES[rankOf(value)]} ${open ? "" : "calm"}`}
    aria-pressed=${chosen.includes(value) ? "true" : "false"} title=${say("filterBy", { value: label(value, say) })} onClick=${() => onToggle(value)}>
    <span class="name"><${Shape} rank=${rankOf(value)} /><bdi>${label(value, say)}</bdi></span>
    <span class="number">${open}</span> <span class="dim">${say("open")} ${say("ofAll", { all })}</span></button>`)}
  ${counts.left > 0 && html`<span class="dim">${say("other", { n: counts.left })}</span>`}</div>`;

export const Statuses = ({ counts, chosen, say, onToggle }) => html`<div id="statuses" class="chips" role="group" aria-label=${say("status")}>
  ${counts.values.map(({ value, all }) => html`<button type="button" key=${value} class="chip" aria-pressed=${chosen.includes(value) ? "true" : "false"}
    title=${say("filterBy", { value: label(value, say) })} onClick=${() => onToggle(value)}><bdi>${label(value, say)}</bdi> <b>${all}</b></button>`)}
  ${counts.left > 0 && html`<span class="dim">${say("other", { n: counts.left })}</span>`}</div>`;
