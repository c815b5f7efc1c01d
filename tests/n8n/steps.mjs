// The steps: what the node is told to do, and then, asked in the gateway's native dialect, whether it was done.

import assert from "node:assert/strict";

import { start, until } from "../clients/gateway.mjs";
import { run } from "./workflow.mjs";

const gateway = await start(process.env.PORTCULLIS, "n8n", ["read", "send", "manage"]);
const global = { "server-url": gateway.base, apikey: gateway.key };
const { ask } = gateway;

/** The sessions by the names of their instances. */
const sessions = {};
let failed = 0;
let done = 0;

/** One step. A step that fails is told, and those that rest on it fail as well. */
async function step(what, act) {
  try {
    await act();
    console.log(`ok    ${what}`);
  } catch (error) {
    failed += 1;
    const why = [error.message, error.description].filter(Boolean).join(": ");
    console.log(`FAIL  ${what}\n      ${why.replaceAll("\n", "\n      ")}`);
  }
  done += 1;
}

const path = (instance) => `/api/v1/sessions/${sessions[instance]}`;
const session = (instance) => ask("GET", path(instance));
const reaches = (instance, status) =>
  until(`${instance} is ${status}`, async () => (await session(instance)).status === status);
const newest = async () => (await ask("GET", "/api/v1/sessions?limit=1")).data[0];
const webhooks = async (instance) =>
  (await ask("GET", "/api/v1/webhooks")).data.filter((webhook) => webhook.sessionId === sessions[instance]);
const used = async (instance) => (await ask("GET", `${path(instance)}/rate-policy`)).used.today;

/** Runs an operation that has to fail; what it fails with. */
async function refused(...operation) {
  const error = await run(...operation).then(
    (data) => assert.fail(`it was done: ${JSON.stringify(data)}`),
    (error) => error,
  );
  return `${error.message} ${error.description}`;
}

const instance = (operation, name, parameters) =>
  run(global, "instances-api", operation, { instanceName: name, ...parameters });
const settings = { rejectCall: true, msgCall: "later", groupsIgnore: true, alwaysOnline: true, readMessages: true, syncFullHistory: false, readStatus: true };
const basic = { token: "", number: "" };

await step("create an instance", async () => {
  const made = await instance("instance-basic", "plain", basic);
  assert.equal(made.instance.instanceName, "plain");
  assert.match(made.hash, /^[0-9A-F-]{36}$/);
  const found = await newest();
  sessions.plain = found.id;
  assert.equal(found.status, "stopped");
  assert.equal(found.autoRead, false);
});

await step("create an instance with a token, settings, a proxy and a webhook", async () => {
  const made = await instance("instance-basic", "full", {
    token: "the-token-of-full-1",
    number: "628123456789",
    options_Create_instance: {
      instanceSettings: { settings: { ...settings } },
      proxy: { proxySettings: { proxyHost: "proxy.example.com", proxyPort: 8080, proxyProtocol: "http" } },
      webhook: { webhookSettings: { webhookUrl: "https://example.com/hook", webhookByEvents: true, webhookEvents: ["CONNECTION_UPDATE"] } },
    },
  });
  assert.equal(made.hash, "the-token-of-full-1");
  assert.equal(made.webhook.webhookUrl, "https://example.com/hook");
  const found = await newest();
  sessions.full = found.id;
  assert.equal(found.autoRead, true);
  const [webhook, ...more] = await webhooks("full");
  assert.equal(more.length, 0);
  assert.equal(webhook.url, "https://example.com/hook");
  assert.deepEqual(webhook.events, ["CONNECTION_UPDATE"]);
  assert.equal(webhook.active, true);
});

await step("refuse a name that is taken", async () => {
  const why = await refused(global, "instances-api", "instance-basic", { instanceName: "plain", ...basic });
  assert.match(why, /403.*already in use/);
  assert.equal((await ask("GET", "/api/v1/sessions")).data.length, 2);
});

await step("list instances", async () => {
  const rows = await instance("fetch-instances", "");
  const known = rows.map((row) => [row.name, row.connectionStatus]);
  assert.deepEqual(known, [["full", "close"], ["plain", "close"]]);
  const [one, ...others] = await instance("fetch-instances", "full");
  assert.equal(others.length, 0);
  assert.equal(one.number, "628123456789");
  assert.equal(one.Setting.rejectCall, true);
  assert.equal(one.Proxy.host, "proxy.example.com");
});

await step("list what the token of an instance opens", async () => {
  const own = { ...global, apikey: "the-token-of-full-1" };
  const rows = await run(own, "instances-api", "fetch-instances", { instanceName: "" });
  assert.deepEqual(rows.map((row) => row.name), ["full"]);
  assert.match(await refused(own, "instances-api", "delete-instance", { instanceName: "plain" }), /401/);
});

await step("refuse what is not there, and who is not known", async () => {
  assert.match(await refused(global, "instances-api", "instance-connect", { instanceName: "nobody" }), /404.*does not exist/);
  const stranger = { ...global, apikey: "garbage" };
  assert.match(await refused(stranger, "instances-api", "fetch-instances", { instanceName: "" }), /401.*Unauthorized/);
});

await step("connect an instance", async () => {
  const shown = await instance("instance-connect", "plain");
  assert.match(shown.code, /^2@/);
  assert.match(shown.base64, /^data:image\/png;base64,iVBOR/);
  assert.equal(shown.count, 1);
  assert.equal((await session("plain")).status, "scan_qr_code");
  assert.equal((await ask("GET", `${path("plain")}/qr`)).code, shown.code);
});

await step("restart an instance that is not linked", async () => {
  const before = await session("plain");
  const shown = await instance("restart-instance", "plain");
  assert.match(shown.code, /^2@/);
  const after = await session("plain");
  assert.equal(after.status, "scan_qr_code");
  assert.ok(after.generation > before.generation);
});

await step("find an instance open once its code is scanned", async () => {
  await ask("POST", `${path("plain")}/simulator:scan`, { phone: "628123456789" });
  await reaches("plain", "working");
  const [row] = await instance("fetch-instances", "plain");
  assert.equal(row.connectionStatus, "open");
  assert.equal(row.ownerJid, (await session("plain")).waJid);
  const shown = await instance("instance-connect", "plain");
  assert.deepEqual(shown, { instance: { instanceName: "plain", state: "open" } });
});

await step("set the presence of an instance", async () => {
  assert.deepEqual(await instance("set-presence", "plain", { presence: "unavailable" }), { presence: "unavailable" });
  assert.equal((await session("plain")).status, "working");
  assert.match(await refused(global, "instances-api", "set-presence", { instanceName: "full", presence: "available" }), /Connection Closed/);
});

await step("send a text", async () => {
  const before = await used("plain");
  const options = {
    linkPreview: false,
    quoted: { messageQuoted: { messageId: "3EB0" } },
    mentions: { mentionsSettings: { mentioned: "628987654321, 628987654322" } },
  };
  const message = { instanceName: "plain", remoteJid: "+62 855-1234", messageText: "hello", options_message: options };
  const sent = await run(global, "messages-api", "send-text", message);
  assert.equal(sent.key.remoteJid, "628551234@s.whatsapp.net");
  assert.equal(sent.message.conversation, "hello");
  assert.equal(await used("plain"), before + 1);
});

await step("refuse a text to nobody", async () => {
  const message = { instanceName: "plain", remoteJid: "628120000", messageText: "hello" };
  const why = await refused(global, "messages-api", "send-text", message);
  assert.match(why, /400.*"exists":false/);
});

await step("check numbers", async () => {
  const rows = await run(global, "chat-api", "check-number", { instanceName: "plain", numbers: "628551234, 628120000" });
  assert.deepEqual(rows.map((row) => row.exists), [true, false]);
});

await step("show presence in a chat", async () => {
  const chat = { instanceName: "plain", remoteJid: "628551234", presence: "composing", delay: 1 };
  assert.deepEqual(await run(global, "chat-api", "send-presence", chat), { presence: "composing" });
});

await step("set the settings of an instance", async () => {
  const set = await instance("instance-settings", "plain", settings);
  assert.deepEqual(set.settings.settings, { ...settings, wavoipToken: "" });
  assert.equal((await session("plain")).autoRead, true);
  await instance("instance-settings", "plain", { ...settings, readMessages: false });
  assert.equal((await session("plain")).autoRead, false);
});

const webhook = (name, parameters) => run(global, "events-api", "webhook", { instanceName: name, ...parameters });

await step("set and find the webhook of an instance", async () => {
  assert.equal(await webhook("plain", { resourceForWebhook: "findWebhook" }), null);
  const all = { resourceForWebhook: "setWebhook", enabled: true, webhookUrl: "https://example.com/n8n", webhookByEvents: true, webhookBase64: true, webhookEvents: [] };
  const set = await webhook("plain", all);
  assert.equal(set.events.length, 31);
  assert.equal(set.webhookByEvents && set.webhookBase64, true);
  const [known] = await webhooks("plain");
  assert.equal(known.url, "https://example.com/n8n");
  assert.equal(known.id, set.id);
  assert.deepEqual(await webhook("plain", { resourceForWebhook: "findWebhook" }), set);
  const off = await webhook("plain", { ...all, enabled: false, webhookUrl: "" });
  assert.equal(off.enabled, false);
  assert.deepEqual((await webhooks("plain")).map((webhook) => webhook.active), [false]);
});

const proxy = (name, parameters) => instance("set-proxy", name, parameters);

await step("set and find the proxy of an instance", async () => {
  assert.equal(await proxy("plain", { resourceForProxy: "findProxy" }), null);
  const before = await session("plain");
  const one = { enabled: true, proxyHost: "proxy.example.com", proxyPort: "8080", proxyProtocol: "socks5", proxyUsername: "u", proxyPassword: "p" };
  await proxy("plain", { resourceForProxy: "setProxy", ...one });
  const found = await proxy("plain", { resourceForProxy: "findProxy" });
  assert.deepEqual(found, { enabled: true, host: "proxy.example.com", port: "8080", protocol: "socks5", username: "u", password: "p" });
  assert.ok((await session("plain")).generation > before.generation);
  const none = { enabled: false, proxyHost: "", proxyPort: "", proxyProtocol: "", proxyUsername: "", proxyPassword: "" };
  await proxy("plain", { resourceForProxy: "setProxy", ...none });
  assert.equal(await proxy("plain", { resourceForProxy: "findProxy" }), null);
});

await step("restart an instance that is linked", async () => {
  const shown = await instance("restart-instance", "plain");
  assert.equal(shown.instance.instanceName, "plain");
  await reaches("plain", "working");
});

await step("log an instance out", async () => {
  await instance("logout-instance", "plain");
  assert.equal((await session("plain")).status, "logged_out");
  assert.match(await refused(global, "instances-api", "logout-instance", { instanceName: "plain" }), /400.*is not connected/);
});

await step("say that a closed instance cannot be restarted", async () => {
  const said = await instance("restart-instance", "plain");
  assert.equal(said.error, true);
  assert.equal((await session("plain")).status, "logged_out");
});

for (const name of ["plain", "full"]) {
  await step(`delete the instance ${name}`, async () => {
    await instance("delete-instance", name);
    await assert.rejects(session(name), { status: 404 });
    assert.match(await refused(global, "instances-api", "delete-instance", { instanceName: name }), /404/);
  });
}

await gateway.close();
console.log(`${done - failed} of ${done} steps went well`);
process.exitCode = failed === 0 ? 0 : 1;
