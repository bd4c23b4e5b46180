// Slack's mrkdwn as nodes. Everything that somebody wrote ends up in a text node.

import { h, safeUrl } from "./dom.js";
import { emoji } from "./emoji.js";
import { channel, channelName, group, nameOf, person, store } from "./store.js";
import { full, slackDate } from "./times.js";

/** The three entities that Slack escapes, and no others. */
export const unescape = (text) => text.replace(/&(lt|gt|amp);/g, (_, name) => ({ lt: "<", gt: ">", amp: "&" })[name]);

/** Nodes for mrkdwn: fences, quotes, lists and everything inline. */
export function mrkdwn(text, { verbatim = false } = {}) {
  const nodes = [];
  const parts = text.split("```");
  const closed = parts.length % 2 === 1 ? parts : [...parts.slice(0, -2), parts.slice(-2).join("```")];
  closed.forEach((part, index) => {
    if (index % 2 === 1) nodes.push(fence(part));
    else nodes.push(...paragraphs(trimAround(part, index, closed.length), verbatim));
  });
  return nodes;
}

function trimAround(part, index, count) {
  const start = index > 0 ? part.replace(/^\n/, "") : part;
  return index < count - 1 ? start.replace(/\n$/, "") : start;
}

const fence = (code) =>
  h("pre.code", { tabindex: "0", dir: "ltr" }, h("code", {}, unescape(links(code.replace(/^\n|\n$/g, "")))));

// Inside code a link token shows its label or its address, as text.
const links = (code) => code.replace(/<((?:https?|mailto):[^|<>]+)(?:\|([^<>]*))?>/g, (_, url, label) => label ?? url);

const QUOTE = /^(?:&gt;|>)(?!&gt;|>)\s?/;
const LONG_QUOTE = /^(?:&gt;|>){3}\s?/;
const ITEM = /^(\s*)([•◦▪︎‣*-]|\d{1,3}\.)\s+(?=\S)/;

function paragraphs(text, verbatim) {
  const nodes = [];
  const lines = text.split("\n");
  for (let at = 0; at < lines.length; ) {
    const kind = kindOf(lines[at]);
    let end = at + 1;
    while (end < lines.length && (kind === "long" || kindOf(lines[end]) === kind)) end += 1;
    nodes.push(...section(kind, lines.slice(at, end), verbatim));
    at = end;
  }
  return nodes;
}

function kindOf(line) {
  if (LONG_QUOTE.test(line)) return "long";
  if (QUOTE.test(line)) return "quote";
  return ITEM.test(line) ? "item" : "text";
}

function section(kind, lines, verbatim) {
  switch (kind) {
    case "long":
      return [h("blockquote", {}, paragraphs(lines.join("\n").replace(LONG_QUOTE, ""), verbatim))];
    case "quote":
      return [h("blockquote", {}, joined(lines.map((line) => line.replace(QUOTE, "")), verbatim))];
    case "item":
      return lines.map((line) => item(line, verbatim));
    default:
      return lines.length === 1 && lines[0] === "" ? [] : [h("div.para", { dir: "auto" }, joined(lines, verbatim))];
  }
}

function item(line, verbatim) {
  const [whole, indent, mark] = ITEM.exec(line);
  const sign = /\d/.test(mark) ? mark : "•";
  return h(
    "div.item",
    { vars: { "--indent": Math.min(Math.floor(indent.length / 2), 5) } },
    h("span.mark", {}, sign),
    h("span", { dir: "auto" }, inline(line.slice(whole.length), verbatim)),
  );
}

const joined = (lines, verbatim) => lines.flatMap((line, index) => (index ? [h("br"), inline(line, verbatim)] : [inline(line, verbatim)]));

const INLINE =
  /<([^<>\n]{1,3000})>|`([^`\n]{1,3000})`|:([a-z0-9_+'-]{1,60}):|(https?:\/\/[^\s<>|]{1,2000}[^\s<>|.,;:!?)\]}'"])|(?<![\p{L}\p{N}*_~])([*_~])(?=[^\s*_~])(.{1,1500}?)(?<=\S)\5(?![\p{L}\p{N}])/gu;

const STYLED = { "*": "strong", _: "em", "~": "s" };

/** Nodes for one line. */
export function inline(text, verbatim = false) {
  const nodes = [];
  let done = 0;
  for (const match of text.matchAll(INLINE)) {
    const node = token(match, verbatim);
    if (node === null) continue;
    if (match.index > done) nodes.push(unescape(text.slice(done, match.index)));
    nodes.push(node);
    done = match.index + match[0].length;
  }
  if (done < text.length) nodes.push(unescape(text.slice(done)));
  return nodes;
}

function token([whole, reference, code, short, bare, style, inner], verbatim) {
  if (reference !== undefined) return referenced(reference);
  if (code !== undefined) return h("code", { dir: "ltr", class: /^[█▉▊▋▌▍▎▏▓▒░ ]+$/.test(code) ? "meter" : "" }, unescape(links(code)));
  if (short !== undefined) return emojiNode(short);
  if (bare !== undefined) return verbatim ? null : anchor(unescape(bare), unescape(bare));
  if (style !== undefined) return h(STYLED[style], {}, inline(inner, verbatim));
  return whole;
}

export function emojiNode(name) {
  const found = emoji(name);
  return found && h("span.emoji", { role: "img", "aria-label": name.replaceAll("_", " "), title: `:${name}:` }, found);
}

/** What stands between < and >: a mention, a date or a link. */
export function referenced(inside) {
  const cut = inside.indexOf("|");
  const target = cut < 0 ? inside : inside.slice(0, cut);
  const label = cut < 0 ? null : unescape(inside.slice(cut + 1));
  if (/^@[UWB]/.test(target)) return mention(target.slice(1), label);
  if (/^#[CGD]/.test(target)) return channelLink(target.slice(1), label);
  if (target.startsWith("!subteam^")) return groupMention(target.slice(9), label);
  if (target.startsWith("!date^")) return dateNode(target, label);
  if (/^!(here|channel|everyone)$/.test(target)) return h("span.mention.loud", {}, `@${target.slice(1)}`);
  if (target.startsWith("!")) return label ?? target;
  if (!/^(https?|mailto|tel):/i.test(target)) return `<${unescape(inside)}>`;
  return anchor(unescape(target), label ?? unescape(target));
}

export function mention(id, label = null) {
  const found = person(id);
  const name = found ? nameOf(found) : (label ?? id).replace(/^@/, "");
  const mine = id === store.user;
  return h("bdi.mention", { class: mine ? "me" : "", title: found?.real_name ?? id }, `@${name}`);
}

export function channelLink(id, label = null) {
  const found = channel(id);
  const name = found ? channelName(found) : (label ?? id);
  return h("a.mention", { href: `#${store.user}/${id}` }, `#${name.replace(/^#/, "")}`);
}

export function groupMention(id, label = null) {
  const found = group(id);
  const name = (found?.handle ?? label ?? id).replace(/^@/, "");
  const mine = (found?.users ?? []).includes(store.user);
  return h("bdi.mention", { class: mine ? "me" : "", title: found?.name ?? id }, `@${name}`);
}

function dateNode(target, label) {
  const [, ts, pattern, link] = target.split("^");
  const text = Number.isFinite(Number(ts)) && pattern ? slackDate(ts, unescape(pattern)) : (label ?? target);
  const time = h("time", { title: Number.isFinite(Number(ts)) ? full(ts) : "" }, text);
  return link && safeUrl(link) ? anchor(link, time) : time;
}

/** A link that leaves the page, or its text where the address is none that is safe. */
export function anchor(address, content) {
  const url = safeUrl(address);
  if (url === null) return h("span", { title: address }, content);
  return h("a", { href: url, target: "_blank", rel: "noopener noreferrer nofollow", title: address }, content);
}

/** A text object: plain_text or mrkdwn. */
export function textObject(object) {
  if (!object) return [];
  if (object.type === "mrkdwn") return mrkdwn(object.text ?? "", { verbatim: Boolean(object.verbatim) });
  return plain(object.text ?? "", object.emoji !== false);
}

/** Plain text with its line breaks and, unless it says no, emoji. */
export function plain(text, withEmoji = true) {
  return unescape(text).split("\n").flatMap((line, index) => [index ? h("br") : null, withEmoji ? emojis(line) : line]);
}

function emojis(line) {
  return line.split(/(:[a-z0-9_+'-]{1,60}:)/).map((part) => (/^:.+:$/.test(part) && emojiNode(part.slice(1, -1))) || part);
}

/** mrkdwn as one line of words, for previews and screen readers. */
export function words(text) {
  const holder = h("div", {}, mrkdwn(text ?? ""));
  return holder.textContent.replace(/\s+/g, " ").trim();
}
