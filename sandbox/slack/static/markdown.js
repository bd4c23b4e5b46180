// The `markdown` block: the common subset of Markdown, as nodes.

import { h } from "./dom.js";
import { anchor, emojiNode } from "./mrkdwn.js";

const RULE = /^\s*([-*_])(?:\s*\1){2,}\s*$/;
const HEADING = /^(#{1,6})\s+(.*)$/;
const ITEM = /^(\s*)([-*+]|\d{1,3}[.)])\s+(?:\[([ xX])\]\s+)?(.*)$/;
const TABLE_RULE = /^\s*\|?\s*:?-{1,}:?\s*(\|\s*:?-{1,}:?\s*)*\|?\s*$/;

/** Nodes for a whole text. */
export function markdown(text) {
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  const nodes = [];
  let at = 0;
  while (at < lines.length) {
    const [node, next] = blockAt(lines, at);
    if (node) nodes.push(node);
    at = next;
  }
  return nodes;
}

function blockAt(lines, at) {
  const line = lines[at];
  if (line.trim() === "") return [null, at + 1];
  if (/^\s*(```|~~~)/.test(line)) return fenceAt(lines, at);
  if (RULE.test(line)) return [h("hr"), at + 1];
  const heading = HEADING.exec(line);
  if (heading) return [h(`div.md-h${heading[1].length}`, { role: "heading", "aria-level": String(heading[1].length + 2) }, spans(heading[2])), at + 1];
  if (/^\s*>/.test(line)) return quoteAt(lines, at);
  if (line.includes("|") && TABLE_RULE.test(lines[at + 1] ?? "")) return tableAt(lines, at);
  if (ITEM.test(line)) return listAt(lines, at);
  return paragraphAt(lines, at);
}

function fenceAt(lines, at) {
  const mark = lines[at].trim().slice(0, 3);
  let end = at + 1;
  while (end < lines.length && !lines[end].trim().startsWith(mark)) end += 1;
  return [h("pre.code", { tabindex: "0", dir: "ltr" }, h("code", {}, lines.slice(at + 1, end).join("\n"))), end + 1];
}

function quoteAt(lines, at) {
  let end = at;
  while (end < lines.length && /^\s*>/.test(lines[end])) end += 1;
  const inner = lines.slice(at, end).map((line) => line.replace(/^\s*>\s?/, "").replace(/^>+\s?/, ""));
  return [h("blockquote", {}, inner.map((line, i) => [i ? h("br") : null, spans(line)])), end];
}

function listAt(lines, at) {
  const ordered = /^\d/.test(ITEM.exec(lines[at])[2]);
  const list = h(ordered ? "ol" : "ul", { start: ordered ? Number.parseInt(ITEM.exec(lines[at])[2], 10) : null });
  let end = at;
  for (; end < lines.length; end += 1) {
    const match = ITEM.exec(lines[end]);
    if (!match) break;
    const box = match[3] === undefined ? null : h("input", { type: "checkbox", disabled: true, checked: match[3] !== " " });
    list.append(h("li", { vars: { "--indent": Math.min(Math.floor(match[1].length / 2), 5) } }, box, spans(match[4])));
  }
  return [list, end];
}

function tableAt(lines, at) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
  const aligns = cells(lines[at + 1]).map((c) => (c.endsWith(":") ? (c.startsWith(":") ? "center" : "right") : "left"));
  let end = at + 2;
  while (end < lines.length && lines[end].includes("|")) end += 1;
  const row = (tag, line) => h("tr", {}, cells(line).map((cell, i) => h(tag, { class: aligns[i] ?? "left" }, spans(cell))));
  const table = h("table", {}, h("thead", {}, row("th", lines[at])), h("tbody", {}, lines.slice(at + 2, end).map((line) => row("td", line))));
  return [h("div.table", { tabindex: "0", role: "region", "aria-label": "Table" }, table), end];
}

function paragraphAt(lines, at) {
  let end = at + 1;
  while (end < lines.length && lines[end].trim() !== "" && !/^\s*(```|~~~|>|#{1,6}\s)/.test(lines[end]) && !ITEM.test(lines[end])) end += 1;
  return [h("p", { dir: "auto" }, lines.slice(at, end).map((line, i) => [i ? h("br") : null, spans(line)])), end];
}

const SPAN =
  /\\([\\`*_{}[\]()#+.!|~-])|`([^`\n]+)`|!?\[([^\]\n]{1,500})\]\(([^)\s]{1,2000})\)|\*\*(?=\S)(.{1,1500}?)(?<=\S)\*\*|~~(?=\S)(.{1,1500}?)(?<=\S)~~|(?<![\p{L}\p{N}*])\*(?=[^\s*])(.{1,1500}?)(?<=\S)\*(?!\*)|(?<![\p{L}\p{N}_])_(?=[^\s_])(.{1,1500}?)(?<=\S)_(?![\p{L}\p{N}])|(https?:\/\/[^\s<>]{1,2000}[^\s<>.,;:!?)\]}'"])|:([a-z0-9_+-]{1,60}):/gu;

function spans(text) {
  const nodes = [];
  let done = 0;
  for (const match of text.matchAll(SPAN)) {
    const node = span(match);
    if (node === null) continue;
    if (match.index > done) nodes.push(text.slice(done, match.index));
    nodes.push(node);
    done = match.index + match[0].length;
  }
  nodes.push(text.slice(done));
  return nodes;
}

function span([, escaped, code, label, address, bold, struck, starred, underlined, bare, short]) {
  if (escaped !== undefined) return escaped;
  if (code !== undefined) return h("code", { dir: "ltr" }, code);
  if (address !== undefined) return anchor(address, spans(label));
  if (bold !== undefined) return h("strong", {}, spans(bold));
  if (struck !== undefined) return h("s", {}, spans(struck));
  if (starred !== undefined) return h("em", {}, spans(starred));
  if (underlined !== undefined) return h("em", {}, spans(underlined));
  if (bare !== undefined) return anchor(bare, bare);
  return emojiNode(short);
}
