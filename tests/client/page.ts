// A page in TypeScript, compiled and never run.
import { connect, type Connection, type Message, type State } from "../../client/async-relay.js";

const relay: Connection = connect({
  url: new URL("wss://relay.example/prod"),
  token: async () => (Math.random() > 0.5 ? "a token" : null),
  onMessage: (message: Message) => console.log(message.kind, message.anything),
  onState: (state, { retryIn, reason }) => console.log(state, retryIn?.toFixed(), reason?.length),
  onHistory: (found, { gap, complete }) => console.log(found.length, gap, complete),
  world: { random: () => 0.5 },
});
const state: State = relay.state;
const newest: string | undefined = relay.incidents.get("i-1")?.sequence;
relay.close();
console.log(state, newest, relay.position);

// @ts-expect-error there must be a URL
connect({});
// @ts-expect-error a picture is read only
relay.incidents.clear();
// @ts-expect-error no such state
const other: State = "lively";
// @ts-expect-error a token is text
connect({ url: "", token: () => 7 });
