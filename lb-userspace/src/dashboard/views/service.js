// One service: its backends, how fast they answer, what was dropped, what happened.

import * as api from "../api.js";
import { plot } from "../chart.js";
import { attribute, h, show, text } from "../dom.js";
import { bits, count, duration, milliseconds, percent, rate } from "../format.js";
import { Grid } from "../grid.js";
import { SEVERITY, store } from "../store.js";
import { backendLabel, backendLink, badge, crumbs, eventList, eventsOf, facts, heading, lineCell, panel, reasonList, serviceLabel, upOf } from "./parts.js";

const COLUMNS = [
  {
    id: "state",
    title: "State",
    class: "state",
    value: (backend) => SEVERITY.indexOf(backend.kind),
    create() {
      const state = badge();
      return { element: state.element, draw: (backend) => state.draw(backend.kind, backendLabel(backend)) };
    },
  },
  { id: "name", title: "Backend", class: "name", linked: true, value: (backend) => backend.name, text: (backend) => backend.name },
  { id: "address", title: "Address", class: "address", value: (backend) => backend.status.address, text: (backend) => backend.status.address },
  { id: "weight", title: "Weight", class: "number weight", descending: true, value: (backend) => backend.status.weight, text: weightText },
  { id: "share", title: "Share", class: "number share", descending: true, value: (backend) => backend.stats.share ?? 0, text: (backend) => percent(backend.stats.share ?? 0) },
  { id: "packets", title: "Packets/s", class: "rate", descending: true, value: (backend) => backend.series.packets.last, create: () => lineCell((backend) => rate(backend.series.packets.last), (backend) => backend.series.packets) },
  { id: "bits", title: "Bits/s", class: "number bits", descending: true, value: (backend) => backend.series.bits.last, text: (backend) => bits(backend.series.bits.last).replace("bit/s", "") },
  { id: "flows", title: "Flows/s", class: "number flows", descending: true, value: (backend) => backend.series.flows.last, text: (backend) => rate(backend.series.flows.last) },
  {
    id: "check",
    title: "Last check",
    class: "check",
    value: (backend) => backend.status.check_milliseconds ?? NaN,
    create() {
      const code = h("code");
      const rest = h("span", { class: "quiet" });
      return {
        element: h("span", null, code, " ", rest),
        draw({ status }) {
          text(code, status.check || "–");
          text(rest, status.check_milliseconds === null ? status.check_output : milliseconds(status.check_milliseconds));
          attribute(rest, "title", status.check_output || null);
        },
      };
    },
  },
  { id: "since", title: "Since", class: "number since", value: (backend) => backend.status.last_change_seconds, text: ({ status }) => (status.check ? duration(status.last_change_seconds) : "–") },
];

function weightText({ status }) {
  return status.weight === status.configured_weight ? String(status.weight) : `${status.weight} (file: ${status.configured_weight})`;
}

export function create(name) {
  const service = () => store.services.get(name);
  const state = badge();
  const known = facts();
  const series = (measure) => () => service()?.series[measure];
  const charts = [
    plot({ title: "Traffic, bits/s", lines: [{ name: "to backends", history: series("bits") }, { name: "to clients", history: series("bitsOut") }], format: (value) => bits(value).replace("bit/s", "").trim() }),
    plot({ title: "New flows/s", lines: [{ name: "flows", history: series("flows") }, { name: "drops", history: series("drops") }], format: rate }),
    plot({ title: "Checks of those up", lines: [{ name: "median", history: series("check") }, { name: "slowest", history: series("slowest") }], format: milliseconds }),
  ];
  const grid = new Grid({
    name: "backends",
    label: `Backends of ${name}`,
    columns: COLUMNS,
    key: (backend) => backend.name,
    link: (backend) => backendLink(name, backend.name),
    kind: (backend) => backend.kind,
    sort: "state",
    empty: "No backends.",
  });
  const head = heading("Backends", "Filter: name, address, state, check", (words) => grid.setFilter(words));
  head.element.append(grid.sorter);
  const reasons = reasonList("Nothing was dropped, answered or refused.");
  const happened = eventList("Nothing has happened to it since events are kept.");
  const drops = panel("Drops and other reasons", reasons.element);
  const events = panel("Events", happened.element);
  // Behind a thousand rows they would not be found.
  const jump = (label, target) => h("button", { type: "button", class: "jump", onclick: () => target.scrollIntoView({ block: "start" }) }, label);
  const gone = h("p", { class: "none" }, "There is no such service now.");
  const content = h(
    "div",
    null,
    known.element,
    h("div", { class: "plots" }, ...charts.map((chart) => chart.element)),
    head.element,
    grid.element,
    h("div", { class: "columns" }, drops, events),
  );
  const element = h("div", { class: "view" }, crumbs(["Services", "#/"], [name, null]), h("div", { class: "title" }, h("h1", null, name), state.element, h("span", { class: "grow" }), jump("Drops ↓", drops), jump("Events ↓", events)), gone, content);
  return {
    element,
    grid,
    filter: head.field,
    title: name,
    parent: "#/",
    why: () => api.why(name),
    update(why) {
      const now = service();
      show(gone, !now);
      show(content, Boolean(now));
      if (!now) return;
      state.draw(now.kind, `${serviceLabel(now)} · ${upOf(now)}`);
      known.draw(factsOf(now));
      for (const chart of charts) chart.draw();
      head.count(String(now.backends.size));
      grid.update([...now.backends.values()]);
      happened.draw(eventsOf(name));
      if (why) reasons.draw(why.services[0]?.reasons ?? []);
    },
    destroy: () => grid.destroy(),
  };
}

function factsOf({ status, stats }) {
  const { settled, window, harvest, pinned } = status.slots;
  const moving = window + harvest + pinned;
  const slots = `${count(settled + moving)}${moving ? `, ${count(moving)} of them changing hands` : ", all settled"}`;
  const pairs = [
    ["Address", status.listen],
    ["Forward", status.forward],
    ["Balance", status.balance],
    ["VIP on this host", status.vip_on_host ? "yes" : "no"],
    ["Slots of the ring", slots],
    ["Ring", status.ring],
    ["Packets so far", count(stats.total.packets_in)],
    ["Flows so far", count(stats.total.flows)],
    ["Times down", status.downs ? `${status.downs}, ${duration(status.down_seconds)} in all` : status.downs === 0 ? "never" : undefined],
  ];
  return pairs.filter(([, value]) => value !== undefined && value !== "");
}
