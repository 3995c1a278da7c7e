// What has happened, and why: the newest first.

import { h, text } from "../dom.js";
import { plural } from "../format.js";
import { store } from "../store.js";
import { eventList, heading } from "./parts.js";

/// More are a matter for `lb events` and the journal.
const SHOWN = 300;

export function create() {
  let words = [];
  const list = eventList("Nothing matches, or nothing has happened yet.");
  const head = heading("Events", "Filter: kind, service, backend, text", (value) => {
    words = value.toLowerCase().split(/\s+/).filter(Boolean);
    draw();
  });
  const note = h("p", { class: "quiet" });

  function draw() {
    const has = (event) => {
      const all = `${event.kind} ${event.service ?? "node"}/${event.backend ?? ""} ${event.text} ${event.cause}`.toLowerCase();
      return words.every((word) => all.includes(word));
    };
    const matching = store.events.filter(has);
    head.count(String(matching.length));
    list.draw(matching.slice(-SHOWN));
    const more = matching.length - SHOWN;
    text(note, more > 0 ? `${plural(more, "older event")}: filter, or see \`lb events\`.` : "");
  }

  return { element: h("div", { class: "view" }, h("h1", { class: "hidden" }, "Events"), head.element, list.element, note), filter: head.field, title: "Events", parent: "#/", update: draw };
}
