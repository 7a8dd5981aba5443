// For who runs the relay: counts, what could not be read, and what became of the connection.

import { html } from "./vendor/preact.js";
import { text } from "./shorten.js";
import { span } from "./words.js";

export function Operators({ frames, lateness, delay, picture, log, url, context, onClose }) {
  const { say, times, now } = context, unknown = say("op.unknownYet");
  const took = (ms) => (ms === undefined ? unknown : ms ? span(say, ms) : "0");
  // Without its query, which may have a token.
  const facts = [
    ["url", text(url).split("?")[0]], ["frames", frames.frames], ["messages", frames.messages], ["size", frames.characters.toLocaleString(context.language)],
    ["stale", frames.stale], ["rows", picture.rows.size], ["responses", picture.responses.length],
    ["delay", took(delay)], ["skew", took(lateness.skew)], ["trip", frames.trip === undefined ? unknown : `${frames.trip} ms`],
  ];
  return html`<section id="operators" class="operators" aria-labelledby="operators-heading">
    <div class="bar"><h2 id="operators-heading">${say("operators")}</h2><button type="button" onClick=${onClose}>${say("close")}</button></div>
    <div class="columns">
      <dl class="facts">${facts.map(([name, value]) => html`<dt>${say(`op.${name}`)}</dt><dd><bdi>${value}</bdi></dd>`)}</dl>
      <div id="unread"><h3>${say("op.unread")}</h3><${Tally} counts=${frames.unread} say=${say} name=${(each) => say(`why.${each}`)} /></div>
      <div id="unknown-kinds"><h3>${say("op.unknown")}</h3><${Tally} counts=${frames.unknown} say=${say} name=${(each) => each} /></div>
      <div><h3>${say("op.log")}</h3><ol class="log">${[...log].reverse().map(({ at, words }) => html`<li>
        <time>${times.short(at, now)}</time> ${words}</li>`)}</ol></div>
    </div>
    <p class="dim">${say("keys")}</p>
  </section>`;
}

const Tally = ({ counts, say, name }) => counts.size === 0 ? html`<p class="dim">${say("op.nothing")}</p>`
  : html`<ul>${[...counts].map(([key, { times, sample }]) => html`<li><b><bdi>${name(key)}</bdi></b>: ${say("op.times", { n: times })}
    <div class="sample dim">${say("op.last")} <code><bdi>${sample}</bdi></code></div></li>`)}</ul>`;
