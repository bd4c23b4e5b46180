// The page: who sits here, where they are, and what is drawn from the server's state.

import { api, listen } from "./api.js";
import { closeMenu, toast } from "./dialogs.js";
import { h, icon, replace } from "./dom.js";
import { accountsPanel, faultsPanel } from "./faults.js";
import { renderModals } from "./modals.js";
import { pane } from "./pane.js";
import { renderSidebar } from "./sidebar.js";
import { app, channel, channelName, nameOf, person, store, subscribe, unread, update } from "./store.js";
import { threadPanel } from "./thread.js";
import { wirePanel } from "./wire.js";

const FIRST_USER = "U0ANA";
const FIRST_PLACE = "db-ops";
const $ = (id) => document.getElementById(id);

const parts = {};
let stop = null;
let fetching = false;
let again = false;
let failures = 0;

// --- the state, fetched when it changed -------------------------------------------------

async function refresh() {
  if (fetching) {
    again = true;
    return;
  }
  fetching = true;
  const user = store.user;
  try {
    const state = await api.state(user);
    failures = 0;
    if (user === store.user) arrived(state);
  } catch (error) {
    failures += 1;
    if (error.status === 404 && user !== FIRST_USER) location.hash = `#${FIRST_USER}`;
    else setTimeout(refresh, Math.min(400 * 2 ** failures, 5_000));
  }
  fetching = false;
  if (again) {
    again = false;
    refresh();
  }
}

function arrived(state) {
  const place = placeIn(state, store.place);
  update({ state, place });
  writeHash();
}

function placeIn(state, wanted) {
  if (wanted === state.app.id || state.channels.some((c) => c.id === wanted)) return wanted;
  const first = state.channels.find((c) => c.name === FIRST_PLACE) ?? state.channels.find((c) => c.is_member) ?? state.channels[0];
  return first?.id ?? state.app.id;
}

// --- the address: #U0ANA/C0DBOPS, with the thread as a third part -----------------------

function readHash() {
  const [user, place, thread] = location.hash.slice(1).split("/").map((part) => part.replace(/[^\w.]/g, ""));
  const next = { user: user || store.user || FIRST_USER, place: place || store.place, thread: thread || null };
  closeMenu();
  if (next.user !== store.user) sit(next);
  else if (store.state) update({ place: placeIn(store.state, next.place), thread: next.thread });
}

function writeHash() {
  const hash = `#${[store.user, store.place, store.thread].filter(Boolean).join("/")}`;
  if (location.hash !== hash) history.replaceState(null, "", hash);
}

function sit(next) {
  stop?.();
  Object.assign(store, { ...next, state: null });
  stop = listen(next.user, {
    changed: () => {
      refresh();
      parts.wire?.poke();
    },
    online: (on) => {
      if (on !== store.online) update({ online: on });
    },
  });
  refresh();
}

function openThread(ts) {
  update({ thread: ts });
  writeHash();
  parts.thread.focus();
}

function closeThread() {
  const ts = store.thread;
  update({ thread: null });
  writeHash();
  (document.querySelector(`.message[data-ts="${CSS.escape(ts ?? "")}"] button.replies`) ?? document.querySelector(".composer textarea"))?.focus();
}

// --- drawing ----------------------------------------------------------------------------

function render() {
  $("banner").hidden = store.online;
  $("line").classList.toggle("is-down", !store.online);
  replace($("line"), h("span.lamp"), store.online ? "Live" : "Reconnecting");
  if (!store.state) return;
  document.body.classList.remove("is-loading");
  replaceText($("team"), store.state.team.name);
  document.body.classList.toggle("has-thread", Boolean(store.thread));
  parts.pane.render();
  parts.thread.render();
  renderSidebar($("places"), $("sitter"));
  renderModals();
  parts.faults.render();
  parts.accounts.render();
  $("fault-count").textContent = (store.state.faults ?? []).length || "";
  document.title = title();
}

const replaceText = (node, text) => {
  if (node.textContent !== text) node.textContent = text;
};

function title() {
  const where = store.place === app().id ? app().name : channelName(channel(store.place));
  const named = store.state.channels.reduce((sum, c) => sum + (c.id === store.place ? 0 : unread(c).named), 0);
  return `${named ? `(${named}) ` : ""}${where} · ${nameOf(person(store.user))} · ${store.state.team.name}`;
}

// --- the drawer with wire log, faults and accounts --------------------------------------

const PANELS = ["wire", "faults", "accounts"];

function showPanel(name) {
  const open = name && ($("drawer").hidden || $(`panel-${name}`).hidden);
  $("drawer").hidden = !open;
  for (const one of PANELS) {
    const on = Boolean(open) && one === name;
    $(`panel-${one}`).hidden = !on;
    for (const button of document.querySelectorAll(`[data-panel="${one}"]`)) button.setAttribute(button.role === "tab" ? "aria-selected" : "aria-pressed", String(on));
  }
  localStorage.setItem("standin.panel", open ? name : "");
  parts.wire.show(open && name === "wire");
  if (store.state) render();
}

function drawer() {
  for (const button of document.querySelectorAll("#topbar [data-panel]")) button.addEventListener("click", () => showPanel(button.dataset.panel));
  for (const tab of document.querySelectorAll("#drawer [data-panel]")) tab.addEventListener("click", () => tab.getAttribute("aria-selected") !== "true" && showPanel(tab.dataset.panel));
  $("drawer-close").addEventListener("click", () => showPanel(null));
  const grip = $("grip");
  const resize = (height) => $("drawer").style.setProperty("--height", `${Math.max(140, Math.min(innerHeight - 220, height))}px`);
  grip.addEventListener("pointerdown", (event) => {
    grip.setPointerCapture(event.pointerId);
    const move = (at) => resize(innerHeight - at.clientY);
    grip.addEventListener("pointermove", move);
    grip.addEventListener("pointerup", () => grip.removeEventListener("pointermove", move), { once: true });
  });
  grip.addEventListener("keydown", (event) => {
    const step = { ArrowUp: 30, ArrowDown: -30 }[event.key];
    if (step) resize($("drawer").offsetHeight + step);
  });
}

function start() {
  parts.pane = pane($("pane"), openThread);
  parts.thread = threadPanel($("thread"), closeThread);
  parts.wire = wirePanel($("panel-wire"));
  parts.faults = faultsPanel($("panel-faults"));
  parts.accounts = accountsPanel($("panel-accounts"));
  for (const node of document.querySelectorAll("[data-icon]")) node.prepend(icon(node.dataset.icon, Number(node.dataset.size ?? 16)));
  drawer();
  subscribe(render);
  addEventListener("hashchange", readHash);
  addEventListener("unhandledrejection", (event) => toast(String(event.reason?.message ?? event.reason), "error"));
  document.addEventListener("visibilitychange", () => store.state && render());
  readHash();
  const last = localStorage.getItem("standin.panel");
  if (PANELS.includes(last)) showPanel(last);
}

start();
