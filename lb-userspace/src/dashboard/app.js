// The page: which view is shown, when lb is asked, and what is said when it does not answer.

import { NeedsToken, Refused, setToken } from "./api.js";
import { attribute, byId, h, reconcile, show, text } from "./dom.js";
import { clock, duration, plural } from "./format.js";
import * as keys from "./keys.js";
import { refresh, store } from "./store.js";
import * as backendView from "./views/backend.js";
import * as eventsView from "./views/events.js";
import * as nodeView from "./views/node.js";
import { backendLink, serviceLink } from "./views/parts.js";
import * as serviceView from "./views/service.js";
import * as servicesView from "./views/services.js";

const dialog = byId("dialog");
const main = byId("main");
let view = null;
let why = null;
let timer = null;
let asking = false;
let strip = null;
let wrongToken = false;

// Asking

async function tick() {
  clearTimeout(timer);
  if (asking) return;
  asking = true;
  try {
    await refresh();
    draw();
    announce(store.fresh);
    wrongToken = false;
    await askWhy();
  } catch (error) {
    if (error instanceof NeedsToken) {
      askToken();
      asking = false;
      return; // goes on with the token
    }
    store.failed = explain(error);
  }
  asking = false;
  drawAge();
  if (!document.hidden) timer = setTimeout(tick, (store.failed === null ? store.every : 1) * 1000);
}

/// Reasons are asked for only where they are shown.
async function askWhy() {
  const shown = view;
  if (!shown?.why) return;
  try {
    why = await shown.why();
  } catch (error) {
    if (!(error instanceof Refused)) throw error; // a service that is gone is no fault
    why = null;
  }
  if (view === shown) shown.update(why);
}

function explain(error) {
  if (error instanceof Refused) return error.message;
  if (error instanceof NeedsToken) return "the token is no longer the right one";
  return error.name === "TimeoutError" ? "no answer within 5 s" : "no connection";
}

// Drawing

function draw() {
  byId("loading")?.remove();
  strip ??= nodeStrip();
  strip.draw();
  if (view === null) route();
  else view.update(why);
  show(byId("mode"), store.session.write);
  drawTitle();
}

/// What every view says about the node.
function nodeStrip() {
  const facts = h("span", { class: "node-facts" });
  const nics = h("span", { class: "node-nics" });
  const attention = h("a", { class: "attention", href: "#/node", hidden: true });
  main.before(h("div", { class: "strip", role: "region", "aria-label": "Node" }, facts, nics, attention));
  return {
    draw() {
      const { status } = store;
      const parts = [`lb ${status.version}`, `up ${duration(status.uptime_seconds)}`, `revision ${status.revision}`, status.config];
      reconcile(facts, parts.map((part, index) => ({ part, index })), (one) => one.index, () => h("span"), (span, one) => text(span, one.part));
      const nic = (chip, one) => {
        attribute(chip, "data-kind", one.mode === "native" && one.link === "up" ? "up" : one.mode === "detached" || one.link !== "up" ? "down" : "falling");
        text(chip, `${one.name} ${one.link === "up" ? one.mode : `link ${one.link}`}`);
      };
      reconcile(nics, status.interfaces, (one) => one.name, () => h("span", { class: "chip" }), nic);
      const faults = [];
      if (status.config_error !== null) faults.push("the configuration file is not in force");
      if (status.starting) faults.push("starting: first checks are awaited");
      if (status.warnings.length) faults.push(plural(status.warnings.length, "warning"));
      show(attention, faults.length > 0);
      text(attention, faults.join(", "));
    },
  };
}

function drawTitle() {
  const down = [...store.services.values()].reduce((sum, service) => sum + service.down, 0);
  document.title = `${down ? `▼ ${down} down · ` : ""}${view ? `${view.title} · ` : ""}lb`;
}

/// Whether what is shown is what is.
function drawAge() {
  const away = byId("away");
  const stale = store.failed !== null;
  document.body.classList.toggle("stale", stale && store.seen > 0);
  attribute(byId("live"), "data-kind", stale ? "down" : "up");
  const age = Math.round((Date.now() - store.seen) / 1000);
  text(byId("live-text"), stale ? (store.seen ? `stale ${duration(age)}` : "away") : "live");
  show(away, stale);
  if (!stale) return text(away, "");
  const shown = store.seen ? `What you see is from ${clock(store.seen)}, ${duration(age)} ago` : "Nothing is known yet";
  text(away, `lb does not answer: ${store.failed}. ${shown}. Asking again …`);
}

/// A change while the page is open: said aloud, and shown for some seconds.
function announce(events) {
  const worth = events.filter((event) => ["backend_down", "backend_up", "service_down", "service_up", "service_mode", "config_refused"].includes(event.kind));
  for (const event of worth.slice(-4)) {
    const where = event.service ? (event.backend ? backendLink(event.service, event.backend) : serviceLink(event.service)) : "#/events";
    const kind = event.kind.endsWith("_up") ? "up" : "down";
    const toast = h("a", { class: "toast", href: where, "data-kind": kind }, h("b", null, event.text), event.cause ? h("span", null, event.cause) : null);
    byId("toasts").append(toast);
    setTimeout(() => toast.remove(), 10_000);
  }
  while (byId("toasts").children.length > 4) byId("toasts").firstElementChild.remove();
}

// Views

function route() {
  if (store.status === null) return;
  let parts;
  try {
    parts = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  } catch {
    parts = [""]; // a broken link leads home
  }
  const [where, first, second] = parts;
  view?.destroy?.();
  why = null;
  if (where === "service" && second) view = backendView.create(first, second, { refresh: tick, explain, confirm });
  else if (where === "service" && first) view = serviceView.create(first);
  else if (where === "events") view = eventsView.create();
  else if (where === "node") view = nodeView.create();
  else view = servicesView.create();
  main.replaceChildren(view.element);
  const tab = ["events", "node"].includes(where) ? where : "services";
  for (const link of document.querySelectorAll("[data-view]")) {
    attribute(link, "aria-current", link.dataset.view === tab ? "page" : null);
  }
  scrollTo(0, 0);
  view.update(why);
  drawTitle();
  // A wrong token or a daemon that is away is noticed by the next tick.
  askWhy().catch(() => {});
}

addEventListener("hashchange", () => {
  route();
  main.focus({ preventScroll: true });
});

// Dialogs

function openDialog(title, content, ...buttons) {
  dialog.replaceChildren(h("h2", { id: "dialog-title" }, title), content, h("div", { class: "buttons" }, ...buttons));
  if (!dialog.open) dialog.showModal();
}

function closeDialog() {
  dialog.close();
}

function showHelp() {
  openDialog("Keyboard", keys.help(), h("button", { type: "button", onclick: closeDialog }, "Close"));
}

function confirm(title, question, yes, action) {
  const accept = h("button", { type: "button", class: "danger", onclick: () => { closeDialog(); action(); } }, yes);
  openDialog(title, h("p", null, question), h("button", { type: "button", onclick: closeDialog, autofocus: true }, "Cancel"), accept);
}

function askToken() {
  if (dialog.open && dialog.querySelector("#token")) return;
  setToken(null);
  const field = h("input", { type: "password", id: "token", autocomplete: "off", required: true, autofocus: true });
  const message = h("p", { class: "wrong", role: "alert" }, wrongToken ? "That is not the token." : "");
  const form = h("form", { id: "token-form" }, h("label", { for: "token" }, "The content of the file ", h("code", null, "dashboard.token_file"), ". It is kept for this tab only."), field, message);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    setToken(field.value.trim());
    wrongToken = true;
    closeDialog();
    tick();
  });
  openDialog("Token", form, h("button", { type: "submit", form: "token-form" }, "Look"));
  text(byId("live-text"), "locked");
  field.focus();
}

// Without the token there is nothing to look at.
dialog.addEventListener("cancel", (event) => {
  if (dialog.querySelector("#token")) event.preventDefault();
});

// Colours

const THEMES = { system: "◐", light: "☀", dark: "☾" };

function setTheme(name) {
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  localStorage.setItem("lb.theme", name);
  text(byId("theme"), THEMES[name]);
  attribute(byId("theme"), "aria-label", `Colours: ${name}`);
  attribute(byId("theme"), "title", `Colours: ${name} (t)`);
}

function nextTheme() {
  const names = Object.keys(THEMES);
  const now = document.documentElement.dataset.theme ?? "system";
  setTheme(names[(names.indexOf(now) + 1) % names.length]);
}

const chosen = localStorage.getItem("lb.theme");
setTheme(chosen in THEMES ? chosen : "system");

// Beginning

byId("theme").addEventListener("click", nextTheme);
byId("help").addEventListener("click", showHelp);
byId("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the hash names the view
  main.focus();
});
keys.listen({
  back: () => view?.parent && (location.hash = view.parent),
  filter: () => view?.filter?.focus(),
  go: (hash) => (location.hash = hash),
  theme: nextTheme,
  help: showHelp,
  grid: () => view?.grid,
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) tick();
});
setInterval(() => store.failed !== null && drawAge(), 1000);
tick();
