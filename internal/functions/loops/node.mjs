// Runs a handler: asks the Runtime API for events, calls the function that
// _HANDLER names, and brings back what it returns.
import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import util from "node:util";
import { pathToFileURL } from "node:url";

const env = process.env;
const [host, port] = env.AWS_LAMBDA_RUNTIME_API.split(":");
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });

function call(method, where, body, kind) {
  const headers = {};
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
    headers["Content-Length"] = Buffer.byteLength(body);
  }
  if (kind) headers["Lambda-Runtime-Function-Error-Type"] = kind.replace(/[^\x20-\x7e]/g, "?");
  return new Promise((resolve, reject) => {
    const request = http.request({ host, port, agent, method, path: "/2018-06-01/runtime" + where, headers }, (answer) => {
      const parts = [];
      answer.on("data", (part) => parts.push(part));
      answer.on("end", () => resolve({ status: answer.statusCode, headers: answer.headers, body: Buffer.concat(parts).toString() }));
      answer.on("error", reject);
    });
    request.on("error", reject);
    request.end(body);
  });
}

function describe(error) {
  if (error instanceof Error || (error && typeof error === "object" && "message" in error)) {
    return { errorType: error.name ?? "Error", errorMessage: String(error.message), trace: String(error.stack ?? "").split("\n") };
  }
  return { errorType: typeof error, errorMessage: util.format(error), trace: [] };
}

// Lines as Lambda's own loop writes them.
let current = null;
for (const [name, level] of [["log", "INFO"], ["info", "INFO"], ["debug", "DEBUG"], ["warn", "WARN"], ["error", "ERROR"], ["trace", "TRACE"]]) {
  console[name] = (...parts) => {
    const text = util.format(...parts).replaceAll("\n", "\r");
    process.stdout.write(`${new Date().toISOString()}\t${current ?? "undefined"}\t${level}\t${text}\n`);
  };
}

async function report(where, document) {
  console.error("Invoke Error", JSON.stringify(document));
  await call("POST", where, JSON.stringify(document), document.errorType);
}

async function load(name) {
  const dot = name.lastIndexOf(".");
  const [file, exported] = [path.join(env.LAMBDA_TASK_ROOT, name.slice(0, dot)), name.slice(dot + 1)];
  const found = [".mjs", ".js", ".cjs"].map((e) => file + e).find((f) => fs.existsSync(f));
  if (!found) throw Object.assign(new Error(`Cannot find module '${name.slice(0, dot)}'`), { name: "Runtime.ImportModuleError" });
  let module;
  try {
    module = await import(pathToFileURL(found).href);
  } catch (error) {
    if (error instanceof SyntaxError) error.name = "Runtime.UserCodeSyntaxError";
    throw error;
  }
  const handler = module[exported] ?? module.default?.[exported];
  if (typeof handler !== "function") {
    throw Object.assign(new Error(`${name} is undefined or not exported`), { name: "Runtime.HandlerNotFound" });
  }
  return handler;
}

// invoke calls a handler of any of the three kinds: async, with a callback, or
// one that ends the call through its context.
function invoke(handler, event, context) {
  return new Promise((resolve, reject) => {
    const done = (error, result) => (error ? reject(error) : resolve(result));
    context.done = done;
    context.succeed = (result) => resolve(result);
    context.fail = (error) => reject(error);
    const returned = handler(event, context, done);
    if (typeof returned?.then === "function") returned.then(resolve, reject);
    else if (returned !== undefined || handler.length < 2) resolve(returned);
  });
}

async function crash(kind, error) {
  const document = { ...describe(error), errorType: kind };
  const where = current ? `/invocation/${current}/error` : "/init/error";
  try {
    await report(where, document);
  } finally {
    process.exit(129);
  }
}
process.on("uncaughtException", (error) => crash(describe(error).errorType, error));
process.on("unhandledRejection", (error) => crash("Runtime.UnhandledPromiseRejection", error));

let handler;
try {
  handler = await load(env._HANDLER);
} catch (error) {
  await report("/init/error", describe(error));
  process.exit(1);
}
for (;;) {
  const next = await call("GET", "/invocation/next");
  if (next.status !== 200) {
    process.stderr.write(`no event: ${next.status} ${next.body}\n`);
    process.exit(1);
  }
  const header = (name) => next.headers["lambda-runtime-" + name];
  const deadline = Number(header("deadline-ms"));
  current = header("aws-request-id");
  env._X_AMZN_TRACE_ID = header("trace-id") ?? "";
  const where = `/invocation/${current}`;
  const context = {
    awsRequestId: current,
    invokedFunctionArn: header("invoked-function-arn"),
    functionName: env.AWS_LAMBDA_FUNCTION_NAME,
    functionVersion: env.AWS_LAMBDA_FUNCTION_VERSION,
    memoryLimitInMB: env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: env.AWS_LAMBDA_LOG_GROUP_NAME,
    logStreamName: env.AWS_LAMBDA_LOG_STREAM_NAME,
    callbackWaitsForEmptyEventLoop: false,
    clientContext: header("client-context") ? JSON.parse(header("client-context")) : undefined,
    getRemainingTimeInMillis: () => Math.max(deadline - Date.now(), 0),
  };
  let result;
  try {
    result = JSON.stringify((await invoke(handler, JSON.parse(next.body), context)) ?? null);
  } catch (error) {
    await report(where + "/error", describe(error));
    continue;
  }
  await call("POST", where + "/response", result);
}
