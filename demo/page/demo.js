// The panel beside the dashboard: it asks for the figures once a second, and presses buttons. All that comes is text.

const SECONDS = 60, TALLEST = 24, SVG = "http://www.w3.org/2000/svg";
const element = (id) => document.getElementById(id);
const samples = [];
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

function show(state) {
  for (const name of ["dashboards", "delivered", "parked", "retries", "gone", "repeated"]) {
    element(name).textContent = state[name].toLocaleString("en");
  }
  element("waiting").textContent = state.waiting ? `${state.waiting}, ${state.oldest.toFixed(1)} s` : "0";
  for (const name of ["p50", "p99"]) element(name).textContent = state[name] === null ? "–" : `${state[name]} ms`;
  element("join").textContent = state.join;
  element("told").replaceChildren(...state.told.toReversed().map(([at, words]) => {
    const line = document.createElement("li");
    line.textContent = `${new Date(at).toLocaleTimeString()}  ${words}`;
    return line;
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
    button.disabled = true;
    await ask(`/press/${button.dataset.press}`, { method: "POST" });
    button.disabled = false;
  });
}
look();
