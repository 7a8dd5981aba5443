// One browser and one server for all tests; for each test a relay, a browser context and the dashboard in it.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { extname } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import { Relay } from "./relay.mjs";

// They are installed beside the other servers of the tests.
const require = createRequire(new URL("../node/package.json", import.meta.url));
const { chromium } = require("playwright-core"), { WebSocketServer } = require("ws");
const AXE = require("axe-core").source;

const DASHBOARD = new URL("../../dashboard/", import.meta.url);
const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };
const ARGUMENTS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];
/** For a busy machine: no test passes sooner for it. */
const PATIENCE = 30_000;

/** Before the page's own scripts: whatever foreign text sets off here ends up in the console, and fails the test. */
const WATCH = () => {
  Object.defineProperty(window, "owned", { set: () => console.error("foreign script was executed") });
  addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) => console.error(`policy: ${violatedDirective} ${blockedURI}`));
};

/** The dashboard's files and the relays' sockets: `/NAME/` is a dashboard whose config.js names the relay NAME. */
class Server {
  #relays = new Map();
  #http = createServer((request, response) => this.#answer(request, response));

  async listen() {
    const sockets = new WebSocketServer({ noServer: true, handleProtocols: (offered) => [...offered][0] });
    this.#http.on("upgrade", (request, socket, head) => {
      const relay = this.#relays.get(request.url.split("/")[1]);
      if (!relay.deaf) sockets.handleUpgrade(request, socket, head, (each) => relay.connected(each));
    });
    await new Promise((done) => this.#http.listen(0, "127.0.0.1", done));
    return this;
  }

  get host() { return `127.0.0.1:${this.#http.address().port}`; }

  /** The URL of a page for this relay. */
  add(relay) {
    const name = String(this.#relays.size);
    this.#relays.set(name, relay);
    return `http://${this.host}/${name}/`;
  }

  async #answer({ url }, response) {
    const [, name, ...path] = new URL(url, "http://here").pathname.split("/"), file = path.join("/") || "index.html";
    const config = `export const url = "ws://${this.host}/${name}", history = 10_000;`;
    try {
      const body = file === "config.js" ? config : await readFile(new URL(file, DASHBOARD));
      response.writeHead(200, { "Content-Type": TYPES[extname(file)] ?? "text/plain", "Cache-Control": "no-store" }).end(body);
    } catch { response.writeHead(404).end(); }
  }

  close() {
    this.#http.closeAllConnections();
    this.#http.close();
  }
}

let server, browser;

export async function begin() {
  server = await new Server().listen();
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM, headless: true, args: ARGUMENTS });
}

export async function end() {
  await browser?.close();
  server?.close();
}

/** A dashboard that is open. */
export class Stage {
  complaints = [];
  /** What the console may say all the same. */
  forgives = undefined;

  /** @param relay the relay, with what it has already; `clock`: the test turns the page's; `query`: of its URL; others as Playwright's contexts have them */
  static async open({ relay = new Relay(), clock = false, query = "", ...context } = {}) {
    const stage = new Stage();
    stage.relay = relay;
    stage.context = await browser.newContext({ locale: "en-GB", timezoneId: "UTC", viewport: { width: 1280, height: 800 }, ...context });
    await stage.context.addInitScript(WATCH);
    const page = stage.page = await stage.context.newPage();
    page.setDefaultTimeout(PATIENCE);
    page.on("console", (message) => ["error", "warning"].includes(message.type()) && stage.complaints.push(message.text()));
    page.on("pageerror", (error) => stage.complaints.push(String(error)));
    if (clock) await page.clock.install();
    await page.goto(server.add(relay) + query);
    return stage;
  }

  close() { return this.context.close(); }

  async live() { await this.state("live"); }

  state(name) { return eventually(() => this.page.locator("#state").getAttribute("data-state"), name); }

  /** Wait until an element says this, or fits it. */
  says(selector, expected) {
    const read = async () => squeezed(await this.page.locator(selector).first().innerText());
    if (typeof expected === "string") return eventually(read, expected);
    return eventually(async () => { const found = await read(); return expected.test(found) ? expected.source : found; }, expected.source);
  }

  /** The rows of the document in their order: incident, severity, status. */
  rows() {
    return this.page.evaluate(() => [...document.querySelectorAll(".row.incident")]
      .sort((a, b) => a.ariaRowIndex - b.ariaRowIndex)
      .map((row) => [row.querySelector(".incident-cell .ends").title, row.querySelector(".severity bdi").innerText, row.querySelector(".status bdi").innerText].join(" ")));
  }

  /** The texts of all elements that fit. */
  texts(selector) {
    return this.page.evaluate((of) => [...document.querySelectorAll(of)].map((each) => each.innerText.replace(/\s+/g, " ").trim()), selector);
  }

  /** The parameters of the URL. */
  query() { return [...new URL(this.page.url()).searchParams].map((each) => each.join("=")); }

  row(incident) { return this.page.locator(".row.incident", { has: this.page.locator(`[title="${incident}"]`) }); }

  /** Open the operators' panel, or close it. */
  async operators(open = true) {
    await this.page.locator("#operators-button").click();
    await eventually(() => this.page.locator("#operators").count(), +open);
  }

  focused() { return this.page.evaluate(() => document.activeElement.id); }

  /** What axe finds fault with: the rule and where. */
  async faults() {
    if (!(await this.page.evaluate(() => "axe" in window))) await this.page.evaluate(AXE);
    return this.page.evaluate(async () => {
      const { violations } = await window.axe.run(document, { resultTypes: ["violations"] });
      return violations.flatMap(({ id, nodes }) => nodes.map(({ target, failureSummary }) => `${id} ${target}: ${failureSummary}`));
    });
  }
}

const squeezed = (text) => text.replace(/\s+/g, " ").trim();

/** A test with a dashboard of its own, whose console must stay silent. */
export function onStage(name, options, body) {
  test(name, { timeout: 100_000 }, async () => {
    const stage = await Stage.open(typeof options === "function" ? options() : options);
    try {
      await body(stage, stage.page, stage.relay);
      assert.deepEqual(stage.complaints.filter((each) => !stage.forgives?.test(each)), []);
    } finally { await stage.close(); }
  });
}

/** Ask until the answer is as expected. */
export async function eventually(read, expected) {
  const until = performance.now() + PATIENCE;
  for (;;) {
    const found = await read();
    if (isDeepStrictEqual(found, expected)) return;
    if (performance.now() > until) assert.deepEqual(found, expected);
    await sleep(20);
  }
}

/** An incident as the demo's table has it. */
export const incident = (id, { severity = "LOW", status = "OPEN", minutes = 5, ...others } = {}) => ({
  incident_id: id, severity, status, event_type: "PublicBucket", resource: `arn:aws:s3:::bucket-${id}`,
  created_at: ago(minutes), updated_at: ago(minutes), ...others,
});

/** ISO text of so many minutes ago. */
export const ago = (minutes) => new Date(Date.now() - minutes * 60_000).toISOString();

/** A relay that has these incidents, the oldest first. */
export function relayWith(incidents, options) {
  const relay = new Relay(options);
  incidents.forEach((each) => relay.has(each));
  return relay;
}
