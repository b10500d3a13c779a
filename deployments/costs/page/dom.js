// Whatever comes from the server is set as text, never as HTML: names and prompts are hostile until proven otherwise.

/** An element. `options` are properties, or attributes where a key has a dash or is `role`; children are nodes or texts. */
export function el(tag, options = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || value === null) continue;
    if (name.includes("-") || name === "role" || name === "scope") node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

export const at = (id) => document.getElementById(id);

export function fill(id, ...children) {
  at(id).replaceChildren(...children.flat().filter(Boolean));
}

/** A table that scrolls by itself where it is too wide. columns: {name, cell: row => text or node, number, head}. */
export function table(caption, columns, rows, empty = "Nothing in this interval.") {
  if (!rows.length) return el("p", { className: "empty" }, empty);
  const head = el("tr", {}, columns.map((c) => el("th", { scope: "col", className: c.number ? "n" : "" }, c.name)));
  const body = rows.map((row) => el("tr", {}, columns.map((c) => cell(c, row))));
  const made = el("table", {}, el("caption", { className: caption.hidden ? "hidden" : "" }, caption.text), el("thead", {}, head), el("tbody", {}, body));
  return el("div", { className: "scroll", role: "region", "aria-label": caption.text, tabIndex: 0 }, made);
}

function cell(column, row) {
  const options = { className: column.number ? "n" : "" };
  return column.head ? el("th", { scope: "row", ...options }, column.cell(row)) : el("td", options, column.cell(row));
}

/** A name of any length that stays on one line; the whole of it on hovering. */
export const name = (text) => el("span", { className: "name", title: text }, text);

export const swatch = (colour, kind = "") => {
  const node = el("span", { className: `swatch ${kind}`, "aria-hidden": "true" });
  if (kind === "line") node.style.borderColor = colour; else node.style.background = colour;
  return node;
};
