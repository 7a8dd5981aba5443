// The demo's page without a browser: its script, a document of just what it uses, and a clock that the test turns.
//
//     node page.mjs page.html < steps.json > states.json
//
// A step is {"receive": …}, {"open": true}, {"close": true} or {"wait": seconds}; a state is the page after it, of the
// last ``shown`` steps. ``refused`` are the fetches of the page's config that fail, the first being 1.
import { readFileSync } from "node:fs";
import vm from "node:vm";

class Element {
  constructor() {
    this.children = [];
    this.dataset = {};
    this.className = "";
    this.textContent = "";
  }
  remove() {
    if (this.parent) this.parent.children.splice(this.parent.children.indexOf(this), 1);
    this.parent = undefined;
  }
  insertBefore(child, before) {
    child.remove();
    child.parent = this;
    this.children.splice(before ? this.children.indexOf(before) : this.children.length, 0, child);
  }
  prepend(child) {
    child.remove();
    this.insertBefore(child, this.children[0]);
  }
  append(child) {
    this.insertBefore(child, null);
  }
  replaceChildren(...children) {
    this.children = children;
  }
}

const elements = {};
const element = (id) => (elements[id] ??= new Element());
const document = { getElementById: element, createElement: () => new Element() };

let now = 1_700_000_000_000;
let timers = [];
let numbers = 0;
const setTimeout = (call, milliseconds = 0, ...given) => {
  timers.push({ at: now + Math.max(1, milliseconds), number: ++numbers, run: () => call(...given) });
  return numbers;
};
const clearTimeout = (number) => {
  timers = timers.filter((timer) => timer.number !== number);
};
const wait = (milliseconds) => {
  const end = now + milliseconds;
  for (;;) {
    const [next] = timers.filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at || a.number - b.number);
    if (!next) break;
    clearTimeout(next.number);
    now = Math.max(now, next.at);
    next.run();
  }
  now = end;
};

const sockets = [];
class WebSocket {
  constructor(url) {
    sockets.push(Object.assign(this, { url }));
  }
}

const { chance, shown, refused, steps } = JSON.parse(readFileSync(0, "utf8"));
const html = readFileSync(process.argv[2], "utf8");
const script = /<script>(.*?)<\/script>/s.exec(html)[1];
const machine = { document, WebSocket, setTimeout, clearTimeout };
machine.Date = { now: () => now };
let configs = 0;
machine.fetch = async (path) => {
  configs += 1;
  if (refused.includes(configs)) throw new TypeError("Failed to fetch");
  return { json: async () => ({ url: `wss://api/${path}?token=${configs}` }) };
};
const page = vm.createContext(machine);
vm.runInContext(`Math.random = () => ${chance}`, page);
vm.runInContext(script, page);
const size = (name) => vm.runInContext(`${name}.size`, page);

const rows = (id) =>
  element(id).children.map((row) => row.children.map((cell) => [cell.textContent, cell.className, cell.innerHTML]));
const state = (error) => ({
  error,
  incidents: rows("incidents"),
  remediations: rows("remediations"),
  counts: element("counts").textContent,
  status: [element("status").dataset.state, element("status").textContent],
  sockets: sockets.map((socket) => socket.url),
  events: size("events"),
});

await new Promise(setImmediate);
const states = [];
for (const [at, step] of steps.entries()) {
  let error = null;
  try {
    const socket = sockets.at(-1);
    if ("receive" in step) socket.onmessage({ data: step.receive });
    if ("open" in step) socket.onopen();
    if ("close" in step) socket.onclose();
    if ("wait" in step) wait(step.wait * 1000);
  } catch (thrown) {
    error = String(thrown);
  }
  await new Promise(setImmediate);
  if (at >= steps.length - shown) states.push(state(error));
}
console.log(JSON.stringify(states));
