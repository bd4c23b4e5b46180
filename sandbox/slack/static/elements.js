// Block elements that people use: buttons, selects, pickers, inputs. Each input can be read.

import { act, keyOf, tracked } from "./actions.js";
import { api } from "./api.js";
import { menu } from "./dialogs.js";
import { h, icon, ownUrl, replace, safeUrl } from "./dom.js";
import { plain, textObject } from "./mrkdwn.js";
import { channelName, nameOf, person, store } from "./store.js";

const readers = new WeakMap(); // node -> () => the element's part of state.values

/** The values of every input under `root`: {block_id: {action_id: {...}}}. */
export function collect(root) {
  const values = {};
  for (const node of root.querySelectorAll("[data-input]")) {
    const read = readers.get(node);
    if (!read) continue;
    (values[node.dataset.block] ??= {})[node.dataset.action] = read();
  }
  return values;
}

/** The node of an element, or null for a kind that is unknown. */
export function element(el, block, ctx) {
  return DRAW[el.type]?.(el, block, ctx) ?? null;
}

const DRAW = {
  button, overflow, static_select: select, users_select: select, channels_select: select, conversations_select: select,
  external_select: searched, multi_static_select: several, multi_users_select: several, multi_channels_select: several,
  multi_conversations_select: several, checkboxes: choices, radio_buttons: choices, datepicker: picker, timepicker: picker,
  datetimepicker: picker, plain_text_input: typed, email_text_input: typed, url_text_input: typed, number_input: typed,
  image,
};

export function image(el) {
  return picture(el.image_url ?? el.slack_file?.url ?? "", el.alt_text ?? "");
}

/** An image of this server; another one is named, not fetched: the page asks nobody else for anything. */
export function picture(address, alt, id = null) {
  const own = ownUrl(id ? `/ui/file/${encodeURIComponent(id)}` : address);
  if (own) return h("img", { src: own, alt });
  const link = safeUrl(address);
  return h("span.no-image", { title: address }, icon("file"), link ? h("a", { href: link, target: "_blank", rel: "noopener noreferrer" }, alt || address) : alt);
}

function button(el, block, ctx) {
  const style = { primary: ".primary", danger: ".danger" }[el.style] ?? "";
  const node = h(`button.btn${style}`, {
    type: "button", "aria-label": el.accessibility_label ?? null, data: { action: el.action_id ?? "" },
    onclick: () => {
      const url = el.url && safeUrl(el.url);
      if (url) window.open(url, "_blank", "noopener,noreferrer");
      act(ctx, block, el, el.value === undefined ? {} : { value: el.value });
    },
  }, h("span.label", {}, textObject(el.text)), el.url ? icon("out", 13) : null, h("span.spinner", { "aria-hidden": "true" }));
  return tracked(node, keyOf(ctx, block, el));
}

function overflow(el, block, ctx) {
  const node = h("button.btn.square", {
    type: "button", "aria-label": "More actions", "aria-haspopup": "menu", "aria-expanded": "false", data: { action: el.action_id ?? "" },
    onclick: () => menu(node, (box, close) => {
      for (const option of el.options ?? []) {
        box.append(h("button.entry", { type: "button", role: "menuitem", onclick: () => {
          close();
          const url = option.url && safeUrl(option.url);
          if (url) window.open(url, "_blank", "noopener,noreferrer");
          act(ctx, block, el, { selected_option: option });
        } }, textObject(option.text), option.description ? h("small", {}, textObject(option.description)) : null));
      }
    }, { label: "More actions" }),
  }, icon("more"), h("span.spinner", { "aria-hidden": "true" }));
  return tracked(node, keyOf(ctx, block, el));
}

// --- inputs ------------------------------------------------------------------------------

/** Make `node` readable and, where the app wants to hear of each change, tell it. */
function wired(node, el, block, ctx, read, event = "change") {
  Object.assign(node.dataset, { input: "", block: block.block_id ?? "", action: el.action_id ?? "" });
  readers.set(node, () => ({ type: el.type, ...read() }));
  const quiet = block.type === "input" && !block.dispatch_action;
  if (!quiet) node.addEventListener(event, () => act(ctx, block, el, read()));
  return tracked(node, keyOf(ctx, block, el));
}

const keptValue = (el, block, ctx) => {
  const kept = ctx.kept?.[block.block_id]?.[el.action_id];
  return kept && kept.type === el.type ? kept : null;
};

/** The options of a select: its own, or everybody, or every channel. */
function optionsOf(el) {
  const kind = el.type.replace("multi_", "");
  if (kind === "users_select") return people();
  if (kind === "channels_select" || kind === "conversations_select") return channels();
  return (el.option_groups ?? [{ options: el.options ?? [] }]).flatMap((g) => (g.options ?? []).map((option) => ({ id: option.value, option, group: g.label ?? null })));
}

const people = () => store.state.people.filter((p) => !p.deleted && p.id !== "USLACKBOT").map((p) => ({ id: p.id, name: nameOf(p) }));
const channels = () => store.state.channels.filter((c) => !c.is_archived && !c.is_im).map((c) => ({ id: c.id, name: `#${channelName(c)}` }));

const FIELD = { users_select: "selected_user", channels_select: "selected_channel", conversations_select: "selected_conversation" };
const LIST = { multi_users_select: "selected_users", multi_channels_select: "selected_channels", multi_conversations_select: "selected_conversations" };
const START = { users_select: "initial_user", channels_select: "initial_channel", conversations_select: "initial_conversation" };
const STARTS = { multi_users_select: "initial_users", multi_channels_select: "initial_channels", multi_conversations_select: "initial_conversations" };

function select(el, block, ctx) {
  const field = FIELD[el.type] ?? "selected_option";
  const options = optionsOf(el);
  const kept = keptValue(el, block, ctx);
  const chosen = kept ? (kept[field]?.value ?? kept[field]) : (el.initial_option?.value ?? el[START[el.type]] ?? "");
  const node = h("select.field", { "aria-label": el.placeholder?.text ?? "Choose" });
  node.append(h("option", { value: "" }, el.placeholder?.text ?? "Choose one…"));
  const groups = new Map();
  for (const one of options) {
    let home = node;
    if (one.group) {
      if (!groups.has(one.group)) groups.set(one.group, node.appendChild(h("optgroup", { label: one.group.text ?? "" })));
      home = groups.get(one.group);
    }
    home.append(h("option", { value: one.id }, one.name ?? plain(one.option.text?.text ?? "").map((x) => x?.textContent ?? x ?? "").join("")));
  }
  node.value = chosen ?? "";
  const read = () => {
    const found = options.find((one) => one.id === node.value);
    return { [field]: found ? (found.option ?? found.id) : null };
  };
  return wired(node, el, block, ctx, read);
}

/** A select whose options the app gives as one types. */
function searched(el, block, ctx) {
  const kept = keptValue(el, block, ctx);
  let chosen = kept?.selected_option ?? el.initial_option ?? null;
  let timer = 0;
  const id = `options-${block.block_id}-${el.action_id}`;
  const list = h("datalist", { id });
  const input = h("input.field", { type: "text", list: id, autocomplete: "off", placeholder: el.placeholder?.text ?? "Type to search…", value: chosen?.text?.text ?? "" });
  const found = new Map();
  const ask = async () => {
    const answer = await api.options({ user: store.user, container: ctx.container, block_id: block.block_id, action_id: el.action_id, value: input.value }).catch(() => ({}));
    const options = answer.options ?? (answer.option_groups ?? []).flatMap((g) => g.options);
    for (const option of options) found.set(option.text?.text ?? option.value, option);
    replace(list, options.map((option) => h("option", { value: option.text?.text ?? option.value })));
  };
  input.addEventListener("input", () => {
    clearTimeout(timer);
    chosen = found.get(input.value) ?? null;
    if (!chosen && input.value.length >= (el.min_query_length ?? 3)) timer = setTimeout(ask, 250);
  });
  if ((el.min_query_length ?? 3) === 0) input.addEventListener("focus", ask, { once: true });
  const node = h("span.search", {}, input, list);
  input.addEventListener("change", (event) => chosen === null && event.stopPropagation());
  return wired(node, el, block, ctx, () => ({ selected_option: chosen }));
}

function several(el, block, ctx) {
  const field = LIST[el.type] ?? "selected_options";
  const kept = keptValue(el, block, ctx)?.[field] ?? el[STARTS[el.type]] ?? el.initial_options ?? [];
  const on = new Set(kept.map((one) => one.value ?? one));
  const options = optionsOf(el);
  const boxes = options.map((one) => h("input", { type: "checkbox", checked: on.has(one.id), value: one.id }));
  const node = h("div.several.field", { role: "group", "aria-label": el.placeholder?.text ?? "Choose any" },
    options.map((one, i) => h("label", {}, boxes[i], one.name ?? textObject(one.option.text))));
  const read = () => ({ [field]: options.filter((_, i) => boxes[i].checked).map((one) => one.option ?? one.id) });
  return wired(node, el, block, ctx, read);
}

let groupCount = 0;

function choices(el, block, ctx) {
  const many = el.type === "checkboxes";
  const kept = keptValue(el, block, ctx);
  const start = many ? (kept?.selected_options ?? el.initial_options ?? []) : [kept?.selected_option ?? el.initial_option ?? null];
  const on = new Set(start.filter(Boolean).map((option) => option.value));
  groupCount += 1;
  const boxes = (el.options ?? []).map((option) =>
    h("input", { type: many ? "checkbox" : "radio", name: `choice-${groupCount}`, value: option.value, checked: on.has(option.value) }));
  const node = h("div.choices", { role: many ? "group" : "radiogroup" }, (el.options ?? []).map((option, i) =>
    h("label", {}, boxes[i], h("span", {}, textObject(option.text), option.description ? h("small", {}, textObject(option.description)) : null))));
  const read = () => {
    const chosen = (el.options ?? []).filter((_, i) => boxes[i].checked);
    return many ? { selected_options: chosen } : { selected_option: chosen[0] ?? null };
  };
  return wired(node, el, block, ctx, read);
}

const PICK = {
  datepicker: ["date", "selected_date", "initial_date"],
  timepicker: ["time", "selected_time", "initial_time"],
  datetimepicker: ["datetime-local", "selected_date_time", "initial_date_time"],
};

function picker(el, block, ctx) {
  const [type, field, initial] = PICK[el.type];
  const both = el.type === "datetimepicker";
  const start = keptValue(el, block, ctx)?.[field] ?? el[initial] ?? null;
  const node = h("input.field", { type, value: start === null ? "" : both ? localInput(start) : start, "aria-label": el.placeholder?.text ?? type });
  return wired(node, el, block, ctx, () => ({ [field]: node.value === "" ? null : both ? Math.floor(new Date(node.value).getTime() / 1000) : node.value }));
}

function localInput(epoch) {
  const date = new Date(epoch * 1000);
  return new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

function typed(el, block, ctx) {
  const start = keptValue(el, block, ctx)?.value ?? el.initial_value ?? "";
  const common = { placeholder: el.placeholder?.text ?? null, maxlength: el.max_length ?? null, autocomplete: "off", value: start };
  const type = { email_text_input: "email", url_text_input: "url" }[el.type] ?? "text";
  const node = el.multiline
    ? h("textarea.field", { rows: "4", ...common })
    : h("input.field", { type, inputmode: el.type === "number_input" ? "decimal" : null, ...common });
  const triggers = el.dispatch_action_config?.trigger_actions_on ?? ["on_enter_pressed"];
  const onEach = triggers.includes("on_character_entered");
  if (el.focus_on_load) node.dataset.first = "";
  const made = wired(node, el, block, ctx, () => ({ value: node.value === "" ? null : node.value }), onEach ? "input" : "enter");
  if (!onEach && block.dispatch_action) {
    node.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey) return;
      event.preventDefault();
      node.dispatchEvent(new Event("enter"));
    });
  }
  return made;
}

/** Who is meant by a user id, for those that draw it. */
export const someone = (id) => nameOf(person(id));
