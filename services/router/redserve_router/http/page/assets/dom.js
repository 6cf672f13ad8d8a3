// Elements without markup in strings: nothing that anybody wrote can become code.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** An element with attributes (`class`, `for`, ...) and children: nodes or text. */
export function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svgElement(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/** Sets text only when it differs: screen readers hear a status again otherwise. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A table row; a cell is text, a node, or [text or node, class]. The first is its header. */
export function row(cells) {
  return element("tr", {}, ...cells.map((cell, index) => {
    const [content, kind] = Array.isArray(cell) ? cell : [cell, null];
    return index === 0
      ? element("th", { scope: "row", class: kind }, content)
      : element("td", { class: kind }, content);
  }));
}

/** Regions that scroll can be reached by keyboard, those that do not need not be. */
export function watchScrollers() {
  const look = (node) => {
    if (node.scrollWidth > node.clientWidth) node.tabIndex = 0;
    else node.removeAttribute("tabindex");
  };
  const observer = new ResizeObserver((entries) => {
    for (const entry of entries) look(entry.target.closest(".scroll"));
  });
  for (const node of document.querySelectorAll(".scroll")) {
    observer.observe(node);
    observer.observe(node.firstElementChild);
  }
}
