// One backend: state, rates, checks, and, where the configuration allows it, what can be done with it.

import * as api from "../api.js";
import { plot } from "../chart.js";
import { attribute, h, reconcile, show, text } from "../dom.js";
import { bits, count, duration, milliseconds, percent, rate, size } from "../format.js";
import { store } from "../store.js";
import { backendLabel, badge, crumbs, eventList, eventsOf, facts, panel, serviceLink } from "./parts.js";

export function create(serviceName, name, actions) {
  const backend = () => store.services.get(serviceName)?.backends.get(name);
  const state = badge();
  const known = facts();
  const check = facts();
  const series = (measure) => () => backend()?.series[measure];
  const charts = [
    plot({ title: "Packets/s", lines: [{ name: "to it", history: series("packets") }, { name: "from it", history: series("packetsOut") }], format: rate }),
    plot({ title: "Traffic, bits/s", lines: [{ name: "to it", history: series("bits") }, { name: "from it", history: series("bitsOut") }], format: (value) => bits(value).replace("bit/s", "").trim() }),
    plot({ title: "New flows/s", lines: [{ name: "flows", history: series("flows") }, { name: "resets", history: series("resets") }], format: rate }),
    plot({ title: "Duration of checks", lines: [{ name: "last", history: series("check") }], format: milliseconds }),
  ];
  const bars = [bucketChart("Checks by duration"), bucketChart("Handshakes by duration")];
  const controls = control(serviceName, name, actions);
  const happened = eventList("Nothing has happened to it since events are kept.");
  const gone = h("p", { class: "none" }, "There is no such backend now.");
  const content = h(
    "div",
    null,
    controls.element,
    known.element,
    h("div", { class: "plots" }, ...charts.map((chart) => chart.element), ...bars.map((chart) => chart.element)),
    h("div", { class: "columns" }, panel("Check", check.element), panel("Events", happened.element)),
  );
  const element = h("div", { class: "view" }, crumbs(["Services", "#/"], [serviceName, serviceLink(serviceName)], [name, null]), h("div", { class: "title" }, h("h1", null, name), state.element), gone, content);
  return {
    element,
    title: `${serviceName}/${name}`,
    parent: serviceLink(serviceName),
    update() {
      const now = backend();
      show(gone, !now);
      show(content, Boolean(now));
      if (!now) return;
      state.draw(now.kind, backendLabel(now));
      known.draw(factsOf(now));
      check.draw(checkOf(now.status));
      for (const chart of charts) chart.draw();
      bars[0].draw(now.status.checks?.durations);
      bars[1].draw(now.stats.handshake);
      controls.draw(now);
      happened.draw(eventsOf(serviceName, name));
    },
  };
}

function factsOf({ status, stats }) {
  const { connections } = stats;
  const pairs = [
    ["Address", status.address],
    ["By hand", status.admin],
    ["Weight", status.weight === status.configured_weight ? String(status.weight) : `${status.weight}, in the file ${status.configured_weight}`],
    ["Share of new flows", percent(stats.share ?? 0)],
    ["Slots", count(status.slots)],
    ["Pins", count(status.pins)],
    ["Next hop", status.next_hop],
    ["Packets so far", `${count(stats.packets_in)} in, ${count(stats.packets_out)} out`],
    ["Bytes so far", `${size(stats.bytes_in)} in, ${size(stats.bytes_out)} out`],
    ["Flows so far", count(stats.flows)],
    ["Resets so far", count(stats.resets)],
    // Only where they are counted.
    ["Connections", connections ? `${count(connections.active)} active, ${count(connections.inactive)} opening or closing` : undefined],
  ];
  return pairs.filter(([, value]) => value !== undefined);
}

function checkOf(status) {
  if (status.state === "NOLB") return [["Check", "none: always up"]];
  const pairs = [
    ["State", status.state],
    ["For", status.last_change_seconds ? duration(status.last_change_seconds) : undefined],
    ["Last result", status.check],
    ["It said", status.check_output],
    ["It took", status.check_milliseconds === null ? undefined : milliseconds(status.check_milliseconds)],
  ];
  if (status.checks) {
    const { failed, downs, down_seconds: seconds, rise, fall } = status.checks;
    pairs.push(["Failed while up", count(failed)], ["Times down", downs ? `${downs}, ${duration(seconds)} in all` : "never"], ["Rise, fall", `${rise}, ${fall}`]);
  }
  return pairs.filter(([, value]) => value);
}

/// A histogram as bars, once there is one. `buckets`: [[upper bound in seconds, how many took at most that]...]
function bucketChart(title) {
  const list = h("ol", { class: "buckets" });
  const element = h("figure", { class: "plot", hidden: true }, h("figcaption", null, h("h3", null, title)), list);
  const create = () => h("li", null, h("span"), h("i", { "aria-hidden": "true" }), h("b"));
  return {
    element,
    draw(histogram) {
      show(element, Boolean(histogram?.count));
      if (!histogram?.count) return;
      let before = 0;
      const rows = histogram.buckets.map(([bound, upTo]) => {
        const row = { label: `≤ ${milliseconds(bound * 1000)}`, number: upTo - before };
        before = upTo;
        return row;
      });
      rows.push({ label: "longer", number: histogram.count - before });
      const most = Math.max(...rows.map((row) => row.number));
      const first = rows.findIndex((row) => row.number > 0);
      const last = rows.findLastIndex((row) => row.number > 0);
      reconcile(list, rows.slice(first, last + 1), (row) => row.label, create, (item, row) => {
        text(item.children[0], row.label);
        item.children[1].style.setProperty("--share", `${(100 * row.number) / most}%`);
        // The least bar is two pixels wide, and none is none.
        attribute(item.children[1], "data-none", row.number === 0);
        text(item.children[2], count(row.number));
      });
    },
  };
}

/// Buttons for those who may. Asks before it ends connections.
function control(service, backend, actions) {
  const said = h("output", { class: "said" });
  const send = async (change) => {
    try {
      text(said, "…");
      text(said, (await api.setBackend(service, backend, change)).join("\n"));
      actions.refresh();
    } catch (error) {
      text(said, actions.explain(error));
    }
  };
  const question = `New flows and open ones leave ${service}/${backend} at once; whoever has a connection to it loses it.`;
  const buttons = {
    ready: h("button", { type: "button", onclick: () => send({ admin: "ready" }) }, "Ready"),
    drain: h("button", { type: "button", onclick: () => send({ admin: "drain" }) }, "Drain"),
    maint: h("button", { type: "button", class: "danger", onclick: () => actions.confirm("Take it out at once?", question, "Take it out", () => send({ admin: "maint" })) }, "Maint"),
  };
  const weight = h("input", { type: "number", min: "0", max: "256", step: "1", id: "weight", required: true });
  const form = h("form", { class: "weight-form", novalidate: true }, h("label", { for: "weight" }, "Weight"), weight, h("button", { type: "submit" }, "Set"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (weight.checkValidity()) send({ weight: Number(weight.value) });
    else text(said, "A weight is a whole number from 0 to 256.");
  });
  const element = h("div", { class: "controls", role: "group", "aria-label": "Change this backend" }, ...Object.values(buttons), form, said);
  return {
    element,
    draw({ status }) {
      const possible = store.session.write && status.admin !== "removed";
      show(element, possible);
      for (const [admin, button] of Object.entries(buttons)) attribute(button, "aria-pressed", String(status.admin === admin));
      if (document.activeElement !== weight && weight.dataset.shown !== String(status.weight)) {
        weight.value = weight.dataset.shown = String(status.weight);
      }
    },
  };
}
