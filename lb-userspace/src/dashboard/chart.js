// Small line charts, drawn as SVG from histories.

import { h, svg, text } from "./dom.js";
import { duration, round } from "./format.js";
import { POINTS, store } from "./store.js";

/// The path of the last values in a box; a gap where nothing is known. `closed` reaches down to the bottom.
function path(values, width, height, top, closed) {
  const step = width / (values.length - 1);
  const y = (value) => (height - (value / top) * height).toFixed(1);
  let d = "";
  let start = -1;
  const end = (index) => {
    if (start >= 0 && closed) d += `L${(step * (index - 1)).toFixed(1)} ${height}L${(step * start).toFixed(1)} ${height}Z`;
    start = -1;
  };
  values.forEach((value, index) => {
    if (Number.isNaN(value)) return end(index);
    d += `${start < 0 ? "M" : "L"}${(step * index).toFixed(1)} ${y(value)}`;
    if (start < 0) start = index;
  });
  end(values.length);
  return d;
}

/// How many of the last points a chart shows: a minute of them at first, then all that there are.
function span(histories) {
  const known = histories.map((history) => history?.values.findIndex((value) => !Number.isNaN(value)) ?? -1);
  const first = Math.min(...known.map((index) => (index < 0 ? POINTS : index)));
  return Math.min(POINTS, Math.max(60, POINTS - first));
}

function greatest(values) {
  let most = 0;
  for (const value of values) if (value > most) most = value;
  return most;
}

/// A line without axes, for a row. Returns the element and how to draw it anew.
export function sparkline(points = 60, width = 96, height = 22) {
  const area = svg("path", { class: "area" });
  const line = svg("path", { class: "line" });
  const element = svg("svg", { class: "spark", viewBox: `0 -1 ${width} ${height + 2}`, preserveAspectRatio: "none", "aria-hidden": "true" }, area, line);
  return {
    element,
    draw(history) {
      const values = history.values.subarray(POINTS - points);
      const top = greatest(values) || 1;
      area.setAttribute("d", path(values, width, height, top, true));
      line.setAttribute("d", path(values, width, height, top, false));
    },
  };
}

/// A round number at or above `value`: 1, 2, 2.5 or 5 times a power of ten.
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].find((step) => step * power >= value * 0.999) * power;
}

const WIDTH = 600;
const HEIGHT = 130;

/// A chart with a title, a scale, and a legend that tells the values under the pointer (or the last ones).
/// `lines`: [{name, history: () => History | undefined}], at most four; `format`: how a value is written.
export function plot({ title, lines, format }) {
  const grid = [0, 1, 2].map((step) => svg("line", { x1: 0, x2: WIDTH, y1: (HEIGHT * step) / 2, y2: (HEIGHT * step) / 2, class: "rule" }));
  const area = svg("path", { class: "area c0" });
  const paths = lines.map((_, index) => svg("path", { class: `line c${index}` }));
  const cursor = svg("line", { class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden" });
  const picture = svg("svg", { viewBox: `0 -2 ${WIDTH} ${HEIGHT + 4}`, preserveAspectRatio: "none", role: "img" }, ...grid, area, ...paths, cursor);
  const scale = [h("span"), h("span"), h("span")];
  const legend = lines.map((line, index) => {
    const value = h("b");
    return { value, element: h("span", { class: `key c${index}` }, h("i", { "aria-hidden": "true" }), `${line.name} `, value) };
  });
  const when = h("span", { class: "when" });
  const oldest = h("span");
  const axis = h("div", { class: "axis", "aria-hidden": "true" }, oldest, when, h("span", null, "now"));
  const element = h(
    "figure",
    { class: "plot" },
    h("figcaption", null, h("h3", null, title), h("span", { class: "legend" }, ...legend.map((entry) => entry.element))),
    h("div", { class: "frame" }, h("div", { class: "scale", "aria-hidden": "true" }, ...scale), picture),
    axis,
  );
  /// Of the points that are shown, the one under the pointer.
  let pointed = null;
  let points = POINTS;

  function draw() {
    const histories = lines.map((line) => line.history());
    points = span(histories);
    if (pointed !== null) pointed = Math.min(pointed, points - 1);
    const nothing = new Float32Array(points).fill(NaN);
    const shown = histories.map((history) => history?.values.subarray(POINTS - points) ?? nothing);
    const most = Math.max(...shown.map(greatest));
    const top = most > 0 ? roundUp(most) : 1;
    [top, top / 2, 0].forEach((value, index) => text(scale[index], most > 0 || value === 0 ? round(format(value)) : ""));
    shown.forEach((values, index) => {
      paths[index].setAttribute("d", path(values, WIDTH, HEIGHT, top, false));
      if (index === 0) area.setAttribute("d", path(values, WIDTH, HEIGHT, top, true));
      text(legend[index].value, format(values[pointed ?? points - 1]));
    });
    const told = lines.map((line, index) => `${line.name} ${legend[index].value.textContent}`);
    picture.setAttribute("aria-label", `${title}: ${told.join(", ")}; highest ${format(most)}`);
    text(oldest, `${duration(points * store.every)} ago`);
    text(when, pointed === null ? "" : `${duration((points - 1 - pointed) * store.every)} ago`);
    cursor.setAttribute("visibility", pointed === null ? "hidden" : "visible");
    if (pointed !== null) {
      cursor.setAttribute("x1", (pointed * WIDTH) / (points - 1));
      cursor.setAttribute("x2", (pointed * WIDTH) / (points - 1));
    }
  }

  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    pointed = Math.round(share * (points - 1));
    draw();
  });
  picture.addEventListener("pointerleave", () => {
    pointed = null;
    draw();
  });
  return { element, draw };
}
