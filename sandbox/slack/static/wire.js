// The log of what went over the wire, newest last. It follows while its panel is open.

import { api } from "./api.js";
import { h, icon, replace } from "./dom.js";
import { channel, channelName, nameOf, person } from "./store.js";
import { clockSeconds } from "./times.js";

const ROWS_MAX = 500;
const FOLLOW_MS = 1_000;
const SLOW_MS = 1_000;
const LATE_MS = 3_000;

/** The panel in `root`; show(true) starts to follow. */
export function wirePanel(root) {
  const body = h("tbody");
  const table = h("table.wire-table", {}, h("thead", {}, h("tr", {}, ["Time", "", "Over", "What", "Status", "ms", "Retry", "Summary"].map((name) => h("th", { scope: "col" }, name)))), body);
  const scroller = h("div.scroller", { tabindex: "0", role: "region", "aria-label": "Wire log" }, table);
  const filter = h("input.field", { type: "search", placeholder: "Filter, such as chat. or slash", "aria-label": "Filter the wire log" });
  const trouble = h("input", { type: "checkbox" });
  const shown = h("span.count-of", { "aria-live": "polite" });
  const empty = h("p.empty", {}, "Nothing has gone over the wire yet. Send a slash command, and its way to the app and back shows up here.");
  const self = { body, scroller, filter, trouble, shown, empty, last: 0, timer: null, entries: new Map(), busy: false };
  const clear = h("button.btn.small", { type: "button", onclick: () => wipe(self) }, "Clear view");
  root.append(h("div.bar", {}, filter, h("label", {}, trouble, "Only trouble"), shown, clear), scroller, empty);
  filter.addEventListener("input", () => sift(self));
  trouble.addEventListener("change", () => sift(self));
  const show = (on) => {
    clearInterval(self.timer);
    if (!on) return;
    follow(self);
    self.timer = setInterval(() => follow(self), FOLLOW_MS);
  };
  return { show, poke: () => !root.hidden && follow(self), reset: () => { wipe(self); self.last = 0; } };
}

async function follow(self) {
  if (self.busy || document.visibilityState === "hidden") return;
  self.busy = true;
  try {
    const answer = await api.wire(self.last);
    const fresh = Array.isArray(answer) ? answer : (answer.entries ?? []);
    if (fresh.length) add(self, fresh);
    self.empty.hidden = self.entries.size > 0;
  } catch {
    // The banner says that the line is down; the next round tries again.
  } finally {
    self.busy = false;
  }
}

function add(self, fresh) {
  const { scroller, body } = self;
  const stick = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 60;
  for (const entry of fresh) {
    self.last = Math.max(self.last, entry.n);
    self.entries.get(entry.n)?.forEach((row) => row.remove());
    const rows = draw(entry);
    self.entries.set(entry.n, rows);
    body.append(...rows);
  }
  for (const n of [...self.entries.keys()].slice(0, Math.max(0, self.entries.size - ROWS_MAX))) {
    self.entries.get(n).forEach((row) => row.remove());
    self.entries.delete(n);
  }
  sift(self);
  if (stick) scroller.scrollTop = scroller.scrollHeight;
}

// A method that was refused answers 200 and says why in its summary.
const isRefused = (e) => e.direction === "from_app" && e.kind.includes(".") && !/^ok\b/.test(e.summary || "ok");
const isTrouble = (e) => !(e.status >= 200 && e.status < 300) || e.ms >= LATE_MS || e.retry > 0 || isRefused(e);

/** Who, where and what, found in a body that may have been cut. */
function gist(entry) {
  const body = typeof entry.body === "string" ? entry.body : JSON.stringify(entry.body ?? "");
  const first = (pattern) => pattern.exec(body)?.[1];
  const user = person(first(/"user(?:_id|s)?": ?(?:\{"id": ?)?"([UW]\w+)"/));
  const place = channel(first(/"channel(?:_id)?": ?(?:\{"id": ?)?"([CD]\w+)"/));
  const text = entry.direction === "from_app" ? first(/"text": ?"((?:[^"\\]|\\.){1,160})/) : null;
  const said = text ? `“${readable(text).replace(/\\n/g, " ").replace(/\\"/g, '"')}”` : null;
  return [user && nameOf(user), place && (place.is_im ? `DM ${channelName(place)}` : `#${place.name}`), said].filter(Boolean).join(" · ");
}

function draw(entry) {
  const out = entry.direction === "to_app";
  const detail = h("tr.detail", { hidden: true }, h("td", { colspan: "8" }));
  const toggle = () => {
    detail.hidden = !detail.hidden;
    opener.setAttribute("aria-expanded", String(!detail.hidden));
    if (!detail.hidden && !detail.firstChild.firstChild) detail.firstChild.append(h("pre.code", {}, h("code", {}, pretty(entry.body))));
  };
  const opener = h("button.opener", { type: "button", "aria-expanded": "false", onclick: (event) => { event.stopPropagation(); toggle(); } }, icon("right", 12), h("bdi", {}, entry.kind));
  const status = entry.status === 0 ? "none" : String(entry.status);
  const good = entry.status >= 200 && entry.status < 300;
  const row = h(`tr.wire-row.${out ? "to-app" : "from-app"}`, { onclick: toggle, class: isTrouble(entry) ? "is-trouble" : "", data: { text: `${entry.kind} ${entry.summary} ${entry.transport}`.toLowerCase() } },
    h("td.time", {}, clockSeconds(entry.at)),
    h("td", {}, h(`span.way.${out ? "out" : "in"}`, { title: out ? "From Slack to the app" : "From the app to Slack" }, out ? "→ app" : "app →")),
    h("td", {}, h("span.over", {}, entry.transport)),
    h("td", {}, opener),
    h("td", {}, h("span.status", { class: good ? "good" : "bad" }, status)),
    h("td.number", { class: entry.ms >= LATE_MS ? "late" : entry.ms >= SLOW_MS ? "slow" : "" }, entry.ms >= 100 ? Math.round(entry.ms) : Number(entry.ms).toFixed(1)),
    h("td.number", {}, entry.retry ? h("span.retry", {}, String(entry.retry)) : ""),
    h("td.summary", { title: entry.summary ?? "" }, entry.summary === "ok" ? null : h("b", {}, entry.summary ?? "", "  "), gist(entry)));
  return [row, detail];
}

function sift(self) {
  const wanted = self.filter.value.trim().toLowerCase();
  let count = 0;
  for (const [row, detail] of self.entries.values()) {
    const fits = row.dataset.text.includes(wanted) && (!self.trouble.checked || row.classList.contains("is-trouble"));
    row.hidden = !fits;
    if (!fits) detail.hidden = true;
    count += fits ? 1 : 0;
  }
  replace(self.shown, self.entries.size ? `${count} of ${self.entries.size}` : "");
}

function wipe(self) {
  self.entries.clear();
  replace(self.body);
  sift(self);
}

// --- printing a body ---------------------------------------------------------------------

/** Nodes for a body: JSON indented and coloured, even when it was cut; a form line by line. */
export function pretty(body) {
  if (body === null || body === undefined || body === "") return ["(empty)"];
  const text = typeof body === "string" ? body : JSON.stringify(body);
  if (/^\s*[[{]/.test(text)) return indented(text);
  if (/^[\w.%+-]+=/.test(text)) return form(text);
  return [text];
}

function form(text) {
  return text.split("&").flatMap((pair) => {
    const cut = pair.indexOf("=");
    const value = decode(pair.slice(cut + 1));
    return [h("span.j-key", {}, decode(pair.slice(0, cut))), " = ", /^[[{]/.test(value) ? indented(value) : value, "\n"];
  });
}

function decode(text) {
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch {
    return text;
  }
}

const TOKEN = /"(?:[^"\\]|\\.)*"?|[[\]{},:]|[^\s[\]{},:"]+/g;

function indented(text) {
  const nodes = [];
  const tokens = text.match(TOKEN) ?? [];
  let depth = 0;
  const line = () => `\n${"  ".repeat(depth)}`;
  tokens.forEach((token, i) => {
    if (token === "{" || token === "[") {
      const closes = tokens[i + 1] === "}" || tokens[i + 1] === "]";
      depth += 1;
      nodes.push(token, closes ? "" : line());
    } else if (token === "}" || token === "]") {
      depth = Math.max(0, depth - 1);
      nodes.push(tokens[i - 1] === "{" || tokens[i - 1] === "[" ? token : line() + token);
    } else if (token === ",") nodes.push(token, line());
    else if (token === ":") nodes.push(": ");
    else nodes.push(h(`span.${tokens[i + 1] === ":" ? "j-key" : token[0] === '"' ? "j-text" : "j-other"}`, {}, readable(token)));
  });
  return nodes;
}

// Shown as the letters that they stand for, so that a title in Greek can be read.
const readable = (token) => token.replace(/\\u([0-9a-f]{4})/gi, (whole, code) => (Number.parseInt(code, 16) >= 0xa0 ? String.fromCharCode(Number.parseInt(code, 16)) : whole));
