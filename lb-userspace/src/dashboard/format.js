// Numbers and times, as short as they can be told apart.

const PREFIXES = ["", "k", "M", "G", "T", "P"];

/// 1234567 -> ["1.23", "M"]
function scaled(value) {
  let power = 0;
  while (Math.abs(value) >= 999.5 && power < PREFIXES.length - 1) {
    value /= 1000;
    power += 1;
  }
  const digits = Math.abs(value) >= 99.95 || (power === 0 && Number.isInteger(value)) ? 0 : Math.abs(value) >= 9.995 ? 1 : 2;
  return [value.toFixed(digits), PREFIXES[power]];
}

function withUnit(value, unit) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const [number, prefix] = scaled(value);
  const end = prefix + unit;
  return end ? `${number} ${end}` : number;
}

/// Of packets, flows, drops: per second.
export const rate = (value) => withUnit(value, "");
export const bits = (value) => withUnit(value, "bit/s");
export const count = (value) => (value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en").replaceAll(",", " "));
export const size = (bytes) => withUnit(bytes, "B");

export function percent(share) {
  const value = share * 100;
  return `${value >= 9.95 || value === 0 ? value.toFixed(0) : value.toFixed(1)} %`;
}

/// Of a scale: without zeros that say nothing.
export const round = (shown) => shown.replace(/\.?0+(?=( |$))(?<=\.\d*)/, "");

export function milliseconds(value) {
  if (value === 0) return "0 ms";
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value >= 1000) return `${(value / 1000).toFixed(2)} s`;
  if (value >= 100) return `${value.toFixed(0)} ms`;
  if (value >= 1) return `${value.toFixed(1)} ms`;
  return `${(value * 1000).toFixed(0)} µs`;
}

/// 93784 -> "1 d 2 h"
export function duration(seconds) {
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const whole = Math.max(0, Math.floor(seconds));
  const first = units.findIndex(([, length]) => whole >= length);
  if (first < 0) return "0 s";
  const parts = [`${Math.floor(whole / units[first][1])} ${units[first][0]}`];
  const next = units[first + 1];
  const rest = next ? Math.floor((whole % units[first][1]) / next[1]) : 0;
  if (rest) parts.push(`${rest} ${next[0]}`);
  return parts.join(" ");
}

const pad = (number) => String(number).padStart(2, "0");

export function clock(unixMilliseconds) {
  const at = new Date(unixMilliseconds);
  return `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`;
}

export function day(unixMilliseconds) {
  const at = new Date(unixMilliseconds);
  return `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())}`;
}

export const plural = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
