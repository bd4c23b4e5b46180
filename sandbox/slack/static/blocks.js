// Block Kit's layout blocks as nodes. A block that cannot be drawn says so and harms no other.

import { chart } from "./chart.js";
import { h } from "./dom.js";
import { element, picture } from "./elements.js";
import { markdown } from "./markdown.js";
import { textObject } from "./mrkdwn.js";
import { richText } from "./richtext.js";

/**
 * Nodes for `blocks`. `ctx`: key (stable name of the surface), container (for actions),
 * kept (values to put back), values() (what to send along), errors ({block_id: text}).
 */
export function blocks(list, ctx) {
  return (list ?? []).map((block) => {
    try {
      return drawn(block, ctx);
    } catch {
      return unknown(block);
    }
  });
}

function drawn(block, ctx) {
  const node = LAYOUT[block.type]?.(block, ctx);
  if (!node) return unknown(block);
  node.classList.add("block");
  node.dataset.blockId = block.block_id ?? "";
  return node;
}

const unknown = (block) => h("div.block.unknown", {}, `A block of type “${block?.type ?? "none"}”, which this page does not draw.`);

const LAYOUT = {
  header: (b) => h("div.b-header", { role: "heading", "aria-level": "3", dir: "auto" }, textObject(b.text)),
  divider: () => h("hr.b-divider"),
  section, context, actions, image, input, table, alert,
  data_table: table,
  rich_text: (b) => h("div.b-rich", {}, richText(b.elements ?? [])),
  markdown: (b) => h("div.b-markdown", {}, markdown(b.text ?? "")),
  data_visualization: (b) => h("div.b-chart", {}, chart(b)),
  context_actions: actions,
  video: (b) => h("div.b-image", {}, textObject(b.title), picture(b.thumbnail_url ?? "", b.alt_text ?? "")),
};

function section(block, ctx) {
  const fields = (block.fields ?? []).map((field) => h("div.cell", { dir: "auto" }, textObject(field)));
  return h("div.b-section", {},
    h("div.main", {}, block.text ? h("div.words", { dir: "auto" }, textObject(block.text)) : null,
      fields.length ? h("div.fields", {}, fields) : null),
    block.accessory ? h("div.accessory", {}, element(block.accessory, block, ctx) ?? unknown(block.accessory)) : null);
}

function context(block) {
  return h("div.b-context", {}, (block.elements ?? []).map((el) =>
    el.type === "image" ? picture(el.image_url ?? "", el.alt_text ?? "") : h("span", { dir: "auto" }, textObject(el))));
}

function actions(block, ctx) {
  return h("div.b-actions", {}, (block.elements ?? []).map((el) => h("span.slot", {}, element(el, block, ctx) ?? unknown(el))));
}

function image(block) {
  return h("figure.b-image", {}, block.title ? h("figcaption", {}, textObject(block.title)) : null,
    picture(block.image_url ?? block.slack_file?.url ?? "", block.alt_text ?? "", block.slack_file?.id ?? null));
}

function alert(block) {
  return h(`div.b-alert.${/^[a-z]+$/.test(block.level ?? "") ? block.level : "default"}`, { role: "note" }, textObject(block.text));
}

let inputs = 0;

function input(block, ctx) {
  inputs += 1;
  const id = `input-${inputs}`;
  const control = element(block.element ?? {}, block, ctx) ?? unknown(block.element);
  const error = ctx.errors?.[block.block_id] ?? null;
  const single = control.matches("input, select, textarea");
  const target = single ? control : control.querySelector(".search input");
  if (target) target.id = id;
  else control.setAttribute("aria-labelledby", `${id}-label`);
  (target ?? control).setAttribute("aria-describedby", `${id}-hint ${id}-error`);
  if (error) (target ?? control).setAttribute("aria-invalid", "true");
  return h("div.b-input", { class: error ? "has-error" : "" },
    h("label.name", { for: target ? id : null, id: `${id}-label` }, textObject(block.label), block.optional ? h("i", {}, " (optional)") : null),
    control,
    h("p.hint", { id: `${id}-hint` }, block.hint ? textObject(block.hint) : null),
    h("p.error", { id: `${id}-error`, role: "alert" }, error));
}

function table(block, ctx) {
  const settings = block.column_settings ?? [];
  const rows = block.rows ?? [];
  const cell = (tag) => (content, i) => {
    const align = settings[i]?.align ?? (content?.type === "raw_number" ? "right" : "left");
    return h(tag, { class: `${align} ${settings[i]?.is_wrapped === false ? "" : "wrap"}`, dir: "auto", scope: tag === "th" ? "col" : null }, cellContent(content, block, ctx));
  };
  return h("div.b-table.table", { tabindex: "0", role: "region", "aria-label": block.caption ?? "Table" },
    h("table", {}, block.caption ? h("caption", {}, block.caption) : null,
      h("thead", {}, rows.slice(0, 1).map((row) => h("tr", {}, row.map(cell("th"))))),
      h("tbody", {}, rows.slice(1).map((row) => h("tr", {}, row.map(cell("td")))))));
}

function cellContent(content, block, ctx) {
  if (content === null || content === undefined) return "";
  if (content.type === "rich_text") return richText(content.elements ?? []);
  if (content.type === "action") return element(content.element ?? content.button ?? {}, block, ctx);
  return String(content.text ?? content.value ?? "");
}
