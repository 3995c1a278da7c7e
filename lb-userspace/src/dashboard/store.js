// What is known: the last answers, and rates made of their differences. Counters only ever grow; one that has gone back
// (a fresh data plane) begins anew.

import * as api from "./api.js";

/// Points of a history: three minutes of them.
export const POINTS = 180;

/// The last POINTS values, the newest last; NaN where nothing is known.
class History {
  constructor() {
    this.values = new Float32Array(POINTS).fill(NaN);
  }

  push(value) {
    this.values.copyWithin(0, 1);
    this.values[POINTS - 1] = value ?? NaN;
  }

  get last() {
    return this.values[POINTS - 1];
  }
}

// Modes in which usable backends serve, if not those that should.
const SERVES = new Set(["BACKUP", "UNDER-QUORUM"]);
const MEASURES = ["packets", "packetsOut", "bits", "bitsOut", "flows", "resets", "drops", "check", "slowest"];

class Series {
  constructor() {
    for (const name of MEASURES) this[name] = new History();
    this.before = null;
  }

  /// From counters and the time they were read at.
  measure(counters, taken) {
    const before = this.before;
    this.before = { ...counters, taken };
    const seconds = before ? (taken - before.taken) / 1000 : 0;
    const known = seconds > 0 && counters.packets_in >= before.packets_in && counters.flows >= before.flows;
    const per = (name, factor = 1) => (known ? ((counters[name] - before[name]) * factor) / seconds : NaN);
    this.packets.push(per("packets_in"));
    this.packetsOut.push(per("packets_out"));
    this.bits.push(per("bytes_in", 8));
    this.bitsOut.push(per("bytes_out", 8));
    this.flows.push(per("flows"));
    this.resets.push(per("resets"));
    this.drops.push(per("drops"));
  }
}

export const store = {
  session: null,
  status: null,
  stats: null,
  /// The newest last.
  events: [],
  /// Services by name: {name, status, stats, series, backends: Map}
  services: new Map(),
  node: new Series(),
  /// Seconds from one question to the next: more where the answers are long.
  every: 1,
  /// Time of the last good answer, and whether the one after it has failed.
  seen: 0,
  failed: null,
  /// Events that have come since the page was opened.
  fresh: [],
};

let taken = -1;

/// Asks once for everything. Throws what `api` throws.
export async function refresh() {
  store.session ??= await api.session();
  const after = store.events.at(-1)?.id ?? 0;
  const [status, stats, events] = await Promise.all([api.status(), api.stats(), api.events(after)]);
  if (stats.taken < taken) store.session = await api.session(); // another daemon
  const repeated = stats.taken === taken;
  taken = stats.taken;
  takeEvents(events, after);
  store.status = status.body;
  store.stats = stats.body;
  takeServices(stats.taken, repeated);
  const backends = store.status.services.reduce((sum, service) => sum + service.backends.length, 0);
  store.every = backends > 2000 ? 3 : backends > 300 ? 2 : 1;
  store.seen = Date.now();
  store.failed = null;
}

function takeEvents(answer, after) {
  if (answer.last < after) {
    store.events = [];
    return;
  }
  store.fresh = after > 0 ? answer.events : [];
  store.events.push(...answer.events);
  if (store.events.length > 2000) store.events.splice(0, store.events.length - 2000);
}

function takeServices(at, repeated) {
  const stats = new Map(store.stats.services.map((service) => [service.name, service]));
  const before = store.services;
  store.services = new Map();
  const total = { packets_in: 0, packets_out: 0, bytes_in: 0, bytes_out: 0, flows: 0, resets: 0, drops: dropped(store.stats.node) };
  for (const status of store.status.services) {
    const counters = stats.get(status.name) ?? { total: {}, reasons: {}, backends: [] };
    const old = before.get(status.name);
    const service = { name: status.name, status, stats: counters, series: old?.series ?? new Series(), backends: new Map() };
    const sum = { ...counters.total, drops: dropped(counters.reasons) };
    if (!repeated) service.series.measure(sum, at);
    for (const name of Object.keys(total)) total[name] += sum[name] ?? 0;
    takeBackends(service, old, at, repeated);
    store.services.set(status.name, service);
  }
  if (!repeated) store.node.measure(total, at);
}

function takeBackends(service, old, at, repeated) {
  const stats = new Map(service.stats.backends.map((backend) => [backend.name, backend]));
  const durations = [];
  for (const status of service.status.backends) {
    const counters = stats.get(status.name) ?? {};
    const known = old?.backends.get(status.name);
    const backend = { service: service.name, name: status.name, status, stats: counters, series: known?.series ?? new Series() };
    backend.kind = kindOf(status);
    backend.search = `${status.name} ${status.address} ${status.state} ${status.admin} ${status.check} ${status.check_output}`.toLowerCase();
    if (!repeated) {
      backend.series.measure(counters, at);
      const duration = status.check_milliseconds;
      backend.series.check.push(duration);
      // One that is down would hide the others behind its time-out.
      if (duration !== null && status.state.startsWith("UP")) durations.push(duration);
    }
    service.backends.set(status.name, backend);
  }
  if (!repeated) {
    durations.sort((one, other) => one - other);
    service.series.check.push(durations[durations.length >> 1]);
    service.series.slowest.push(durations.at(-1));
  }
  const all = [...service.backends.values()];
  service.usable = all.filter((backend) => backend.kind === "up" || backend.kind === "falling").length;
  service.down = all.filter((backend) => backend.kind === "down" || backend.kind === "rising").length;
  service.kind = service.status.state === "UP" ? (service.down > 0 ? "falling" : "up") : SERVES.has(service.status.state) ? "falling" : "down";
  service.search = `${service.name} ${service.status.listen} ${service.status.forward} ${service.status.state}`.toLowerCase();
}

function dropped(reasons) {
  return store.session.drops.reduce((sum, name) => sum + (reasons[name] ?? 0), 0);
}

/// One word for how a backend is: decides colour, sign and order.
function kindOf({ state, admin }) {
  if (state.startsWith("DOWN")) return state === "DOWN" ? "down" : "rising";
  if (admin === "maint" || admin === "drain" || admin === "removed") return admin;
  return state.startsWith("UP ") ? "falling" : "up";
}

export const SEVERITY = ["down", "rising", "falling", "maint", "drain", "removed", "up"];
