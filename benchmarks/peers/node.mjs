// Node's AWS SDK v3: as many keep-alive sockets as places, one worker a place. Speaks JSON, a line each way.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { Agent } from "node:https";
import { createInterface } from "node:readline";

const setup = JSON.parse(readFileSync(process.argv[2], "utf8"));
const require = createRequire(setup.modules + "/");
const { ApiGatewayManagementApiClient, PostToConnectionCommand } = require("@aws-sdk/client-apigatewaymanagementapi");

const client = new ApiGatewayManagementApiClient({
  endpoint: setup.endpoint,
  region: setup.region,
  maxAttempts: 1,
  requestHandler: { httpsAgent: new Agent({ keepAlive: true, maxSockets: setup.concurrency }) },
});
const body = Buffer.from(setup.body);

async function broadcast(count) {
  const ids = Array.from({ length: count }, (_, at) => `L${String(at).padStart(9, "0")}oAMCI=`);
  let next = 0;
  let delivered = 0;
  const work = async () => {
    while (next < ids.length) {
      const answer = await client.send(new PostToConnectionCommand({ ConnectionId: ids[next++], Data: body }));
      if (answer.$metadata.httpStatusCode === 200) delivered += 1;
    }
  };
  const cpu = process.cpuUsage();
  const start = process.hrtime.bigint();
  await Promise.all(Array.from({ length: setup.concurrency }, work));
  const used = process.cpuUsage(cpu);
  const wall = Number(process.hrtime.bigint() - start) / 1e9;
  return [delivered, (used.user + used.system) / 1e6, wall, process.resourceUsage().maxRSS / 1024];
}

process.on("SIGINT", () => {}); // Ctrl-C reaches the whole process group; the parent decides.
console.log(JSON.stringify("ready"));
for await (const line of createInterface({ input: process.stdin })) {
  try {
    console.log(JSON.stringify(await broadcast(Number(line))));
  } catch (error) {
    console.log(JSON.stringify(String(error)));
  }
}
