// The `rich_text` block as nodes.

import { h } from "./dom.js";
import { anchor, channelLink, emojiNode, groupMention, mention, referenced } from "./mrkdwn.js";

/** Nodes for the elements of a rich_text block. */
export const richText = (elements) => elements.map(part);

function part(el) {
  switch (el.type) {
    case "rich_text_section":
      return h("div.para", { dir: "auto" }, (el.elements ?? []).map(leaf));
    case "rich_text_preformatted":
      return h("pre.code", { tabindex: "0", dir: "ltr" }, h("code", {}, (el.elements ?? []).map(leaf)));
    case "rich_text_quote":
      return h("blockquote", { dir: "auto" }, (el.elements ?? []).map(leaf));
    case "rich_text_list":
      return list(el);
    default:
      return leaf(el);
  }
}

function list(el) {
  const tag = el.style === "ordered" ? "ol" : "ul";
  return h(tag, { start: el.offset ? el.offset + 1 : null, vars: { "--indent": Math.min(el.indent ?? 0, 8) } },
    (el.elements ?? []).map((item) => h("li", { vars: { "--indent": Math.min(el.indent ?? 0, 8) } }, (item.elements ?? []).map(leaf))));
}

function leaf(el) {
  switch (el.type) {
    case "text":
      return styled(el.text ?? "", el.style ?? {});
    case "link":
      return styled(anchor(el.url ?? "", el.text ?? el.url ?? ""), el.style ?? {});
    case "emoji":
      return emojiNode(el.name ?? "") ?? `:${el.name}:`;
    case "user":
      return mention(el.user_id);
    case "channel":
      return channelLink(el.channel_id);
    case "usergroup":
      return groupMention(el.usergroup_id);
    case "broadcast":
      return h("span.mention.loud", {}, `@${el.range}`);
    case "date":
      return referenced(`!date^${el.timestamp}^${el.format ?? "{date} {time}"}|${el.fallback ?? ""}`);
    case "color":
      return h("code", {}, el.value ?? "");
    default:
      return el.text ?? "";
  }
}

function styled(content, style) {
  let node = content;
  if (style.code) node = h("code", { dir: "ltr" }, node);
  if (style.strike) node = h("s", {}, node);
  if (style.italic) node = h("em", {}, node);
  if (style.bold) node = h("strong", {}, node);
  return node;
}
