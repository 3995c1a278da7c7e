// Requests to the listener that has served this page, and to nobody else.

const KEY = "lb.token";
/// A daemon that does not answer for so long is away.
const PATIENCE = 5000;

/// The daemon wants a token, or another one.
export class NeedsToken extends Error {}

/// It has answered that it will not, and why.
export class Refused extends Error {}

let token = sessionStorage.getItem(KEY);

/// For this tab and this session; never in an address.
export function setToken(value) {
  token = value;
  if (value === null) sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, value);
}

async function request(path, options = {}) {
  const headers = new Headers(options.headers);
  if (token !== null) headers.set("Authorization", `Bearer ${token}`);
  const response = await fetch(path, {
    ...options,
    headers,
    cache: "no-store",
    credentials: "omit",
    redirect: "error",
    signal: AbortSignal.timeout(PATIENCE),
  });
  if (response.status === 401) throw new NeedsToken();
  const body = await response.json();
  if (!response.ok) throw new Refused(body.error ?? `status ${response.status}`);
  return { body, taken: Number(response.headers.get("x-lb-taken")) };
}

export const session = async () => (await request("/api/session")).body;
export const status = () => request("/api/status");
export const stats = () => request("/api/stats");
export const events = async (after) => (await request(`/api/events?after=${after}`)).body;
export const why = async (service) =>
  (await request(`/api/why${service === null ? "" : `?service=${encodeURIComponent(service)}`}`)).body;

/// `change`: {admin: "drain"} or {weight: 50}
export async function setBackend(service, backend, change) {
  const path = `/api/backends/${encodeURIComponent(service)}/${encodeURIComponent(backend)}`;
  const options = { method: "POST", body: JSON.stringify(change), headers: { "Content-Type": "application/json" } };
  return (await request(path, options)).body.changes;
}
