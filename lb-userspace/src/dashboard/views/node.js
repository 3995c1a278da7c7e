// The node: NICs, tables, warnings, and what was dropped that belongs to no service.

import * as api from "../api.js";
import { h, reconcile, show, text } from "../dom.js";
import { count, duration } from "../format.js";
import { store } from "../store.js";
import { badge, facts, panel, reasonList } from "./parts.js";

export function create() {
  const known = facts();
  const nics = h("ul", { class: "nics" });
  const tables = h("ul", { class: "tables" });
  const warnings = h("ul", { class: "warnings" });
  const calm = h("p", { class: "none" }, "Nothing needs attention.");
  const reasons = reasonList("Nothing was dropped outside of services.");
  const file = h("pre", { class: "error", hidden: true });
  const element = h(
    "div",
    { class: "view" },
    h("h1", null, "Node"),
    known.element,
    panel("Needs attention", file, warnings, calm),
    h("div", { class: "columns" }, panel("NICs", nics), panel("Tables", tables)),
    panel("Drops and other reasons outside of services", reasons.element),
  );
  return {
    element,
    title: "Node",
    parent: "#/",
    why: () => api.why(null),
    update(why) {
      const { status } = store;
      known.draw(factsOf(status));
      reconcile(nics, status.interfaces, (nic) => nic.name, nicRow, drawNic);
      const rows = status.tables.map((table) => [table.name, table.entries, table.limit]);
      reconcile(tables, rows, ([name]) => name, tableRow, drawTable);
      reconcile(warnings, status.warnings, (line) => line, (line) => h("li", null, line));
      show(file, status.config_error !== null);
      text(file, status.config_error ?? "");
      show(calm, status.warnings.length === 0 && status.config_error === null);
      if (why) reasons.draw(why.node);
    },
  };
}

function factsOf(status) {
  return [
    ["Version", status.version],
    ["Running for", duration(status.uptime_seconds)],
    ["Process", String(status.pid)],
    ["Configuration", status.config],
    ["Revision in force", String(status.revision)],
    ["Seed of the hash", status.seed_fingerprint],
    ["Ready for traffic", status.starting ? "not yet: first checks are awaited" : "yes"],
  ];
}

function nicRow() {
  const state = badge();
  const row = h("li", null, state.element, h("b"), h("span", { class: "quiet" }));
  row.state = state;
  return row;
}

function drawNic(row, nic) {
  const good = nic.link === "up" && nic.mode !== "detached";
  const kind = good ? (nic.mode === "native" ? "up" : "falling") : "down";
  row.state.draw(kind, nic.link === "up" ? nic.mode : `link ${nic.link}`);
  text(row.children[1], nic.name);
  text(row.children[2], `MTU ${nic.mtu}`);
}

function tableRow() {
  return h("li", null, h("span"), h("span", { class: "meter", "aria-hidden": "true" }, h("i")), h("span", { class: "number" }));
}

function drawTable(row, [name, used, limit]) {
  text(row.children[0], name);
  row.children[1].firstChild.style.width = `${(100 * used) / Math.max(1, limit)}%`;
  text(row.children[2], `${count(used)} of ${count(limit)}`);
}
