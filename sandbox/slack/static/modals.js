// The modal stack: the last view is shown; what was typed outlives an update of its view.

import { trouble } from "./actions.js";
import { api } from "./api.js";
import { blocks } from "./blocks.js";
import { toast } from "./dialogs.js";
import { h, icon, replace } from "./dom.js";
import { collect } from "./elements.js";
import { textObject } from "./mrkdwn.js";
import { app, store } from "./store.js";

const shown = { dialog: null, view: null, json: "", errors: {}, problem: null, busy: false };

/** Show what the server says is on top of this person's stack. */
export function renderModals() {
  const stack = store.state?.views ?? [];
  const view = stack[stack.length - 1] ?? null;
  if (!view) return closeDialog();
  const json = JSON.stringify(view);
  if (shown.dialog && json === shown.json) return;
  const same = shown.view?.id === view.id;
  const kept = same ? collect(shown.dialog) : (view.state?.values ?? {});
  if (!same) Object.assign(shown, { errors: {}, problem: null, busy: false });
  Object.assign(shown, { view, json });
  openDialog();
  draw(kept, stack.length);
}

function openDialog() {
  if (shown.dialog) return;
  shown.dialog = h("dialog.modal", { "aria-labelledby": "modal-title" });
  shown.dialog.addEventListener("cancel", (event) => {
    event.preventDefault();
    leave();
  });
  document.body.append(shown.dialog);
  shown.dialog.showModal();
}

function closeDialog() {
  if (!shown.dialog) return;
  const { dialog } = shown;
  Object.assign(shown, { dialog: null, view: null, json: "", errors: {}, problem: null, busy: false });
  dialog.close(); // gives the keyboard back to where it was
  dialog.remove();
}

function draw(kept, depth) {
  const { view, dialog } = shown;
  const focus = document.activeElement?.closest("[data-key]")?.dataset.key;
  const ctx = {
    key: view.id, container: { type: "view", view_id: view.id }, kept, errors: shown.errors,
    values: () => collect(dialog),
  };
  const body = h("div.body", {}, problemNote(view), blocks(view.blocks, ctx));
  if (!(view.blocks ?? []).length) body.append(h("p.empty", {}, "This dialog has nothing to show yet."));
  const form = h("form", { novalidate: true, onsubmit: submit }, heading(view, depth), body, buttons(view));
  const top = dialog.querySelector(".body")?.scrollTop ?? 0;
  replace(dialog, form);
  dialog.querySelector(".body").scrollTop = top;
  settleFocus(dialog, focus);
  setBusy(shown.busy);
}

function heading(view, depth) {
  return h("header", {},
    h("span.avatar.m.of-app", { "aria-hidden": "true" }, icon("key", 20)),
    h("div.titles", {}, h("h2", { id: "modal-title" }, textObject(view.title)),
      h("small", {}, app().name, depth > 1 ? ` · step ${depth}` : "")),
    h("button.round", { type: "button", "aria-label": "Close", onclick: leave }, icon("close")));
}

function buttons(view) {
  return h("footer", {},
    h("button.btn", { type: "button", onclick: leave }, textObject(view.close ?? { text: view.submit ? "Cancel" : "Close" })),
    view.submit ? h("button.btn.primary.submit", { type: "submit" }, h("span.label", {}, textObject(view.submit)), h("span.spinner", { "aria-hidden": "true" })) : null);
}

function problemNote(view) {
  const problem = shown.problem ?? view.failed;
  return problem ? h("p.problem", { role: "alert" }, icon("warn"), h("span", {}, problem)) : null;
}

function settleFocus(dialog, key) {
  const again = key && dialog.querySelector(`[data-key="${CSS.escape(key)}"]`);
  const wrong = dialog.querySelector("[aria-invalid=true]");
  const first = dialog.querySelector("[data-first]") ?? dialog.querySelector(".body :is(input, select, textarea, button):not([disabled])");
  (wrong ?? again ?? first ?? dialog.querySelector("footer button:last-child"))?.focus({ preventScroll: !wrong });
}

function setBusy(busy) {
  shown.busy = busy;
  const button = shown.dialog?.querySelector(".submit");
  button?.classList.toggle("is-busy", busy);
  for (const field of shown.dialog?.querySelectorAll("input, select, textarea, footer button") ?? []) field.disabled = busy;
}

function redraw(kept) {
  if (shown.dialog) draw(kept, store.state.views.length);
}

async function submit(event) {
  event.preventDefault();
  if (shown.busy) return;
  const values = collect(shown.dialog);
  const view = shown.view;
  shown.problem = null;
  shown.errors = missing(view, values);
  if (Object.keys(shown.errors).length) return redraw(values);
  redraw(values);
  setBusy(true);
  const answer = await api.submit({ user: store.user, view_id: view.id, values }).catch((error) => ({ ok: false, error: error.message }));
  if (shown.view?.id !== view.id) return undefined;
  setBusy(false);
  shown.errors = answer.errors ?? {};
  const known = new Set((view.blocks ?? []).map((block) => block.block_id));
  const stray = Object.entries(shown.errors).filter(([id]) => !known.has(id)).map(([id, text]) => `${id}: ${text}`);
  const failed = Object.keys(shown.errors).length ? null : trouble(answer);
  shown.problem = stray.join(" ") || (failed && `The app had trouble with this form. ${failed} Nothing was sent twice; try again.`) || null;
  return redraw(values);
}

/** What Slack checks by itself before it asks the app. */
function missing(view, values) {
  const found = {};
  for (const block of view.blocks ?? []) {
    if (block.type !== "input") continue;
    const value = values[block.block_id]?.[block.element?.action_id] ?? {};
    const content = Object.entries(value).filter(([name]) => name !== "type").map(([, one]) => one);
    const empty = content.every((one) => one === null || one === "" || (Array.isArray(one) && !one.length));
    if (empty && !block.optional) found[block.block_id] = "Please complete this required field.";
    else if (!empty && (block.element?.min_length ?? 0) > (value.value ?? "").length) found[block.block_id] = `Please enter at least ${block.element.min_length} characters.`;
    else if (!empty && block.element?.type === "number_input") wrongNumber(block, value.value, found);
  }
  return found;
}

function wrongNumber(block, text, found) {
  const { min_value: low, max_value: high, is_decimal_allowed: decimals } = block.element;
  const number = Number(text);
  if (Number.isNaN(number)) found[block.block_id] = "Please enter a number.";
  else if (!decimals && !/^\s*-?\d+\s*$/.test(text)) found[block.block_id] = "Please enter a whole number.";
  else if (low !== undefined && low !== null && number < Number(low)) found[block.block_id] = `Please enter a number of at least ${low}.`;
  else if (high !== undefined && high !== null && number > Number(high)) found[block.block_id] = `Please enter a number of at most ${high}.`;
}

async function leave() {
  if (!shown.view || shown.busy) return;
  try {
    await api.close({ user: store.user, view_id: shown.view.id });
  } catch (error) {
    toast(error.message, "error");
  }
}
