"use strict";
(() => {
  const at = (id) => document.getElementById(id);
  const parts = document.querySelectorAll("[data-on]");
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const events = location.pathname.replace(/\/+$/, "") + "/events";
  const LONGEST_PAUSE = 30000;

  let source;
  let pause = 2000;
  let over = false;
  let deadline = null;
  let running = null;

  // A text that stays the same is not set again, or a screen reader would say it again.
  const say = (id, text) => {
    if (at(id).textContent !== text) at(id).textContent = text;
  };

  const show = (state, title, text) => {
    document.body.dataset.state = state;
    // The attribute and not the property: a drawing has no such property.
    for (const part of parts) part.toggleAttribute("hidden", !part.dataset.on.split(" ").includes(state));
    say("title", title);
    say("text", text);
    if (state !== "qr") {
      deadline = null;
      at("image").removeAttribute("src");
    }
    if (state !== "code") say("code", "");
  };

  const finish = (state, title, text) => {
    over = true;
    source.close();
    say("lost", "");
    show(state, title, text);
    document.title = title;
    // The steps that somebody may have been reading are gone.
    at("title").focus();
  };

  const tick = () => {
    if (deadline === null) return;
    const left = deadline - Date.now();
    const seconds = Math.ceil(left / 1000);
    say("countdown", seconds > 0 ? `This code changes in ${seconds} s` : "Waiting for the next code");
    // The next code is on its way when the last one ends; one that stays away must not leave a code that does not work.
    at("tile").classList.toggle("stale", left < -1000);
  };

  const countDown = (left) => {
    // The wall clock, because it goes on while the device sleeps.
    deadline = Date.now() + left;
    if (running) running.cancel();
    if (!still.matches) {
      const steps = [{ transform: "scaleX(1)" }, { transform: "scaleX(0)" }];
      running = at("bar").animate(steps, { duration: left, fill: "forwards" });
    }
    tick();
  };

  const listen = (source) => {
    const on = (name, act) => source.addEventListener(name, (event) => act(JSON.parse(event.data)));
    on("waiting", () => show("waiting", "Getting a code", "It appears here in a moment."));
    on("qr", ({ image, expiresAt, now }) => {
      show("qr", "Scan this code", "Use the camera inside WhatsApp, as described here.");
      at("image").src = image;
      countDown(Math.max(0, expiresAt - now));
    });
    on("code", ({ code }) => {
      show("code", "Type this code", "Enter it in WhatsApp, as described here.");
      say("code", code);
    });
    on("passkey", () => show("passkey", "Confirm on your phone", "WhatsApp asks for your passkey. Follow what the phone says."));
    on("linked", ({ name }) =>
      finish("linked", "WhatsApp is linked", (name ? `The account is ${name}. ` : "") + "You can close this page."));
    on("dead", ({ title, text }) => finish("dead", title, text));
  };

  const open = () => {
    source = new EventSource(events);
    source.onopen = () => {
      pause = 2000;
      say("lost", "");
    };
    source.onerror = () => {
      if (over) return;
      say("lost", "Connection lost. Reconnecting.");
      // A stream that broke comes back by itself; one that was refused does not.
      if (source.readyState === EventSource.CLOSED) setTimeout(again, pause);
    };
    listen(source);
  };

  // A link that died meanwhile has a page of its own to say so; anything else may pass.
  const again = async () => {
    pause = Math.min(pause * 2, LONGEST_PAUSE);
    try {
      const { status } = await fetch(location.pathname, { cache: "no-store" });
      if (status === 404 || status === 410) return location.reload();
    } catch {
      // No answer at all: the next try may get one.
    }
    open();
  };

  setInterval(tick, 500);
  open();
})();
