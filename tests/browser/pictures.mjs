// Pictures of the dashboard for the documents: light, dark, and on a phone.
//
//     CHROMIUM=/usr/bin/chromium node pictures.mjs FOLDER

import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { begin, end, eventually, relayWith, Stage } from "./stage.mjs";

const [folder = "."] = process.argv.slice(2);
const NOW = Date.parse("2026-03-02T10:42:30Z"), ACCOUNT = "eu-west-1:123456789012";
const ago = (minutes) => new Date(NOW - minutes * 60_000).toISOString();
const KINDS = [
  ["CRITICAL", "Root credentials used", (at) => `arn:aws:iam::123456789012:user/deploy-${at}`],
  ["HIGH", "Port 22 open to the internet", (at) => `arn:aws:ec2:${ACCOUNT}:security-group/sg-0${at}f3a91c2d`],
  ["MEDIUM", "Public bucket", (at) => `arn:aws:s3:::invoices-${at}-export`],
  ["LOW", "Access key older than 90 days", (at) => `arn:aws:iam::123456789012:user/reports-${at}`],
  ["HIGH", "Trail stopped logging", (at) => `arn:aws:cloudtrail:${ACCOUNT}:trail/audit-${at}`],
];

/** More of what is harmless. */
const MIX = [2, 1, 3, 0, 4, 2, 3, 1, 2, 3, 4];

const incidents = Array.from({ length: 64 }, (_, at) => {
  const [severity, event_type, resource] = KINDS[MIX[at % MIX.length]], minutes = (64 - at) * (at % 4 ? 0.9 : 3) % 59 + 1;
  return {
    incident_id: `inc-${4100 + at}`, severity, event_type, resource: resource(at + 10), region: "eu-west-1", detected_by: "config-rule",
    status: at % 3 === 0 ? "RESOLVED" : at % 4 === 1 ? "INVESTIGATING" : "OPEN",
    created_at: ago(minutes), updated_at: ago(minutes * 0.8), rule: { name: event_type.toLowerCase().replace(/\W+/g, "-"), version: 3 },
  };
});

async function picture(name, { media, size, incident }) {
  const stage = await Stage.open({ relay: relayWith(incidents), media, time: NOW }), { page, relay } = stage;
  await page.setViewportSize(size);
  await eventually(async () => (await stage.texts("#shown"))[0], "64 of 64 shown");
  const hot = incidents.find(({ severity, status }) => severity === "CRITICAL" && status === "OPEN");
  relay.publish({ ...hot, status: "INVESTIGATING", updated_at: ago(0.1) });
  relay.publish(
    { action: "deactivate_access_key", target: hot.resource, status: "SUCCEEDED", time: ago(0.08) },
    { action: "attach_deny_policy", target: hot.resource, status: "STARTED", time: ago(0.05) },
  );
  await eventually(async () => (await stage.rows())[0], `${hot.incident_id} CRITICAL INVESTIGATING`);
  if (incident) await stage.row(hot.incident_id).click();
  await page.mouse.move(2, 2);
  // The timeline is drawn once a second.
  await sleep(1_500);
  await page.screenshot({ path: join(folder, name) });
  await stage.close();
}

await begin();
try {
  const size = { width: 1440, height: 860 };
  await picture("dashboard-light.png", { media: { colorScheme: "light" }, size, incident: true });
  await picture("dashboard-dark.png", { media: { colorScheme: "dark" }, size });
  await picture("dashboard-phone.png", { media: { colorScheme: "light" }, size: { width: 390, height: 844 } });
} finally { await end(); }
