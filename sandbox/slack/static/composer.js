// The box one writes in: slash commands and mentions complete themselves, arrow up brings back what was sent.

import { api } from "./api.js";
import { menu, toast } from "./dialogs.js";
import { h, icon, replace } from "./dom.js";
import { avatar } from "./people.js";
import { nameOf, store } from "./store.js";

const HISTORY_MAX = 50;
const histories = new Map(); // user -> texts, newest last

function historyOf(user) {
  if (!histories.has(user)) histories.set(user, []);
  return histories.get(user);
}

let count = 0;

/** A composer; `where()` gives {channel, thread_ts?}. Returns {node, render({placeholder, blocked}), fill(text)}. */
export function composer(where) {
  count += 1;
  const id = `complete-${count}`;
  const input = h("textarea", {
    rows: "1", "aria-label": "Message", role: "combobox", "aria-expanded": "false", "aria-controls": id, "aria-autocomplete": "list", spellcheck: "true",
  });
  const list = h("ul.complete", { id, role: "listbox", "aria-label": "Suggestions", hidden: true });
  const hint = h("div.usage", { "aria-live": "polite" });
  const send = h("button.send", { type: "button", "aria-label": "Send", disabled: true }, icon("send", 18), h("span.spinner", { "aria-hidden": "true" }));
  const blocked = h("div.blocked", { hidden: true });
  const shortcuts = shortcutButton();
  const box = h("div.box", {}, shortcuts, input, send);
  const node = h("div.composer", {}, list, box, hint, blocked);
  const self = { input, list, hint, send, id, where, found: [], at: -1, back: 0, sending: 0 };
  input.addEventListener("input", () => refresh(self));
  input.addEventListener("keydown", (event) => keys(event, self));
  input.addEventListener("blur", () => setTimeout(() => close(self), 120));
  send.addEventListener("click", () => submit(self));
  drawUsage(self);
  const render = ({ placeholder, blocked: why }) => {
    shortcuts.hidden = !(store.state?.shortcuts ?? []).length;
    input.placeholder = placeholder;
    box.hidden = Boolean(why);
    hint.hidden = Boolean(why);
    blocked.hidden = !why;
    replace(blocked, why ?? "");
  };
  const fill = (text) => {
    input.value = text;
    input.focus();
    refresh(self);
    close(self);
  };
  return { node, render, input, fill };
}

// The app's global shortcuts. Slack lists them behind the plus sign, wherever one is.
function shortcutButton() {
  const node = h("button.plus", {
    type: "button", "aria-label": "Shortcuts", title: "Shortcuts", "aria-haspopup": "menu", "aria-expanded": "false", hidden: true,
    onclick: () => menu(node, (list, close) => {
      for (const one of store.state?.shortcuts ?? []) {
        list.append(h("button.entry", { type: "button", role: "menuitem", onclick: () => {
          close();
          choose(one);
        } }, one.name, h("small", {}, one.description)));
      }
    }, { label: "Shortcuts" }),
  }, h("span", { "aria-hidden": "true" }, "+"));
  return node;
}

async function choose(shortcut) {
  try {
    const answer = await api.shortcut({ user: store.user, callback_id: shortcut.callback_id });
    if (answer.ok === false || answer.error) toast(answer.error, "error");
  } catch (error) {
    toast(error.message, "error");
  }
}

function refresh(self) {
  const { input, send } = self;
  input.style.height = "auto";
  input.style.height = `${Math.min(input.scrollHeight, 180)}px`;
  send.disabled = input.value.trim() === "";
  self.found = suggestions(input.value, input.selectionStart);
  // Of words nothing is chosen beforehand: Enter sends what was typed.
  self.at = self.found.length && self.found[0].kind !== "word" ? 0 : -1;
  drawList(self);
  drawUsage(self);
}

/** What could stand at the caret: commands at the start, people and groups after an @. */
function suggestions(text, caret) {
  const before = text.slice(0, caret);
  if (/^\/\S*$/.test(before)) {
    return (store.state?.commands ?? []).filter((c) => c.command.startsWith(before) && c.command !== text.trim()).map((c) => ({ kind: "command", command: c, put: `${c.command} `, from: 0 }));
  }
  const words = wordsOf(before);
  if (words) return words;
  const at = /(?:^|\s)@([\p{L}\p{N}._-]*)$/u.exec(before);
  if (!at) return [];
  const typed = at[1].toLowerCase();
  const from = caret - at[1].length - 1;
  const people = (store.state?.people ?? []).filter((p) => p.id !== "USLACKBOT" && (p.name.toLowerCase().startsWith(typed) || nameOf(p).toLowerCase().startsWith(typed)));
  const groups = (store.state?.usergroups ?? []).filter((g) => g.handle.startsWith(typed));
  return [...people.map((p) => ({ kind: "person", p, put: `@${p.name} `, from })), ...groups.map((g) => ({ kind: "group", g, put: `@${g.handle} `, from }))].slice(0, 8);
}

// A usage hint such as "[backup | verify] [database]" says which words come first.
function wordsOf(before) {
  const typed = /^(\/\S+)\s+([a-z-]*)$/.exec(before);
  const command = typed && (store.state?.commands ?? []).find((c) => c.command === typed[1]);
  if (!command) return null;
  const hint = command.usage_hint ?? "";
  const alternatives = (/^[[(<]([^\])>]*\|[^\])>]*)[\])>]/.exec(hint)?.[1] ?? hint).split("|").map((one) => /^\s*([a-z][a-z-]*)/.exec(one)?.[1]);
  const found = [...new Set(alternatives)].filter((word) => word && word.startsWith(typed[2]) && word !== typed[2]);
  return found.map((word) => ({ kind: "word", word, command, put: `${word} `, from: before.length - typed[2].length })).slice(0, 12);
}

function drawList(self) {
  const open = self.found.length > 0;
  self.list.hidden = !open;
  self.input.setAttribute("aria-expanded", String(open));
  replace(self.list, self.found.map((one, i) => h("li", {
    role: "option", id: `${self.id}-${i}`, "aria-selected": String(i === self.at),
    onpointerdown: (event) => {
      event.preventDefault();
      accept(self, i);
    },
  }, option(one))));
  if (self.at >= 0) self.input.setAttribute("aria-activedescendant", `${self.id}-${self.at}`);
  else self.input.removeAttribute("aria-activedescendant");
  self.list.children[self.at]?.scrollIntoView({ block: "nearest" });
}

function option(one) {
  if (one.kind === "command") {
    return [h("span.avatar.s.of-app", { "aria-hidden": "true" }, icon("key", 14)), h("b", {}, one.command.command), h("span.hint", {}, one.command.usage_hint ?? ""), h("small", {}, one.command.description ?? "")];
  }
  if (one.kind === "word") return [h("span.hint", {}, one.command.command), h("b", {}, one.word)];
  if (one.kind === "person") return [avatar(one.p, "s"), h("b", {}, nameOf(one.p)), h("span.hint", {}, `@${one.p.name}`), h("small", {}, one.p.profile?.title ?? "")];
  return [h("span.avatar.s.of-group", { "aria-hidden": "true" }, icon("people", 12)), h("b", {}, `@${one.g.handle}`), h("small", {}, one.g.name)];
}

function drawUsage(self) {
  const name = /^(\/\S+)(?:\s|$)/.exec(self.input.value)?.[1];
  const command = name && (store.state?.commands ?? []).find((c) => c.command === name);
  const unknown = name && !command && !self.found.length;
  replace(self.hint, command ? [h("b", {}, command.command), " ", command.usage_hint ?? "", h("span", {}, command.description ?? "")] : unknown ? [h("b", {}, name), h("span", {}, "is not a command of this workspace")] : [h("kbd", {}, "Enter"), " to send ", h("kbd", {}, "Shift Enter"), " for a new line ", h("kbd", {}, "/"), " for commands"]);
  self.hint.classList.toggle("is-command", Boolean(command));
}

function close(self) {
  self.found = [];
  self.at = -1;
  drawList(self);
}

function accept(self, index) {
  const one = self.found[index];
  const { input } = self;
  const rest = input.value.slice(input.selectionStart);
  input.value = input.value.slice(0, one.from) + one.put + rest;
  input.selectionStart = input.selectionEnd = one.from + one.put.length;
  input.focus();
  refresh(self);
}

function keys(event, self) {
  const { found, input } = self;
  const open = found.length > 0;
  if (event.isComposing) return;
  if (open && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
    self.at = event.key === "ArrowDown" ? (self.at + 1) % found.length : (Math.max(self.at, 0) - 1 + found.length) % found.length;
    drawList(self);
  } else if (open && (event.key === "Tab" || (event.key === "Enter" && self.at >= 0))) accept(self, Math.max(self.at, 0));
  else if (open && event.key === "Escape") close(self);
  else if (event.key === "Enter" && !event.shiftKey) submit(self);
  else if (event.key === "ArrowUp" && (input.value === "" || self.back > 0)) recall(self, 1);
  else if (event.key === "ArrowDown" && self.back > 0) recall(self, -1);
  else {
    self.back = event.key.length === 1 ? 0 : self.back;
    return;
  }
  event.preventDefault();
  event.stopPropagation();
}

function recall(self, step) {
  const history = historyOf(store.user);
  self.back = Math.max(0, Math.min(history.length, self.back + step));
  self.input.value = self.back === 0 ? "" : history[history.length - self.back];
  self.input.selectionStart = self.input.selectionEnd = self.input.value.length;
  refresh(self);
  close(self);
}

async function submit(self) {
  const text = self.input.value.trim();
  if (!text) return;
  const history = historyOf(store.user);
  if (history[history.length - 1] !== text) history.push(text);
  history.splice(0, history.length - HISTORY_MAX);
  sending(self, 1);
  self.input.value = "";
  self.back = 0;
  refresh(self);
  const body = { user: store.user, text, ...self.where() };
  try {
    // What became of a command is told by a message that only this person sees.
    await (text.startsWith("/") ? api.command(body) : api.message(body));
  } catch (error) {
    refused(self, text, error.message);
  }
  sending(self, -1);
}

function refused(self, text, why) {
  if (self.input.value === "") {
    self.input.value = text;
    refresh(self);
    close(self);
  }
  toast(why, "error");
}

function sending(self, change) {
  self.sending += change;
  self.send.classList.toggle("is-busy", self.sending > 0);
}
