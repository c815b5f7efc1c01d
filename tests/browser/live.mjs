// Listens to events as a page does: with a ticket, because neither EventSource nor WebSocket sends a header.

import assert from "node:assert/strict";

import { chromium } from "playwright-core";

import { until } from "../clients/gateway.mjs";
import { browserProgram } from "./chromium.mjs";
import { gateway } from "./gateway.mjs";

/** Opens an EventSource in a page. What it hears, and when it fails, is kept in the page. */
const listen = (page, address) =>
  page.evaluate((address) => {
    globalThis.heard = [];
    globalThis.last = "";
    globalThis.source = new EventSource(address);
    for (const name of ["connected", "session.created", "session.labels", "end"]) {
      globalThis.source.addEventListener(name, (event) => {
        globalThis.last = event.lastEventId;
        globalThis.heard.push({ name, data: JSON.parse(event.data) });
      });
    }
    globalThis.source.onerror = () => globalThis.heard.push({ name: "error", state: globalThis.source.readyState });
  }, address);

/** The names that the page has heard, once it has heard so many. */
async function heard(page, count) {
  await until(`${count} events in the page`, () => page.evaluate((count) => globalThis.heard.length >= count, count));
  return page.evaluate(() => globalThis.heard);
}

const names = (events) => events.map((event) => event.name);

const steps = {
  async "a page hears events by an EventSource with a ticket, and goes on with another ticket"(page, gateway) {
    const ticket = async () => (await gateway.ask("POST", "/api/v1/realtime/ticket", {})).ticket;
    const first = await ticket();
    await listen(page, `/api/v1/events?ticket=${first}`);
    await heard(page, 1);
    const session = await gateway.session(false);
    const events = await heard(page, 2);
    assert.deepEqual(names(events), ["connected", "session.created"]);
    assert.equal(events[1].data.session, session.id);
    const last = await page.evaluate(() => (globalThis.source.close(), globalThis.last));
    await gateway.ask("PUT", `${session.path}/labels`, { missed: "no" });

    // A browser does not come back to an address that was refused.
    await listen(page, `/api/v1/events?ticket=${first}&since=${last}`);
    assert.deepEqual(await heard(page, 1), [{ name: "error", state: 2 }]);
    await listen(page, `/api/v1/events?ticket=${await ticket()}&since=${last}`);
    assert.deepEqual(names(await heard(page, 2)), ["connected", "session.labels"]);
    await page.evaluate(() => globalThis.source.close());
  },

  async "a page hears events through a WebSocket"(page, gateway) {
    const { ticket } = await gateway.ask("POST", "/api/v1/realtime/ticket", { events: ["session.created"] });
    await page.evaluate((ticket) => {
      globalThis.heard = [];
      const address = `${location.origin.replace(/^http/, "ws")}/api/v1/realtime?ticket=${ticket}`;
      globalThis.socket = new WebSocket(address);
      globalThis.socket.onmessage = (message) => globalThis.heard.push(JSON.parse(message.data));
    }, ticket);
    await heard(page, 1);
    const session = await gateway.session(false);
    const [connected, created] = await heard(page, 2);
    assert.equal(connected.event, "connected");
    assert.deepEqual([created.event, created.session], ["session.created", session.id]);
  },
};

const listened = await gateway();
let failed = 0;
try {
  const browser = await chromium.launch({ executablePath: browserProgram() });
  for (const [name, step] of Object.entries(steps)) {
    const page = await browser.newPage();
    try {
      await page.goto(`${listened.base}/healthz`);
      await step(page, listened);
      console.log(`ok      ${name}`);
    } catch (error) {
      failed += 1;
      console.error(`FAILED  ${name}\n${error.stack}`);
    }
    await page.close();
  }
  await browser.close();
} finally {
  await listened.close();
}
console.log(failed ? `${failed} of ${Object.keys(steps).length} failed` : "all passed");
process.exitCode = failed ? 1 : 0;
