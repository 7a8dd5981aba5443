// client/async-relay.js in Node: TOKEN=… node watcher.mjs ws://…; a line of JSON for each thing that it is told. For
// each line of standard input its picture follows, and when that ends, so does this.
import { connect } from "../client/async-relay.js";

const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);
const relay = connect({
  url: process.argv[2],
  token: process.env.TOKEN,
  inUrl: true,
  onMessage: (message) => say({ message }),
  onStale: (message) => say({ message }),
  onHistory: (_incidents, { gap }) => say({ gap }),
  onState: (state, { reason }) => say({ state, reason }),
});
process.stdin.on("data", () => say({ picture: Object.fromEntries(relay.incidents) }));
process.stdin.on("end", () => relay.close());
