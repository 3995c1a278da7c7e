// All services at a glance.

import { h, show, text } from "../dom.js";
import { bits, rate } from "../format.js";
import { Grid } from "../grid.js";
import { SEVERITY, store } from "../store.js";
import { badge, heading, lineCell, serviceLabel, serviceLink, tile } from "./parts.js";

const SERVICE_ORDER = (service) => SEVERITY.indexOf(service.kind);

const COLUMNS = [
  {
    id: "state",
    title: "State",
    class: "state",
    value: SERVICE_ORDER,
    create() {
      const state = badge();
      return { element: state.element, draw: (service) => state.draw(service.kind, serviceLabel(service)) };
    },
  },
  { id: "name", title: "Service", class: "name", linked: true, value: (service) => service.name, text: (service) => service.name },
  { id: "listen", title: "Address", class: "address", value: (service) => service.status.listen, text: (service) => service.status.listen },
  { id: "forward", title: "Forward", class: "forward", value: (service) => service.status.forward, text: (service) => service.status.forward },
  {
    id: "backends",
    title: "Backends up",
    class: "backends",
    value: (service) => service.usable / Math.max(1, service.status.backends.length),
    create() {
      const meter = h("span", { class: "meter", "aria-hidden": "true" }, h("i"), h("i"));
      const number = h("span", { class: "number" });
      return {
        element: h("span", { class: "with-meter" }, meter, number),
        draw(service) {
          const all = service.status.backends.length;
          meter.firstChild.style.width = `${(100 * service.usable) / Math.max(1, all)}%`;
          meter.lastChild.style.width = `${(100 * service.down) / Math.max(1, all)}%`;
          text(number, `${service.usable} / ${all}`);
        },
      };
    },
  },
  { id: "packets", title: "Packets/s", class: "rate", descending: true, value: (service) => service.series.packets.last, create: () => lineCell((service) => rate(service.series.packets.last), (service) => service.series.packets) },
  { id: "bits", title: "Bits/s", class: "rate", descending: true, value: (service) => service.series.bits.last, create: () => lineCell((service) => bits(service.series.bits.last).replace("bit/s", ""), (service) => service.series.bits) },
  { id: "flows", title: "New flows/s", class: "rate", descending: true, value: (service) => service.series.flows.last, create: () => lineCell((service) => rate(service.series.flows.last), (service) => service.series.flows) },
  { id: "drops", title: "Drops/s", class: "number drops", descending: true, value: (service) => service.series.drops.last, text: (service) => rate(service.series.drops.last) },
];

export function create() {
  const tiles = {
    packets: tile("Packets/s", "Packets to backends, all services together"),
    bits: tile("Traffic", "Bits to backends (layer 3), all services together"),
    flows: tile("New flows/s", "TCP SYNs, retransmissions included"),
    drops: tile("Drops/s", "Packets dropped for any reason; see each service, and Node"),
  };
  const grid = new Grid({
    name: "services",
    label: "Services",
    columns: COLUMNS,
    key: (service) => service.name,
    link: (service) => serviceLink(service.name),
    kind: (service) => service.kind,
    sort: "state",
    empty: "No services are loaded.",
  });
  const head = heading("Services", "Filter: name, address, state", (words) => grid.setFilter(words));
  head.element.append(grid.sorter);
  const summary = h("p", { class: "summary" });
  const element = h("div", { class: "view" }, h("h1", { class: "hidden" }, "Services"), summary, h("div", { class: "tiles" }, ...Object.values(tiles).map((one) => one.element)), head.element, grid.element);
  return {
    element,
    grid,
    filter: head.field,
    title: "Services",
    parent: null,
    update() {
      const services = [...store.services.values()];
      const { packets, bits: traffic, flows, drops } = store.node;
      tiles.packets.draw(rate(packets.last), packets);
      tiles.bits.draw(bits(traffic.last), traffic);
      tiles.flows.draw(rate(flows.last), flows);
      tiles.drops.draw(rate(drops.last), drops);
      head.count(String(services.length));
      text(summary, sentence(services));
      show(grid.element, services.length > 0);
      grid.update(services);
    },
    destroy: () => grid.destroy(),
  };
}

function sentence(services) {
  const backends = services.flatMap((service) => [...service.backends.values()]);
  const down = backends.filter((backend) => backend.kind === "down" || backend.kind === "rising").length;
  const out = backends.filter((backend) => ["drain", "maint", "removed"].includes(backend.kind)).length;
  const broken = services.filter((service) => service.kind === "down").length;
  const parts = [];
  if (broken) parts.push(`${broken} of ${services.length} services without a usable backend`);
  if (down) parts.push(`${down} of ${backends.length} backends down`);
  if (out) parts.push(`${out} taken out by hand`);
  return parts.length ? `${parts.join(", ")}.` : `All ${backends.length} backends of ${services.length} services work.`;
}
