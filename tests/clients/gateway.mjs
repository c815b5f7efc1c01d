// A gateway for a run of clients: a process with an empty data directory, an organisation in it, and a key.

import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

/** How long anything may take that is sure to come, in milliseconds. No machine is as slow as that. */
const PATIENCE = 60000;

/** Starts the program. `ask` speaks the native dialect with a key of these capabilities; `close` ends everything. */
export async function start(program, name, capabilities) {
  const home = await mkdtemp(join(tmpdir(), `portcullis-${name}-`));
  const data = join(home, "data");
  const serve = ["serve", "--data-dir", data, "--listen", "127.0.0.1:0", "--engine", "simulated"];
  const child = spawn(program, serve, { stdio: ["ignore", "pipe", "inherit"], env: { ...process.env, RUST_LOG: "error" } });
  const ended = new Promise((resolve) => child.once("close", resolve));
  const close = async () => {
    child.kill("SIGTERM");
    await ended;
    await rm(home, { recursive: true, force: true });
  };
  try {
    const base = await address(child);
    const operator = client(base, (await readFile(join(data, "operator-key"), "utf8")).trim());
    const org = await operator("POST", "/api/v1/orgs", { name });
    const { key } = await operator("POST", `/api/v1/orgs/${org.id}/keys`, { name, capabilities });
    return { base, key, ask: client(base, key), close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Speaks the native dialect with a key. A refusal is an error with its `status`; the query is left out of it, because it may hold a key. */
export function client(base, key) {
  return async (method, path, body) => {
    const headers = { "x-api-key": key };
    if (body !== undefined) headers["content-type"] = "application/json";
    const response = await fetch(base + path, { method, headers, body: body && JSON.stringify(body) });
    const text = await response.text();
    if (response.ok) return text ? JSON.parse(text) : null;
    const message = `${method} ${path.split("?")[0]}: ${response.status} ${text}`;
    throw Object.assign(new Error(message), { status: response.status });
  };
}

/** Looks again and again until `look` gives something, and says what did not happen otherwise. */
export async function until(what, look) {
  const end = Date.now() + PATIENCE;
  for (;;) {
    const seen = await look();
    if (seen) return seen;
    if (Date.now() > end) throw new Error(`${what} did not happen`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** The address that a gateway says it listens on. */
function address(child) {
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (status) => reject(new Error(`the gateway ended with ${status}`)));
    createInterface({ input: child.stdout }).on("line", (line) => {
      const found = line.match(/^listening on (http:\/\/\S+)/);
      if (found) resolve(found[1]);
    });
  });
}
