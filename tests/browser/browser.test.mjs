// Every test of the dashboard in one browser, some at a time: most of their time they wait.

import { after, before, describe } from "node:test";
import { begin, end } from "./stage.mjs";

before(begin);
after(end);
await import("./picture.mjs");
