// What several views show: states, numbers with a line, lists of events and of dropped packets.

import { sparkline } from "../chart.js";
import { attribute, h, reconcile, show, text } from "../dom.js";
import { clock, count, day, duration, plural } from "../format.js";
import { store } from "../store.js";

/// Signs beside the words, so that colour is never the only difference.
const SIGNS = { up: "●", falling: "◐", rising: "◔", down: "▼", drain: "◇", maint: "■", removed: "✕" };

/// A state in its colour, with its sign. draw(kind, word)
export function badge() {
  const sign = h("i", { "aria-hidden": "true" });
  const word = h("span");
  const element = h("span", { class: "badge" }, sign, word);
  return {
    element,
    draw(kind, label) {
      attribute(element, "data-kind", kind);
      text(sign, SIGNS[kind]);
      text(word, label);
    },
  };
}

/// What the badge of a backend says.
export function backendLabel({ kind, status }) {
  if (kind === "maint" || kind === "drain" || kind === "removed") return kind.toUpperCase();
  return status.state === "NOLB" ? "no check" : status.state;
}

export function serviceLabel({ status, usable }) {
  if (status.state === "UP" && usable < status.backends.length) return "UP";
  return status.state === "FAIL-OPEN" ? "fail open" : status.state === "UNDER-QUORUM" ? "under quorum" : status.state;
}

/// A number with its line. draw(value, history)
export function tile(label, hint) {
  const value = h("b");
  const line = sparkline(60, 160, 30);
  const element = h("div", { class: "tile", title: hint }, h("span", { class: "label" }, label), value, line.element);
  return {
    element,
    draw(shown, history) {
      text(value, shown);
      line.draw(history);
    },
  };
}

/// A cell with a number and its line.
export function lineCell(value, history) {
  const number = h("span", { class: "number" });
  const line = sparkline();
  return {
    element: h("span", { class: "with-line" }, line.element, number),
    draw(item) {
      text(number, value(item));
      line.draw(history(item));
    },
  };
}

/// A heading with a field to filter by.
export function heading(title, label, changed) {
  const number = h("span", { class: "count" });
  const field = h("input", { type: "search", placeholder: label, "aria-label": label, autocomplete: "off", spellcheck: "false" });
  field.addEventListener("input", () => changed(field.value));
  const element = h("div", { class: "heading" }, h("h2", null, title, " ", number), h("span", { class: "grow" }), field);
  return { element, field, count: (shown) => text(number, shown) };
}

const ALARMS = { backend_down: "down", service_down: "down", config_refused: "down", backend_up: "up", service_up: "up", service_mode: "falling", admin: "maint", weight: "maint" };

/// Events, the newest first. draw(list)
export function eventList(empty) {
  const list = h("ol", { class: "events" });
  const none = h("p", { class: "none" }, empty);
  const create = (event) => {
    const about = event.service
      ? h("a", { href: event.backend ? backendLink(event.service, event.backend) : serviceLink(event.service) }, event.backend ? `${event.service}/${event.backend}` : event.service)
      : h("span", { class: "quiet" }, "node");
    const time = h("time", { datetime: new Date(event.unix_milliseconds).toISOString(), title: day(event.unix_milliseconds) }, clock(event.unix_milliseconds));
    if (day(event.unix_milliseconds) !== day(Date.now())) time.append(h("small", null, day(event.unix_milliseconds)));
    return h(
      "li",
      { "data-kind": ALARMS[event.kind] ?? "none" },
      time,
      h("span", { class: "kind" }, event.kind),
      h("span", { class: "about" }, about),
      h("span", { class: "what" }, h("span", null, event.text), event.cause ? h("span", { class: "cause" }, event.cause) : null),
    );
  };
  return {
    element: h("div", null, list, none),
    draw(events) {
      reconcile(list, events.toReversed(), (event) => event.id, create);
      show(none, events.length === 0);
    },
  };
}

/// Reasons with remedies and samples. draw(reasons)
export function reasonList(empty) {
  const list = h("ul", { class: "reasons" });
  const none = h("p", { class: "none" }, empty);
  const create = () =>
    h(
      "li",
      null,
      h("div", { class: "reason" }, h("code"), h("span", { class: "verdict" }), h("b")),
      h("p", { class: "meaning" }),
      h("p", { class: "remedy" }),
      h("ul", { class: "samples" }),
    );
  const update = (item, reason) => {
    attribute(item, "data-drop", reason.drop ? "true" : "false");
    text(item.querySelector("code"), reason.name);
    text(item.querySelector(".verdict"), reason.drop ? "dropped" : "noted");
    text(item.querySelector("b"), `${count(reason.count)} ×`);
    text(item.querySelector(".meaning"), reason.text);
    text(item.querySelector(".remedy"), reason.remedy);
    show(item.querySelector(".remedy"), reason.remedy !== "");
    const sampled = (sample, row) => {
      text(row.children[0], sample.packet);
      text(row.children[1], `${sample.interface}, ${sample.length} bytes, ${duration(sample.seconds_ago)} ago`);
    };
    const line = () => h("li", null, h("code"), h("span", { class: "quiet" }));
    reconcile(item.querySelector(".samples"), reason.samples.map((sample, index) => ({ sample, index })), (one) => one.index, line, (row, one) => sampled(one.sample, row));
  };
  return {
    element: h("div", null, list, none),
    draw(reasons) {
      reconcile(list, reasons, (reason) => reason.name, create, update);
      show(none, reasons.length === 0);
    },
  };
}

/// Names and values. draw([[name, value]...])
export function facts() {
  const list = h("dl", { class: "facts" });
  const create = () => h("div", null, h("dt"), h("dd"));
  return {
    element: list,
    draw(pairs) {
      reconcile(list, pairs, ([name]) => name, create, (row, [name, value]) => {
        text(row.firstChild, name);
        text(row.lastChild, value);
      });
    },
  };
}

/// A part of a view, with its heading.
export function panel(title, ...children) {
  return h("section", { class: "panel" }, h("h2", null, title), ...children);
}

export function crumbs(...links) {
  return h("nav", { class: "crumbs", "aria-label": "Where you are" }, ...links.flatMap(([label, href]) => [href ? h("a", { href }, label) : h("span", { "aria-current": "page" }, label), href ? h("span", { "aria-hidden": "true" }, "›") : null]));
}

export const serviceLink = (service) => `#/service/${encodeURIComponent(service)}`;
export const backendLink = (service, backend) => `${serviceLink(service)}/${encodeURIComponent(backend)}`;

/// Events of a service or backend, the newest `most`.
export function eventsOf(service, backend, most = 20) {
  const matching = store.events.filter((event) => event.service === service && (backend === undefined || event.backend === backend));
  return matching.slice(-most);
}

/// `3 of 4 up`
export const upOf = (service) => `${service.usable} of ${plural(service.status.backends.length, "backend")}`;
