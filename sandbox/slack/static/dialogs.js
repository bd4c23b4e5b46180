// Dialogs and menus. <dialog> brings the focus trap, the top layer and Escape with it.

import { h, icon, replace } from "./dom.js";
import { textObject } from "./mrkdwn.js";

/** Ask with a Block Kit `confirm` object; resolves to true only for its confirm button. */
export function confirmed(confirm) {
  return new Promise((resolve) => {
    const danger = confirm.style === "danger";
    const dialog = h(
      "dialog.confirm",
      { "aria-labelledby": "confirm-title", "aria-describedby": "confirm-text" },
      h("header", {}, h("h2", { id: "confirm-title" }, textObject(confirm.title))),
      h("div.body", { id: "confirm-text" }, textObject(confirm.text)),
      h(
        "footer",
        {},
        h("button.btn", { type: "button", onclick: () => dialog.close("no") }, textObject(confirm.deny ?? { text: "Cancel" })),
        h(`button.btn.${danger ? "danger" : "primary"}`, { type: "button", onclick: () => dialog.close("yes") }, textObject(confirm.confirm ?? { text: "Yes" })),
      ),
    );
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
    dialog.querySelector("footer button:last-child").focus();
  });
}

/** A picture as large as the window allows. */
export function lightbox(url, name) {
  const dialog = h(
    "dialog.lightbox",
    { "aria-label": name, onclick: () => dialog.close() },
    h("img", { src: url, alt: name }),
    h("p", {}, name),
    h("button.round", { type: "button", "aria-label": "Close" }, icon("close")),
  );
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

let openMenu = null;

/** Close the open menu, if any. */
export function closeMenu() {
  openMenu?.close();
}

/**
 * A menu at `anchor`. `fill(box, close)` puts elements into it; those with role menuitem are
 * walked with the arrow keys. Escape and a click elsewhere close it.
 */
export function menu(anchor, fill, { label, kind = "menu" }) {
  const again = openMenu?.anchor === anchor;
  closeMenu();
  if (again) return;
  const box = h(`div.${kind}`, { role: "menu", "aria-label": label, popover: "manual" });
  const close = () => {
    box.remove();
    anchor.setAttribute("aria-expanded", "false");
    document.removeEventListener("pointerdown", outside, true);
    openMenu = null;
  };
  const outside = (event) => {
    if (!box.contains(event.target) && !anchor.contains(event.target)) close();
  };
  openMenu = { anchor, close };
  fill(box, close);
  box.addEventListener("keydown", (event) => walk(event, box, () => {
    close();
    anchor.focus();
  }));
  (anchor.closest("dialog") ?? document.body).append(box);
  box.showPopover();
  place(box, anchor);
  anchor.setAttribute("aria-expanded", "true");
  document.addEventListener("pointerdown", outside, true);
  (box.querySelector("[aria-current=true]") ?? box.querySelector("[role^=menuitem]"))?.focus();
}

function place(box, anchor) {
  const at = anchor.getBoundingClientRect();
  const below = at.bottom + 6 + box.offsetHeight < innerHeight;
  const top = below ? at.bottom + 6 : Math.max(8, at.top - 6 - box.offsetHeight);
  const left = Math.min(at.left, innerWidth - box.offsetWidth - 8);
  box.style.top = `${top}px`;
  box.style.left = `${Math.max(8, left)}px`;
}

function walk(event, box, leave) {
  const items = [...box.querySelectorAll("[role^=menuitem]")];
  const at = items.indexOf(document.activeElement);
  const steps = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 };
  if (event.key === "Escape" || event.key === "Tab") leave();
  else if (event.key in steps) items[(steps[event.key] + items.length) % items.length]?.focus();
  else return;
  event.preventDefault();
  event.stopPropagation();
}

/** Words for screen readers; the same words twice are read twice. */
export function announce(text) {
  const live = document.getElementById("live");
  replace(live, h("p", {}, text));
}

/** A short note at the bottom of the window, for what has no better place. */
export function toast(text, kind = "info") {
  const note = h(`div.toast.${kind}`, { role: kind === "error" ? "alert" : "status" }, kind === "error" ? icon("warn") : null, text);
  document.getElementById("toasts").append(note);
  setTimeout(() => note.remove(), 6_000);
}
