// The gateway that is looked at: one that runs already, or one that is started here.

import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

/** How long anything may take that is sure to come. No machine is as slow as that. */
const PATIENCE = 30000;

/** A gateway and a key of one organisation. `close` ends what was started here. */
export async function gateway() {
  const { PORTCULLIS_URL: url, PORTCULLIS_KEY: key, PORTCULLIS: program } = process.env;
  if (url) return { ...client(new URL(url).origin, key), close: async () => {} };

  const home = await mkdtemp(join(tmpdir(), "portcullis-browser-"));
  const data = join(home, "data");
  const serve = ["serve", "--data-dir", data, "--listen", "127.0.0.1:0", "--engine", "simulated"];
  const child = spawn(program, serve, { stdio: ["ignore", "pipe", "inherit"], env: { ...process.env, RUST_LOG: "warn" } });
  const ended = new Promise((resolve) => child.once("close", resolve));
  const close = async () => {
    child.kill("SIGTERM");
    await ended;
    await rm(home, { recursive: true, force: true });
  };
  try {
    const base = await address(child);
    const operator = client(base, (await readFile(join(data, "operator-key"), "utf8")).trim());
    const org = await operator.ask("POST", "/api/v1/orgs", { name: "Browser" });
    const made = await operator.ask("POST", `/api/v1/orgs/${org.id}/keys`, { name: "browser", capabilities: ["read", "manage"] });
    return { ...client(base, made.key), close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Looks again and again until `look` gives something, and says what did not happen otherwise. */
export async function until(what, look) {
  const end = Date.now() + PATIENCE;
  for (;;) {
    const seen = await look();
    if (seen) return seen;
    if (Date.now() > end) throw new Error(`${what} did not happen`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** The address that a gateway says it listens on. */
async function address(child) {
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (status) => reject(new Error(`the gateway ended with ${status}`)));
    createInterface({ input: child.stdout }).on("line", (line) => {
      const found = line.match(/^listening on (http:\/\/\S+)/);
      if (found) resolve(found[1]);
    });
  });
}

function client(base, key) {
  const ask = async (method, path, body) => {
    const headers = { "x-api-key": key };
    if (body !== undefined) headers["content-type"] = "application/json";
    const response = await fetch(base + path, { method, headers, body: body && JSON.stringify(body) });
    const text = await response.text();
    if (!response.ok) throw new Refused(`${method} ${path.split("?")[0]}: ${response.status} ${text}`, response.status);
    return text ? JSON.parse(text) : null;
  };

  /** A session that is not linked, and its names. One that shows QR codes already gives no code to type. */
  const session = async (start = true) => {
    const made = await ask("POST", "/api/v1/sessions", { label: "Browser test", start });
    // A gateway that does not tell the Wawp name here takes its own for it.
    return { id: made.id, instance: made.instanceId ?? made.id, path: `/api/v1/sessions/${made.id}` };
  };

  /** The text of the QR code at this moment; asking for it begins linking. */
  const qr = (session) =>
    until("a QR code", async () => {
      try {
        return (await ask("GET", `${session.path}/qr`)).code;
      } catch (error) {
        if (error.status === 404) return null;
        throw error;
      }
    });

  /** Asks the Wawp dialect about the temporary link of a session. */
  const link = (method, session) => {
    const query = new URLSearchParams({ instance_id: session.instance, access_token: key });
    return ask(method, `/v2/session/temp-link?${query}`);
  };

  /** A new temporary link, seen from here: its public address may be another one. */
  const newLink = async (session) => {
    const { link: url, token, expires_at: end } = await link("POST", session);
    return { url: base + new URL(url, base).pathname, token, end };
  };

  const scan = (session) => ask("POST", `${session.path}/simulator:scan`);
  const stop = (session) => ask("POST", `${session.path}:stop`);
  const pairingCode = async (session) => (await ask("POST", `${session.path}/pairing-code`, { phone: "628123456789" })).code;
  const revoke = (session) => link("DELETE", session);

  return { base, key, ask, session, qr, newLink, scan, stop, pairingCode, revoke };
}

class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}
