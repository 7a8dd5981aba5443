// SQS's API by fauxqs, until standard input closes.
import { startFauxqs } from "fauxqs";

const server = await startFauxqs({ port: 0, host: "127.0.0.1", logger: false });
console.log(`http://127.0.0.1:${server.port}`);
process.stdin.resume().on("end", () => process.exit(0));
