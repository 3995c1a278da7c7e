// Keys of the whole page, and the help that tells them.

import { h } from "./dom.js";

export const KEYS = [
  ["/", "filter the list"],
  ["j  ↓", "next row"],
  ["k  ↑", "row before"],
  ["Home  End", "first and last row"],
  ["Enter", "open the row"],
  ["Esc", "back, or leave the filter"],
  ["1  2  3", "services, events, node"],
  ["t", "colours: system, light, dark"],
  ["?", "this help"],
];

/// `actions`: back(), filter(), go(view), theme(), help(), grid() -> Grid | undefined
export function listen(actions) {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (document.querySelector("dialog[open]")) return;
    const typing = event.target.matches("input, select, textarea");
    if (typing) {
      const grid = actions.grid();
      if (event.key === "Escape") leave(event);
      else if (event.key === "ArrowDown" && event.target.type === "search" && grid) act(event, () => grid.move(1));
      else if (event.key === "Enter" && event.target.type === "search" && grid) act(event, () => grid.move(1));
      return;
    }
    const action = find(event, actions);
    if (action) act(event, action);
  });
}

function act(event, action) {
  event.preventDefault();
  action();
}

/// Out of a field: empties a filter first.
function leave(event) {
  const field = event.target;
  if (field.type === "search" && field.value) {
    field.value = "";
    field.dispatchEvent(new Event("input"));
  } else {
    field.blur();
  }
  event.preventDefault();
}

function find(event, actions) {
  const grid = actions.grid();
  const link = event.target.closest("a, button");
  switch (event.key) {
    case "/": return actions.filter;
    case "?": return actions.help;
    case "t": return actions.theme;
    case "Escape": return actions.back;
    case "1": return () => actions.go("#/");
    case "2": return () => actions.go("#/events");
    case "3": return () => actions.go("#/node");
    case "j": case "ArrowDown": return grid && (() => grid.move(1));
    case "k": case "ArrowUp": return grid && (() => grid.move(-1));
    case "PageDown": return grid && (() => grid.move(10));
    case "PageUp": return grid && (() => grid.move(-10));
    case "Home": return grid && (() => grid.move(-Infinity));
    case "End": return grid && (() => grid.move(Infinity));
    case "Enter": return link || !grid?.current() ? null : () => grid.open();
    default: return null;
  }
}

export function help() {
  const rows = KEYS.map(([keys, what]) =>
    h("div", null, h("dt", null, ...keys.split("  ").map((key) => h("kbd", null, key))), h("dd", null, what)),
  );
  return h("dl", { class: "keys" }, ...rows);
}
