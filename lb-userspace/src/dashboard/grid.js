// A table of any length: only the rows in sight are in the page. Sorted by its headings, walked with the keyboard.

import { attribute, h, text } from "./dom.js";

/// Rows above and below what is in sight.
const SPARE = 4;
let grids = 0;

/// `columns`: [{id, title, value(item) -> what it is sorted by, text(item) or create() -> {element, draw(item)},
/// class, wide: hidden on narrow screens, descending: sorted so at first}]; `key(item)`, `open(item)`, `link(item)`.
export class Grid {
  constructor({ name, label, columns, key, link, kind, sort, descending = false, empty }) {
    Object.assign(this, { columns, key, link, kind, empty });
    this.sort = { column: columns.find((column) => column.id === sort), descending };
    this.items = [];
    this.rows = [];
    this.shown = new Map();
    this.selected = null;
    this.filter = "";
    this.id = `grid${(grids += 1)}`;
    this.heads = columns.map((column) => this.#heading(column));
    this.head = h("div", { class: "row head", role: "row", "aria-rowindex": "1" }, ...this.heads);
    this.body = h("div", { class: "rows", role: "rowgroup" });
    this.none = h("p", { class: "none" });
    this.element = h(
      "div",
      { class: `grid ${name}`, role: "grid", tabindex: "0", "aria-label": label, "aria-colcount": columns.length },
      h("div", { role: "rowgroup", class: "heads" }, this.head),
      this.body,
    );
    this.sorter = this.#sorter();
    this.element.addEventListener("click", (event) => this.#click(event));
    this.draw = this.draw.bind(this);
    this.later = this.later.bind(this);
    addEventListener("scroll", this.later, { passive: true });
    addEventListener("resize", this.later);
  }

  destroy() {
    removeEventListener("scroll", this.later);
    removeEventListener("resize", this.later);
  }

  #heading(column) {
    const sort = () => this.sortBy(column, this.sort.column === column ? !this.sort.descending : Boolean(column.descending));
    const button = h("button", { type: "button", tabindex: "-1", onclick: sort }, column.title, h("i", { "aria-hidden": "true" }));
    return h("div", { role: "columnheader", class: column.class }, button);
  }

  /// For screens where rows are cards, without headings.
  #sorter() {
    const options = this.columns.map((column) => h("option", { value: column.id }, column.title));
    const select = h("select", { "aria-label": "Sort by" }, ...options);
    select.addEventListener("change", () => {
      const column = this.columns.find((candidate) => candidate.id === select.value);
      this.sortBy(column, Boolean(column.descending));
    });
    select.value = this.sort.column.id;
    return h("label", { class: "sorter" }, "Sort by ", select);
  }

  sortBy(column, descending) {
    this.sort = { column, descending };
    this.sorter.querySelector("select").value = column.id;
    this.update(this.items);
  }

  setFilter(words) {
    this.filter = words.trim().toLowerCase();
    this.update(this.items);
  }

  update(items) {
    this.items = items;
    const words = this.filter.split(/\s+/).filter(Boolean);
    const matching = items.filter((item) => words.every((word) => item.search.includes(word)));
    const { column, descending } = this.sort;
    const sign = descending ? -1 : 1;
    const rank = (item) => column.value(item);
    matching.sort((one, other) => sign * compare(rank(one), rank(other)) || compare(this.key(one), this.key(other)));
    this.rows = matching;
    this.heads.forEach((head, index) => {
      const sorted = this.columns[index] === column ? (descending ? "descending" : "ascending") : null;
      attribute(head, "aria-sort", sorted);
    });
    attribute(this.element, "aria-rowcount", matching.length + 1);
    if (matching.length === 0) {
      text(this.none, items.length === 0 ? this.empty : `Nothing matches “${this.filter}”.`);
      if (!this.none.isConnected) this.element.after(this.none);
    } else {
      this.none.remove();
    }
    this.draw();
  }

  later() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.draw();
    });
  }

  draw() {
    if (!this.element.isConnected) return;
    const height = parseFloat(getComputedStyle(this.element).getPropertyValue("--row"));
    this.height = height;
    this.body.style.height = `${this.rows.length * height}px`;
    const top = this.body.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(-top / height) - SPARE);
    const last = Math.min(this.rows.length - 1, Math.ceil((innerHeight - top) / height) + SPARE);
    const wanted = new Map();
    for (let index = first; index <= last; index += 1) wanted.set(this.key(this.rows[index]), index);
    const selected = this.selectedIndex();
    if (selected >= 0) wanted.set(this.selected, selected);
    for (const [key, row] of this.shown) {
      if (wanted.has(key)) continue;
      row.element.remove();
      this.shown.delete(key);
    }
    for (const [key, index] of wanted) this.#drawRow(key, index);
    attribute(this.element, "aria-activedescendant", selected >= 0 ? this.shown.get(this.selected).element.id : null);
  }

  #drawRow(key, index) {
    const item = this.rows[index];
    let row = this.shown.get(key);
    if (!row) {
      row = this.#createRow(item);
      this.shown.set(key, row);
      this.body.append(row.element);
    }
    row.element.style.transform = `translateY(${index * this.height}px)`;
    attribute(row.element, "aria-rowindex", index + 2);
    attribute(row.element, "aria-selected", key === this.selected ? "true" : null);
    attribute(row.element, "data-kind", this.kind(item));
    for (const draw of row.draws) draw(item);
  }

  #createRow(item) {
    const draws = [];
    const cells = this.columns.map((column, index) => {
      const cell = h("div", { role: "gridcell", class: column.class, "data-label": column.title });
      const place = index === this.linked() ? h("a", { href: this.link(item), tabindex: "-1" }) : cell;
      if (place !== cell) cell.append(place);
      if (column.create) {
        const { element, draw } = column.create();
        place.append(element);
        draws.push(draw);
      } else {
        draws.push((one) => text(place, column.text(one)));
      }
      return cell;
    });
    const element = h("div", { class: "row", role: "row", id: `${this.id}-${encodeURIComponent(this.key(item))}`, "data-row": this.key(item) }, ...cells);
    return { element, draws };
  }

  linked() {
    return this.columns.findIndex((column) => column.linked);
  }

  #click(event) {
    const row = event.target.closest("[data-row]");
    if (!row || event.target.closest("a, button")) return;
    this.select(row.dataset.row);
    if (!String(getSelection())) this.open();
  }

  selectedIndex() {
    return this.selected === null ? -1 : this.rows.findIndex((item) => this.key(item) === this.selected);
  }

  select(key) {
    this.selected = key;
    this.draw();
  }

  /// Moves the selection by so many rows, and into sight.
  move(step) {
    if (this.rows.length === 0) return;
    const now = this.selectedIndex();
    const from = now >= 0 ? now : step > 0 ? -1 : this.rows.length;
    this.select(this.key(this.rows[Math.min(this.rows.length - 1, Math.max(0, from + step))]));
    this.element.focus({ preventScroll: true });
    this.#reveal();
  }

  #reveal() {
    const index = this.selectedIndex();
    const top = this.body.getBoundingClientRect().top + index * this.height;
    const covered = this.head.getBoundingClientRect().bottom;
    if (top < covered) scrollBy({ top: top - covered - 4 });
    else if (top + this.height > innerHeight) scrollBy({ top: top + this.height - innerHeight + 8 });
  }

  current() {
    return this.rows[this.selectedIndex()];
  }

  open() {
    const item = this.current();
    if (item) location.hash = this.link(item);
  }
}

function compare(one, other) {
  if (typeof one === "string") return one.localeCompare(other, "en", { numeric: true });
  const known = Number.isNaN(one) ? -Infinity : one;
  const than = Number.isNaN(other) ? -Infinity : other;
  return known < than ? -1 : known > than ? 1 : 0;
}
