// The client as Node has it, with real sockets and time: node real.mjs wss://…; one line of JSON for each thing it sees.
import { connect } from "../../client/async-relay.js";

const say = (what) => console.log(JSON.stringify(what));
const relay = connect({
  url: process.argv[2],
  token: async () => "t-1",
  onMessage: (message) => say(message.event_id),
  onState: (state) => say({ state }),
});
process.stdin.on("end", () => {
  say({ position: relay.position, incidents: [...relay.incidents.keys()] });
  relay.close();
});
process.stdin.resume();
