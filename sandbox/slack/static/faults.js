// Slack having a bad day, on demand; and accounts that change while requests are open.

import { api } from "./api.js";
import { toast } from "./dialogs.js";
import { h, icon, replace } from "./dom.js";
import { avatar, badges } from "./people.js";
import { app, nameOf, store } from "./store.js";

const METHODS = ["chat.postMessage", "chat.update", "chat.postEphemeral", "views.open", "views.update", "views.publish", "users.info", "usergroups.users.list", "conversations.history", "conversations.info", "files.getUploadURLExternal", "files.completeUploadExternal", "response_url", "socket", "data_visualization", "*"];

const KINDS = [
  ["429", "Too many requests", "Answers 429 with Retry-After"],
  ["500", "Server error", "Answers 500"],
  ["html", "A proxy’s page", "Answers HTML instead of JSON"],
  ["error", "Refused", "Answers ok: false with a code"],
  ["slow", "Slow", "Waits, then does the work"],
  ["drop_before", "Dropped before", "Hangs up; nothing was done"],
  ["drop_after", "Dropped after", "Does the work, then hangs up: the answer is lost"],
  ["abort_socket", "Connection reset", "Resets the connection"],
  ["no_block", "No such block yet", "Refuses messages with blocks of this type, such as data_visualization, until it is cleared"],
];

// Only Slack's own time: the app and its databases keep the machine's.
const CLOCK = [
  [4, "+4 s", "A click’s trigger expires after 3 seconds"],
  [1860, "+31 min", "A response URL expires after 30 minutes"],
  [86400, "+1 day", "The next day"],
];

/** The panel in `root`. */
export function faultsPanel(root) {
  const method = h("input.field", { list: "fault-methods", value: "chat.postMessage", "aria-label": "Method" });
  const kind = h("select.field", { "aria-label": "What goes wrong" }, KINDS.map(([value, label]) => h("option", { value }, `${label} (${value})`)));
  const times = h("input.field.narrow", { type: "number", min: "1", max: "99", value: "1", "aria-label": "How many times" });
  const why = h("p.hint");
  const waiting = h("ul.waiting", { "aria-label": "Faults that wait" });
  const explain = () => replace(why, KINDS.find(([value]) => value === kind.value)?.[2] ?? "", ".");
  kind.addEventListener("change", explain);
  explain();
  const form = h("form", { onsubmit: (event) => { event.preventDefault(); add({ method: method.value.trim(), kind: kind.value, times: Number(times.value) || 1 }); } },
    h("label", {}, h("span", {}, "Method"), method, h("datalist", { id: "fault-methods" }, METHODS.map((value) => h("option", { value })))),
    h("label", {}, h("span", {}, "What goes wrong"), kind), h("label", {}, h("span", {}, "Times"), times),
    h("button.btn.primary", { type: "submit" }, icon("bolt", 14), "Inject"), h("button.btn", { type: "button", onclick: () => clear() }, "Clear all"));
  const clock = h("p.hint", {}, "Slack’s clock: ", CLOCK.map(([seconds, label, what]) =>
    h("button.btn", { type: "button", title: what, onclick: () => advance(seconds, label) }, icon("clock", 14), label)));
  root.append(h("div.faults", {}, form, why, clock, waiting));
  return { render: () => drawWaiting(waiting, store.state.faults ?? []) };
}

const drawn = { stamp: null };

function drawWaiting(list, faults) {
  const stamp = JSON.stringify(faults);
  if (drawn.stamp === stamp) return;
  drawn.stamp = stamp;
  replace(list, faults.length
    ? faults.map((fault) => h("li", {}, icon("bolt", 14), h("code", {}, fault.method), h("b", {}, KINDS.find(([value]) => value === fault.kind)?.[1] ?? fault.kind), h("span", {}, `${fault.times ?? 1}×`),
      h("button.round", { type: "button", "aria-label": `Take back the fault of ${fault.method}`, onclick: () => clear(fault.id) }, icon("close", 13))))
    : h("li.empty", {}, "No fault waits. Slack is having a good day."));
}

async function add(fault) {
  try {
    const answer = await api.addFault(fault);
    if (answer.ok === false) toast(answer.error, "error");
  } catch (error) {
    toast(error.message, "error");
  }
}

async function advance(seconds, label) {
  try {
    await api.advance(seconds);
    toast(`Slack’s clock runs ahead: ${label}.`);
  } catch (error) {
    toast(error.message, "error");
  }
}

async function clear(id = null) {
  try {
    await api.clearFaults(id);
  } catch (error) {
    toast(error.message, "error");
  }
}

const FLAG_WORDS = {
  deactivated: "Deactivated", guest: "Guest", single_channel_guest: "Single-channel guest", external: "External", unconfirmed: "E-mail unconfirmed", bot: "Bot",
};

/** The panel in `root` that flips what can be wrong with an account. */
export function accountsPanel(root) {
  const grid = h("div.accounts");
  root.append(h("p.hint", {}, "Change an account while a request waits: the next click, and the run itself, must notice."), grid);
  let stamp = null;
  const render = () => {
    const next = JSON.stringify([store.state.people, store.state.usergroups]);
    if (root.hidden || stamp === next) return;
    stamp = next;
    fill(grid);
  };
  return { render };
}

function fill(grid) {
  const people = store.state.people.filter((p) => p.id !== app().user_id && p.id !== "USLACKBOT");
  const focus = document.activeElement?.id;
  replace(grid, people.map((p) => account(p, p.flags ?? {})));
  if (focus) document.getElementById(focus)?.focus({ preventScroll: true });
}

function account(p, flags) {
  const toggles = Object.entries(flags);
  return h("div.account", {}, avatar(p), h("div", {}, h("div.line", {}, h("b", {}, nameOf(p)), badges(p)),
    h("div.flags", {}, toggles.map(([name, on]) => {
      const box = h("input", { type: "checkbox", id: `flag-${p.id}-${name}`, checked: on, onchange: () => flip(p, name, box) });
      return h("label", {}, box, FLAG_WORDS[name] ?? name);
    }))));
}

async function flip(p, name, box) {
  try {
    await api.setFlags(p.id, { [name]: box.checked });
  } catch (error) {
    box.checked = !box.checked;
    toast(error.message, "error");
  }
}
