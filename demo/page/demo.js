// The panel beside the dashboard: it asks for the figures once a second, and presses buttons. All that comes is text.

const SECONDS = 60, TALLEST = 24, SVG = "http://www.w3.org/2000/svg";
const element = (id) => document.getElementById(id);
const samples = [];
const clock = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
let before;

/** The answer, or undefined where there is none, which is said. */
async function ask(path, options) {
  let answer;
  try { answer = await fetch(path, { cache: "no-store", ...options }); } catch { /* said below */ }
  element("problem").textContent = answer?.ok ? "" : "The demo does not answer; has it ended?";
  return answer?.ok ? answer : undefined;
}

async function look() {
  const answer = await ask("/state");
  if (answer) show(await answer.json());
  setTimeout(look, 1000);
}

const line = ([at, words]) => `${clock.format(new Date(at))}  ${words}`;

function show(state) {
  for (const name of ["dashboards", "delivered", "parked", "retries", "gone", "repeated"]) {
    element(name).textContent = state[name].toLocaleString("en");
  }
  element("waiting").textContent = state.waiting ? `${state.waiting.toLocaleString("en")}, ${state.oldest.toFixed(1)} s` : "0";
  for (const name of ["p50", "p99"]) element(name).textContent = state[name] === null ? "–" : `${state[name].toLocaleString("en")} ms`;
  element("join").textContent = state.join;
  element("told").replaceChildren(...state.told.toReversed().map((each) => {
    const item = document.createElement("li");
    item.textContent = line(each);
    return item;
  }));
  if (before) samples.push([state.delivered - before.delivered, state.retries - before.retries]);
  before = state;
  if (samples.length > SECONDS) samples.shift();
  draw(samples);
}

/** Bars of both, one on the other, as high as the highest. */
function draw(bars) {
  const highest = Math.max(1, ...bars.map(([delivered, retried]) => delivered + retried));
  element("chart").replaceChildren(...bars.flatMap(([delivered, retried], at) => {
    const x = SECONDS - bars.length + at, low = (delivered / highest) * TALLEST, high = (retried / highest) * TALLEST;
    return [bar("delivered", x, TALLEST - low, low), bar("retried", x, TALLEST - low - high, high)];
  }));
}

function bar(name, x, y, height) {
  const made = document.createElementNS(SVG, "rect");
  for (const [key, value] of Object.entries({ class: name, x, y, width: 0.8, height })) made.setAttribute(key, value);
  return made;
}

for (const button of document.querySelectorAll("[data-press]")) {
  button.addEventListener("click", async () => {
    // Not disabled, which would take the focus away.
    if (button.ariaDisabled === "true") return;
    button.ariaDisabled = "true";
    element("last").textContent = `${button.textContent} …`;
    const done = await ask(`/press/${button.dataset.press}`, { method: "POST" }), answer = done && (await ask("/state"));
    const told = answer ? (await answer.json()).told.at(-1) : undefined;
    element("last").textContent = told ? line(told) : `${button.textContent}: no answer`;
    button.ariaDisabled = "false";
  });
}
look();
