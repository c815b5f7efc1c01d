// Opens temporary links as people do: on a phone and on a desktop, by day and by night.
//
// What is asserted is what a person can see or a browser complains about, never how the page is made.

import assert from "node:assert/strict";
import { join } from "node:path";

import jsqr from "jsqr";
import { chromium } from "playwright-core";
import { PNG } from "pngjs";

import { until } from "../clients/gateway.mjs";
import { browserProgram } from "./chromium.mjs";
import { gateway } from "./gateway.mjs";

const LOOKS = [
  { name: "phone-light", viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, colorScheme: "light" },
  { name: "phone-dark", viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, colorScheme: "dark" },
  { name: "small-phone", viewport: { width: 320, height: 568 }, deviceScaleFactor: 2, isMobile: true, colorScheme: "light" },
  { name: "desktop-light", viewport: { width: 1280, height: 800 }, colorScheme: "light" },
  { name: "desktop-dark", viewport: { width: 1280, height: 800 }, colorScheme: "dark", reducedMotion: "reduce" },
];

const CSP = {
  "default-src": "'none'",
  "img-src": "data:",
  "connect-src": "'self'",
  "base-uri": "'none'",
  "form-action": "'none'",
  "frame-ancestors": "'none'",
};

const directory = process.argv[2];
assert(directory, "usage: node temp_link.mjs DIRECTORY");

/** A page that is being watched. */
class Watched {
  static async open(browser, look, gateway, link) {
    const context = await browser.newContext(look);
    const watched = new Watched(look, await context.newPage());
    await watched.watch(new URL(gateway.base).origin);
    watched.answer = await watched.page.goto(link.url, { waitUntil: "domcontentloaded" });
    return watched;
  }

  constructor(look, page) {
    this.look = look;
    this.page = page;
    this.complaints = [];
  }

  async watch(origin) {
    const complain = (text) => this.complaints.push(text);
    this.page.on("pageerror", (error) => complain(`error: ${error.message}`));
    this.page.on("console", (message) => {
      // A browser writes down that the page of a dead link came with 404, which it should.
      const isDead = message.text().includes("status of 404") && message.location().url.includes("/temp-qr/");
      if (["error", "warning"].includes(message.type()) && !isDead) complain(`console: ${message.text()}`);
    });
    this.page.on("request", (request) => {
      const url = new URL(request.url());
      if (url.protocol !== "data:" && url.origin !== origin) complain(`a request to ${url.origin}`);
    });
    await this.page.exposeBinding("violated", (_source, what) => complain(`policy: ${what}`));
    await this.page.addInitScript(() => {
      const tell = (event) => globalThis.violated(`${event.violatedDirective} ${event.blockedURI}`);
      addEventListener("securitypolicyviolation", tell);
    });
  }

  /** What a phone reads from the screen. */
  async scanned() {
    const image = this.page.locator("#image");
    if (!(await image.isVisible())) return null;
    const { data, width, height } = PNG.sync.read(await image.screenshot());
    return jsqr(new Uint8ClampedArray(data), width, height)?.data ?? null;
  }

  async says(text) {
    await until(`"${text}" on ${this.look.name}`, async () => (await this.text()).includes(text));
  }

  async text() {
    return this.page.locator("main").innerText();
  }

  async picture(name) {
    assert.equal(await this.page.locator(".tile > :visible").count(), 1, "the place of the code shows one thing");
    await this.page.screenshot({ path: join(directory, `${name}-${this.look.name}.png`), fullPage: true });
  }

  /** Nothing is cut off, whatever is shown. */
  async fits() {
    const [wide, room] = await this.page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert(wide <= room, `${this.look.name} is ${wide} wide and has room for ${room}`);
  }

  async close() {
    await this.page.context().close();
    assert.deepEqual(this.complaints, [], `${this.look.name} has complaints`);
  }
}

/** Opens a link in every look, does something with the pages, and sees that no browser complained. */
async function inEveryLook(browser, gateway, link, act) {
  const pages = await Promise.all(LOOKS.map((look) => Watched.open(browser, look, gateway, link)));
  await act(pages);
  for (const page of pages) await page.close();
}

async function shows(pages, text) {
  for (const page of pages) {
    await until(`the code of the session on ${page.look.name}`, async () => (await page.scanned()) === (await text()));
  }
}

const steps = {
  async "the page shows the code of its session, follows it, and says when it is linked"(browser, gateway) {
    const session = await gateway.session();
    await gateway.qr(session);
    const link = await gateway.newLink(session);
    assert.match(link.token, /^[0-9a-f]{64}$/);
    assert(Date.parse(link.end) > Date.now(), `the link ends at ${link.end}`);

    await inEveryLook(browser, gateway, link, async (pages) => {
      for (const page of pages) assertHeaders(page.answer);
      await shows(pages, () => gateway.qr(session));
      for (const page of pages) {
        await page.says("Scan this code");
        await page.says("Linked devices");
        await page.fits();
        await seen(page);
        await silent(page, gateway, link);
        await page.picture("qr");
      }

      const first = await gateway.qr(session);
      await gateway.stop(session);
      assert.notEqual(await gateway.qr(session), first, "linking anew gives a new code");
      await shows(pages, () => gateway.qr(session));

      await gateway.scan(session);
      for (const page of pages) {
        await page.says("WhatsApp is linked");
        assert.equal(await page.page.locator("#image").isVisible(), false, "the code stays when it is used");
        assert.equal(await page.page.evaluate(() => document.activeElement?.id), "title", "the news has the focus");
        await page.fits();
        await page.picture("linked");
      }
    });
  },

  async "the page shows a code to type when one was asked for"(browser, gateway) {
    const session = await gateway.session(false);
    const code = await gateway.pairingCode(session);
    const link = await gateway.newLink(session);
    await inEveryLook(browser, gateway, link, async (pages) => {
      for (const page of pages) {
        await page.says(code);
        await page.says("Link with phone number instead");
        await page.fits();
        await page.picture("code");
      }
    });
  },

  async "a link that is revoked says so to those who look, and to those who come later"(browser, gateway) {
    const session = await gateway.session();
    const link = await gateway.newLink(session);
    await inEveryLook(browser, gateway, link, async (pages) => {
      await shows(pages, () => gateway.qr(session));
      await gateway.revoke(session);
      for (const page of pages) {
        await page.says("Ask whoever sent it for a new one");
        assert.equal(await page.page.locator("#image:visible").count(), 0, "a dead link shows no code");
        await page.picture("revoked");
      }
    });
    await isDead(browser, gateway, link, "revoked-later");
  },

  async "a new link ends the one before"(browser, gateway) {
    const session = await gateway.session();
    const [old, link] = [await gateway.newLink(session), await gateway.newLink(session)];
    assert.notEqual(old.token, link.token);
    await isDead(browser, gateway, old, "replaced");
    await inEveryLook(browser, gateway, link, (pages) => shows(pages, () => gateway.qr(session)));
  },

  async "a link that never was is dead"(browser, gateway) {
    await isDead(browser, gateway, { url: `${gateway.base}/temp-qr/${"0".repeat(64)}` }, "unknown");
  },
};

async function isDead(browser, gateway, link, name) {
  await inEveryLook(browser, gateway, link, async (pages) => {
    for (const page of pages) {
      assert([404, 410].includes(page.answer.status()), `a dead link is answered with ${page.answer.status()}`);
      await page.says("Ask whoever sent it for a new one");
      await page.fits();
      await page.picture(name);
    }
  });
}

function assertHeaders(answer) {
  const headers = answer.headers();
  assert.equal(answer.status(), 200);
  assert.match(headers["content-type"], /^text\/html/);
  assert.equal(headers["referrer-policy"], "no-referrer");
  assert.equal(headers["x-content-type-options"], "nosniff");
  assert.equal(headers["cache-control"], "no-store");
  assert.match(headers["x-robots-tag"], /noindex/);
  const policy = headers["content-security-policy"].split(";").map((part) => part.trim().split(/\s+/));
  const directives = Object.fromEntries(policy.map(([name, ...values]) => [name, values.join(" ")]));
  for (const [name, value] of Object.entries(CSP)) assert.equal(directives[name], value, name);
  for (const name of ["script-src", "style-src"]) assert.match(directives[name], /^'nonce-[A-Za-z0-9+/=_-]{16,}'$/);
}

/** The whole code is on the first screen, has a text for those who do not see it, and is as large as a camera needs. */
async function seen(page) {
  const image = page.page.locator("#image");
  const box = await image.boundingBox();
  const { width, height } = page.look.viewport;
  assert(box.x >= 0 && box.y >= 0 && box.x + box.width <= width && box.y + box.height <= height, "the code is cut off");
  assert(box.width >= 240, `the code is ${box.width} wide`);
  assert((await image.getAttribute("alt")).length > 0);
  assert.equal(await page.page.getByRole("status").count(), 1);
  await until("a countdown", async () => /\d+ s/.test(await page.page.getByRole("timer").innerText()));
}

/** Nobody learns a key or a token from what the page holds. */
async function silent(page, gateway, link) {
  const content = await page.page.content();
  for (const secret of [gateway.key, link.token]) assert(!content.includes(secret), "the page holds a credential");
}

const looked = await gateway();
let failed = 0;
try {
  const browser = await chromium.launch({ executablePath: browserProgram() });
  for (const [name, step] of Object.entries(steps)) {
    try {
      await step(browser, looked);
      console.log(`ok      ${name}`);
    } catch (error) {
      failed += 1;
      console.error(`FAILED  ${name}\n${error.stack}`);
    }
  }
  await browser.close();
} finally {
  await looked.close();
}
console.log(failed ? `${failed} of ${Object.keys(steps).length} failed` : `all passed; the screenshots are in ${directory}`);
process.exitCode = failed ? 1 : 0;
