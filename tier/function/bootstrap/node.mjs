// Runs a handler of Lambda for Node.js: asks the Runtime API for events and answers them.
// Without dependencies. Node 18 and later.
import http from "node:http";
import path from "node:path";
import fs from "node:fs";
import { pathToFileURL } from "node:url";

const api = process.env.AWS_LAMBDA_RUNTIME_API;
const [host, port] = api.split(":");
const base = "/2018-06-01/runtime/";
const loops = Number(process.env.AWS_LAMBDA_MAX_CONCURRENCY || 1);
const agent = new http.Agent({ keepAlive: true, maxSockets: loops + 1 });

function ask(method, where, headers = {}, body) {
  return new Promise((resolve, reject) => {
    const req = http.request({ host, port, agent, method, path: base + where, headers }, (res) => {
      const parts = [];
      res.on("data", (p) => parts.push(p));
      res.on("end", () => resolve({ status: res.statusCode, headers: res.headers, body: Buffer.concat(parts) }));
      res.on("error", reject);
    });
    req.on("error", reject);
    req.end(body);
  });
}

function told(error) {
  const is = error instanceof Error;
  return JSON.stringify({
    errorType: is ? error.name : typeof error,
    errorMessage: is ? error.message : String(error),
    trace: is && error.stack ? error.stack.split("\n") : [],
  });
}

const kind = (error) => (error instanceof Error && error.name.startsWith("Runtime.") ? error.name : "Unhandled");

function fail(where, error) {
  console.error(error instanceof Error ? error.stack : error);
  return ask("POST", where, { "Content-Type": "application/json", "Lambda-Runtime-Function-Error-Type": kind(error) }, told(error));
}

function named(name, message) {
  const error = new Error(message);
  error.name = name;
  return error;
}

// Streams, as awslambda.streamifyResponse gives them.
const streaming = Symbol("streaming");
const prelude = "application/vnd.awslambda.http-integration-response";
globalThis.awslambda = {
  streamifyResponse(handler) {
    handler[streaming] = true;
    return handler;
  },
  HttpResponseStream: {
    from(stream, metadata) {
      stream.setContentType(prelude);
      stream.write(JSON.stringify(metadata));
      stream.write(Buffer.alloc(8));
      return stream;
    },
  },
};

async function load() {
  const said = process.env._HANDLER || "";
  const root = process.env.LAMBDA_TASK_ROOT || ".";
  const slash = said.lastIndexOf("/") + 1;
  const dot = said.indexOf(".", slash);
  if (dot < 0) throw named("Runtime.MalformedHandlerName", `"${said}" is no handler: write file.function`);
  const file = path.resolve(root, said.slice(0, dot));
  const found = ["", ".js", ".mjs", ".cjs"].map((end) => file + end).find((f) => fs.existsSync(f) && fs.statSync(f).isFile());
  if (!found) throw named("Runtime.ImportModuleError", `Error: Cannot find module '${said.slice(0, dot)}' in ${root}`);
  let module = await import(pathToFileURL(found).href);
  let at = module;
  const walk = (from) => said.slice(dot + 1).split(".").reduce((o, k) => o?.[k], from);
  at = walk(module) ?? walk(module.default ?? {});
  if (at === undefined) throw named("Runtime.HandlerNotFound", `${said} is undefined or not exported`);
  if (typeof at !== "function") throw named("Runtime.HandlerNotFound", `${said} is not a function`);
  return at;
}

function contextOf(headers) {
  const deadline = Number(headers["lambda-runtime-deadline-ms"]);
  const parsed = (name) => (headers[name] ? JSON.parse(headers[name]) : undefined);
  return {
    callbackWaitsForEmptyEventLoop: true,
    functionName: process.env.AWS_LAMBDA_FUNCTION_NAME,
    functionVersion: process.env.AWS_LAMBDA_FUNCTION_VERSION,
    memoryLimitInMB: process.env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: process.env.AWS_LAMBDA_LOG_GROUP_NAME,
    logStreamName: process.env.AWS_LAMBDA_LOG_STREAM_NAME,
    invokedFunctionArn: headers["lambda-runtime-invoked-function-arn"],
    awsRequestId: headers["lambda-runtime-aws-request-id"],
    clientContext: parsed("lambda-runtime-client-context"),
    identity: parsed("lambda-runtime-cognito-identity"),
    getRemainingTimeInMillis: () => deadline - Date.now(),
  };
}

function run(handler, event, context) {
  return new Promise((resolve, reject) => {
    const done = (error, value) => (error ? reject(error) : resolve(value));
    context.done = done;
    context.succeed = resolve;
    context.fail = reject;
    const back = handler(event, context, done);
    if (back && typeof back.then === "function") back.then(resolve, reject);
    else if (handler.length < 3 && back !== undefined) resolve(back);
    else if (handler.length < 3 && back === undefined) resolve(undefined);
  });
}

function stream(handler, event, context, id) {
  return new Promise((resolve, reject) => {
    const headers = { "Content-Type": "application/octet-stream", "Lambda-Runtime-Function-Response-Mode": "streaming", Trailer: "Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body" };
    const req = http.request({ host, port, agent, method: "POST", path: `${base}invocation/${id}/response`, headers }, (res) => {
      res.resume();
      res.on("end", resolve);
    });
    req.on("error", reject);
    req.setContentType = (type) => req.setHeader("Content-Type", type);
    Promise.resolve()
      .then(() => handler(event, req, context))
      .then(() => req.writableEnded || req.end())
      .catch((error) => {
        console.error(error);
        req.addTrailers({ "Lambda-Runtime-Function-Error-Type": kind(error), "Lambda-Runtime-Function-Error-Body": Buffer.from(told(error)).toString("base64") });
        req.end();
      });
  });
}

async function loop(handler) {
  for (;;) {
    const next = await ask("GET", "invocation/next");
    if (next.status !== 200) return;
    const id = next.headers["lambda-runtime-aws-request-id"];
    if (next.headers["lambda-runtime-trace-id"]) process.env._X_AMZN_TRACE_ID = next.headers["lambda-runtime-trace-id"];
    try {
      const event = JSON.parse(next.body.toString());
      const context = contextOf(next.headers);
      if (handler[streaming]) {
        await stream(handler, event, context, id);
        continue;
      }
      const value = await run(handler, event, context);
      await ask("POST", `invocation/${id}/response`, { "Content-Type": "application/json" }, value === undefined ? "null" : JSON.stringify(value));
    } catch (error) {
      await fail(`invocation/${id}/error`, error);
    }
  }
}

let began = false;
process.on("uncaughtException", async (error) => {
  if (!began) await fail("init/error", error).catch(() => {});
  else console.error(error);
  process.exit(129);
});
process.on("unhandledRejection", (error) => {
  throw error;
});

try {
  const handler = await load();
  began = true;
  await Promise.all(Array.from({ length: loops }, () => loop(handler)));
} catch (error) {
  await fail("init/error", error).catch(() => {});
  process.exit(1);
}
