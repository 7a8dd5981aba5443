// Every test of the dashboard in one browser, some at a time: most of their time they wait.

import { after, before, describe } from "node:test";
import { begin, end } from "./stage.mjs";

describe("the dashboard", { concurrency: 2 }, async () => {
  before(begin);
  after(end);
  for (const each of ["picture", "hands", "hostile", "looks", "many"]) await import(`./${each}.mjs`);
});
