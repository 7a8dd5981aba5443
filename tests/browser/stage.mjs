// One browser for all tests; for each test a relay, a server and a page that shows the dashboard.

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
const PATIENCE = 15_000;

/** Before the page's own scripts: whatever foreign text sets off here ends up in the console, and fails the test. */
const WATCH = () => {
  Object.defineProperty(window, "owned", { set: () => console.error("foreign script was executed") });
  addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) => console.error(`policy: ${violatedDirective} ${blockedURI}`));
};

/** The dashboard's files, with a config.js that names this server, and on its sockets a relay. */
class Server {
  #http = createServer(({ url }, response) => this.#answer(url, response));

  /** On a port of its own, which makes it an origin of its own: what a page keeps is not there for the next. */
  async listen(relay) {
    const sockets = new WebSocketServer({ noServer: true, handleProtocols: (offered) => [...offered][0] });
    this.#http.on("upgrade", (...request) => relay.deaf || sockets.handleUpgrade(...request, (socket) => relay.connected(socket)));
    await new Promise((done) => this.#http.listen(0, "127.0.0.1", done));
    return this;
  }

  get host() { return `127.0.0.1:${this.#http.address().port}`; }

  async #answer(url, response) {
    const file = new URL(url, "http://here").pathname.slice(1) || "index.html";
    const config = `export const url = "ws://${this.host}/", history = 10_000;`;
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

/** One context serves all pages that need no other: a context for each doubles what a page costs. */
let browser, shared;

export async function begin() {
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM, headless: true, args: ARGUMENTS });
  shared = await context();
}

export const end = () => browser?.close();

async function context(options) {
  const made = await browser.newContext({ locale: "en-GB", timezoneId: "UTC", viewport: { width: 1280, height: 800 }, ...options });
  await made.addInitScript(WATCH);
  return made;
}

/** A dashboard that is open. */
export class Stage {
  complaints = [];
  /** What the console may say all the same. */
  forgives = undefined;

  /**
   * @param of `relay`, with what it has already; `media` as emulateMedia has it; `clock`: the test turns the page's;
   *   `time`: it stands still there; `locale`: the browser's language; `before`: runs before the page's scripts
   */
  static async open({ relay = new Relay(), media = {}, clock = false, time, locale, before } = {}) {
    const stage = new Stage();
    stage.relay = relay;
    stage.server = await new Server().listen(relay);
    if (clock || time || locale) stage.own = await context({ ...(locale && { locale }) });
    const page = stage.page = await (stage.own ?? shared).newPage();
    page.setDefaultTimeout(PATIENCE);
    page.on("console", (message) => ["error", "warning"].includes(message.type()) && stage.complaints.push(message.text()));
    page.on("pageerror", (error) => stage.complaints.push(String(error)));
    await page.emulateMedia(media);
    if (clock) await page.clock.install();
    if (time) await page.clock.setFixedTime(time);
    if (before) await page.addInitScript(before);
    await page.goto(`http://${stage.server.host}/`);
    return stage;
  }

  async close() {
    await (this.own ?? this.page).close();
    this.server.close();
  }

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
  test(name, { timeout: 60_000 }, async () => {
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
    await sleep(60);
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
