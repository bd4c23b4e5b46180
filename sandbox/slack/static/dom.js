// Making elements. Text only ever becomes text nodes: nothing here or elsewhere parses HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element: `h("button.big", { type: "button", onclick: go }, "Go")`. */
export function h(spec, props = {}, ...children) {
  const [tag, ...classes] = spec.split(".");
  return fill(document.createElement(tag || "div"), classes, props, children);
}

/** The same for SVG. */
export function s(spec, props = {}, ...children) {
  const [tag, ...classes] = spec.split(".");
  return fill(document.createElementNS(SVG, tag), classes, props, children);
}

function fill(element, classes, props, children) {
  if (classes.length) element.classList.add(...classes);
  for (const [name, value] of Object.entries(props ?? {})) set(element, name, value);
  append(element, children);
  return element;
}

function set(element, name, value) {
  if (value === null || value === undefined || value === false) return;
  if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
  else if (name === "class") element.classList.add(...value.split(" ").filter(Boolean));
  else if (name === "value") element.value = value;
  else if (name === "vars") for (const [key, v] of Object.entries(value)) element.style.setProperty(key, v);
  else if (name === "data") Object.assign(element.dataset, value);
  else element.setAttribute(name, value === true ? "" : String(value));
}

/** Append nodes, strings and (nested) lists of them; null and false are left out. */
export function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

export function replace(element, ...children) {
  element.replaceChildren();
  append(element, children);
}

// 20x20, drawn with strokes; "!" in front of a path fills it instead.
const ICONS = {
  hash: ["M8 3 6.4 17", "M13.6 3 12 17", "M3.6 7.4h13", "M3.2 12.6h13"],
  lock: ["M5 9h10v8H5z", "M7 9V6.5a3 3 0 0 1 6 0V9"],
  shared: ["M7.5 10a3 3 0 1 1-.2-1.2", "M12.5 10a3 3 0 1 0 .2-1.2", "M7.6 10h4.8"],
  archive: ["M3 4.5h14v3.2H3z", "M4.4 7.7V16h11.2V7.7", "M8 11h4"],
  thread: ["M3.5 4h13v9h-7l-3.6 3v-3H3.5z"],
  copy: ["M7.5 7.5h9v9h-9z", "M12.5 4.5v-1h-9v9h1"],
  close: ["M5 5l10 10", "M15 5 5 15"],
  send: ["!M3 4.2c0-.6.6-1 1.2-.7l13 5.8c.7.3.7 1.2 0 1.5l-13 5.7c-.6.3-1.2-.1-1.2-.7L4.8 11l6.2-1-6.2-1z"],
  warn: ["M10 3 18 16.6H2z", "M10 8v4.2", "M10 14.4v.2"],
  eye: ["M2 10s3-5 8-5 8 5 8 5-3 5-8 5-8-5-8-5z", "M10 12.2a2.2 2.2 0 1 0 0-4.4 2.2 2.2 0 0 0 0 4.4z"],
  file: ["M5 2.8h6.4L15.4 7v10.2H5z", "M11.2 3v4.2h4"],
  more: ["!M5 8.6a1.5 1.5 0 1 1 0 3 1.5 1.5 0 0 1 0-3z", "!M10 8.6a1.5 1.5 0 1 1 0 3 1.5 1.5 0 0 1 0-3z", "!M15 8.6a1.5 1.5 0 1 1 0 3 1.5 1.5 0 0 1 0-3z"],
  down: ["M5 8l5 5 5-5"],
  right: ["M8 5l5 5-5 5"],
  out: ["M8 5H4.5v10.5H15V12", "M11 4h5v5", "M16 4l-7 7"],
  wire: ["M3 7h11", "M11 4l3 3-3 3", "M17 13H6", "M9 10l-3 3 3 3"],
  bolt: ["M11 2.5 4.5 11.5h5L9 17.5l6.5-9h-5z"],
  people: ["M7.5 9.5a3 3 0 1 0 0-6 3 3 0 0 0 0 6z", "M2 16.5c0-3 2.4-5 5.5-5s5.5 2 5.5 5", "M13 9.4a2.6 2.6 0 1 0 0-5.2", "M14.8 12c2 .5 3.2 2.200 3.2 4.500"],
  key: ["M7.200 12.800a3.400 3.400 0 1 1 2-4.200L17 8.600v2.600h-2v2h-2.600v-2H9.300", "M6 9.800v.1"],
  home: ["M3.500 9.500 10 4l6.500 5.500", "M5.200 8.500v7.700h9.600V8.500"],
  check: ["M4 10.500l4 4 8-9"],
  clock: ["M10 17a7 7 0 1 0 0-14 7 7 0 0 0 0 14z", "M10 6v4l2.700 2"],
};

/** A small drawing that screen readers skip; the text beside it says the same. */
export function icon(name, size = 16) {
  const svg = s("svg.icon", { viewBox: "0 0 20 20", width: size, height: size, "aria-hidden": "true" });
  for (const d of ICONS[name] ?? []) {
    svg.append(d[0] === "!" ? s("path.solid", { d: d.slice(1) }) : s("path", { d }));
  }
  return svg;
}

/** `text` with only http(s), mailto and tel addresses let through; else null. */
export function safeUrl(text) {
  try {
    const url = new URL(text, location.href);
    return ["http:", "https:", "mailto:", "tel:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

/** An address that the page may load by itself: its own server, or a data image. */
export function ownUrl(text) {
  try {
    const url = new URL(text, location.href);
    return url.origin === location.origin || url.href.startsWith("data:image/") ? url.href : null;
  } catch {
    return null;
  }
}
