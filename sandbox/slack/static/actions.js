// Telling the server that somebody used an element, and showing how that went.

import { api } from "./api.js";
import { confirmed } from "./dialogs.js";
import { h, icon } from "./dom.js";
import { store } from "./store.js";

const BUSY = "busy";
const KEEP_FAILURE_MS = 15_000;

const states = new Map(); // element's key -> BUSY or a sentence about the failure

/** An element's name on the page, stable across redraws. */
export const keyOf = (ctx, block, element) => `${ctx.key}|${block.block_id ?? ""}|${element.action_id ?? ""}`;

/** Remember the node's key and show the state that the key is in. */
export function tracked(node, key) {
  node.dataset.key = key;
  paint(node, states.get(key));
  return node;
}

function paint(node, state) {
  const busy = state === BUSY;
  node.classList.toggle("is-busy", busy);
  node.setAttribute("aria-busy", String(busy));
  node.parentElement?.querySelector(`:scope > .trouble[data-for="${CSS.escape(node.dataset.key)}"]`)?.remove();
  if (!state || busy) return;
  const mark = h("span.trouble", { role: "alert", title: state, data: { for: node.dataset.key } }, icon("warn"), h("span.sr-only", {}, state));
  queueMicrotask(() => node.isConnected && !node.nextElementSibling?.matches(".trouble") && node.after(mark));
}

function setState(key, state) {
  if (state) states.set(key, state);
  else states.delete(key);
  for (const node of document.querySelectorAll(`[data-key="${CSS.escape(key)}"]`)) paint(node, state);
}

/** Asks first if the element wants it; false means that the person thought better of it. */
export async function act(ctx, block, element, fields) {
  const key = keyOf(ctx, block, element);
  if (states.get(key) === BUSY) return false;
  if (element.confirm && !(await confirmed(element.confirm))) return false;
  setState(key, BUSY);
  const failure = await send(ctx, block, element, fields);
  setState(key, failure);
  if (failure) setTimeout(() => states.get(key) === failure && setState(key, null), KEEP_FAILURE_MS);
  return true;
}

async function send(ctx, block, element, fields) {
  try {
    const answer = await api.action({
      user: store.user,
      container: ctx.container,
      block_id: block.block_id ?? "",
      action_id: element.action_id ?? "",
      type: element.type,
      ...fields,
      values: ctx.values?.() ?? {},
    });
    return trouble(answer);
  } catch (error) {
    return error.message;
  }
}

/** The sentence about what went wrong in an answer, or null. */
export function trouble(answer) {
  if (answer.ok !== false && !answer.error) return null;
  return sentence(answer.error ?? "no_answer");
}

const SENTENCES = {
  operation_timeout: "The app did not answer within 3 seconds.",
  dispatch_failed: "The app could not be reached, or answered with an error.",
  no_answer: "The app did not answer.",
};

const sentence = (code) => (SENTENCES[code] ? `${SENTENCES[code]} (${code})` : String(code));
