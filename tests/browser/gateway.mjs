// The gateway that is looked at, one that runs already or one that is started here, and what is done to its sessions.

import { client, start, until } from "../clients/gateway.mjs";

/** A gateway and a key of one organisation. `close` ends what was started here. */
export async function gateway() {
  const { PORTCULLIS_URL: url, PORTCULLIS_KEY: key, PORTCULLIS: program } = process.env;
  if (!url) {
    const started = await start(program, "browser", ["read", "manage", "events"]);
    return { ...sessions(started), close: started.close };
  }
  const base = new URL(url).origin;
  return { ...sessions({ base, key, ask: client(base, key) }), close: async () => {} };
}

function sessions({ base, key, ask }) {
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
