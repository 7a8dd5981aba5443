// Small parts that several components are made of.

import { html, useState } from "./vendor/preact.js";
import { ends, text, visible, cut } from "./shorten.js";

/** A severity or status never becomes a class: only its place among the known ones does. */
export const TONES = ["critical", "high", "medium", "low", "info", "other", "none"];

/** One shape for each severity, so that colour is not all that tells them apart. */
const SHAPES = [
  "M8 1 15 14H1Z", "M8 1l7 7-7 7-7-7z", "M2 2h12v12H2z", "M8 2a6 6 0 100 12A6 6 0 008 2z", "M8 4a4 4 0 100 8 4 4 0 000-8z",
  "M3 7h10v2H3z", "M3 7h10v2H3z",
];

export const Shape = ({ rank }) => html`<svg class="shape" viewBox="0 0 16 16" aria-hidden="true"><path d=${SHAPES[rank]} /></svg>`;

const shown = (value) => visible(cut(value, 120).kept);

export const Severity = ({ row, say }) => html`<span class=${`severity ${TONES[row.rank]} ${row.open ? "" : "calm"}`}>
  <${Shape} rank=${row.rank} /><bdi>${shown(row.severity) || say("none")}</bdi></span>`;

const OUTCOMES = new Map([["FAILED", "bad"], ["SUCCEEDED", "good"], ["STARTED", "busy"]]);

/** How a response ended. */
export const Outcome = ({ status }) => html`<span class=${`outcome ${OUTCOMES.get(status) ?? ""}`}><bdi>${shown(status)}</bdi></span>`;

export const Status = ({ row, say }) => html`<span class=${`status ${row.open ? "" : "calm"}`}>
  <bdi>${shown(row.status) || say("none")}</bdi></span>`;

/** Both ends of a text are seen however narrow it is; all of it is in its title. */
export function Ends({ value, tail }) {
  const [head, end] = ends(value, tail);
  return html`<span class="ends" title=${visible(cut(value, 1000).kept)}><bdi class="head">${head}</bdi>${end && html`<bdi class="tail">${end}</bdi>`}</span>`;
}

export function Copy({ value, field, say }) {
  const [done, setDone] = useState("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(value);
      setDone("copied");
    } catch { setDone("copyFailed"); }
    setTimeout(setDone, 2000, "");
  };
  return html`<button type="button" class="copy" onClick=${copy} aria-label=${done ? say(done) : say("copyOf", { field })}>${say(done || "copy")}</button>`;
}

/** A value of a field, whatever it is: with its lines where it has some, cut where it is huge. */
export function Value({ value, say }) {
  const whole = value !== null && typeof value === "object" ? pretty(value) : text(value);
  const { kept, left } = cut(whole, 8000);
  return html`<bdi class="value">${visible(kept, true)}</bdi>${left > 0 && html`<em> ${say("cutLeft", { n: left })}</em>`}`;
}

const pretty = (value) => {
  try { return JSON.stringify(value, null, 2); } catch { return text(value); }
};

export const Time = ({ ms, now, times, both }) => html`<time title=${times.full(ms)}>
  ${both && html`<span class="absolute">${times.short(ms, now)}</span> `}<span class="relative">${times.relative(ms, now)}</span></time>`;
