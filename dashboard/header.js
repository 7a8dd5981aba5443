// The top line: how the page stands with the server, and the switches.

import { html } from "./vendor/preact.js";
import { span } from "./words.js";

export const Header = ({ standing, lateness, delay, problems, switches, open, say, onOperators }) => html`<header>
  <h1>${say("title")}</h1>
  <p id="state" class=${`state ${standing.tone}`} data-state=${standing.state}><span class="dot" aria-hidden="true"></span>${say(standing.name, standing)}</p>
  <p id="delay" class="dim">${delays(lateness, delay, say)}</p>
  <div class="switches">
    ${switches.map(({ id, label, pressed, hint, onClick }) => html`<button type="button" key=${id} id=${id} title=${hint}
      aria-pressed=${pressed === undefined ? undefined : String(pressed)} onClick=${onClick}>${label}</button>`)}
    <button type="button" id="operators-button" title=${say("operatorsHint")} aria-expanded=${open ? "true" : "false"} onClick=${onOperators}>
      ${say("operators")}${problems > 0 && html` <span class="badge" title=${say("unreadBadge", { n: problems })}>${problems}</span>`}</button>
  </div>
</header>`;

function delays({ skew, unclear }, delay, say) {
  const said = [];
  if (delay !== undefined) said.push(say(unclear ? "delayUnclear" : "delay", { delay: span(say, delay) }));
  if (skew) said.push(say(skew > 0 ? "skewAhead" : "skewBehind", { skew: span(say, skew) }));
  return said.join("; ");
}
