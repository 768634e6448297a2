// Calls Kinesis, or the service whose package and client the arguments name,
// through the AWS SDK for JavaScript v3, as told line by line.
//
// usage: kinesis.mjs [PACKAGE CLIENT]
//
// Each line of standard input is {"op": name, "in": {...}}; each line of
// standard output answers one. Bytes are {"$blob": base64}, times
// {"$time": milliseconds}. Packages come from the folder named by MODULES.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const load = createRequire(process.env.MODULES + "/package.json");
const [part = "client-kinesis", name = "KinesisClient"] = process.argv.slice(2);
const sdk = load("@aws-sdk/" + part);
const { NodeHttp2Handler } = load("@smithy/node-http-handler");

const client = new sdk[name]({
  endpoint: process.env.ENDPOINT,
  maxAttempts: 1,
  requestHandler: new NodeHttp2Handler({ requestTimeout: 60_000 }),
});

function decode(value) {
  if (Array.isArray(value)) return value.map(decode);
  if (value === null || typeof value !== "object") return value;
  if ("$blob" in value) return new Uint8Array(Buffer.from(value.$blob, "base64"));
  if ("$time" in value) return new Date(value.$time);
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, decode(v)]));
}

function encode(value) {
  if (value instanceof Uint8Array) return { $blob: Buffer.from(value).toString("base64") };
  if (value instanceof Date) return { $time: value.getTime() };
  if (Array.isArray(value)) return value.map(encode);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([k, v]) => k !== "$metadata" && v !== undefined)
      .map(([k, v]) => [k, encode(v)]),
  );
}

function failure(error) {
  return {
    code: error.name ?? "",
    message: error.message === "UnknownError" ? "" : (error.message ?? ""),
    status: error.$metadata?.httpStatusCode ?? 0,
  };
}

async function subscribe(stream, wanted) {
  const events = [];
  let records = 0;
  try {
    for await (const event of stream) {
      const body = event.SubscribeToShardEvent;
      if (!body) continue;
      events.push(encode(body));
      records += body.Records.length;
      if (wanted && records >= wanted) return { Events: events, Ended: false };
    }
  } catch (error) {
    return { Events: events, Ended: true, Failure: failure(error) };
  }
  return { Events: events, Ended: true };
}

async function call(request) {
  const Command = sdk[request.op + "Command"];
  if (!Command) return { unknown: true };
  try {
    const out = await client.send(new Command(decode(request.in)));
    if (request.op === "SubscribeToShard") return { out: await subscribe(out.EventStream, request.records ?? 0) };
    return { out: encode(out) };
  } catch (error) {
    return { error: failure(error) };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(JSON.stringify(await call(JSON.parse(line))) + "\n");
}
process.exit(0);
