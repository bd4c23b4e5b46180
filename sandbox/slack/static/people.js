// People on the page: avatars, names and the badges that say what kind of account it is.

import { h, icon } from "./dom.js";
import { app, nameOf, person, store } from "./store.js";

const COLOR = /^[0-9a-f]{6}$/i;

function initials(name) {
  const words = name.split(/[\s._-]+/).filter(Boolean);
  const letters = words.length > 1 ? [words[0], words[words.length - 1]] : words;
  return letters.map((word) => [...word][0]).join("").toUpperCase() || "?";
}

/** A square with initials; the app gets its key. */
export function avatar(p, size = "m") {
  const id = p?.id ?? "?";
  const mine = id === app().user_id;
  const box = h(`span.avatar.${size}`, { "aria-hidden": "true", vars: { "--face": `#${COLOR.test(p?.color ?? "") ? p.color : "64748b"}` } });
  if (mine) box.classList.add("of-app");
  if (id === "USLACKBOT") box.classList.add("of-slack");
  box.append(mine ? icon("key", { s: 14, m: 22, l: 32 }[size]) : initials(nameOf(p)));
  if (p?.deleted) box.classList.add("gone");
  return box;
}

/** What one must know about an account before trusting its word. */
export function kinds(p) {
  if (!p) return [];
  const found = [];
  if (p.is_bot) found.push(["bot", "An app, not a person"]);
  if (p.deleted) found.push(["deactivated", "This account has been switched off"]);
  if (p.is_ultra_restricted) found.push(["single-channel guest", "A guest in one channel"]);
  else if (p.is_restricted) found.push(["guest", "A guest of this workspace"]);
  if (p.is_stranger || (p.team_id && store.state && p.team_id !== store.state.team.id)) {
    found.push(["external", "Belongs to another workspace"]);
  }
  if (p.is_email_confirmed === false) found.push(["unconfirmed", "The e-mail address is not confirmed"]);
  return found;
}

export const badges = (p) =>
  kinds(p).map(([kind, why]) => h(`span.badge.${kind.split(" ").pop()}`, { title: why }, kind));

/** Handles of the user groups that list this person. */
export function groupsOf(p) {
  return (store.state?.usergroups ?? [])
    .filter((g) => (g.users ?? g.members ?? []).includes(p.id))
    .map((g) => g.handle);
}

/** Who wrote a message: a person, the app, or another bot by its message's own name. */
export function authorOf(message) {
  const found = person(message.user) ?? person(message.bot_id);
  if (found) return { who: found, name: nameOf(found), isApp: Boolean(found.is_bot || message.bot_id) };
  if (message.bot_id) {
    const mine = app();
    return { who: { id: mine.user_id, name: mine.name, is_bot: true }, name: message.username ?? mine.name, isApp: true };
  }
  return { who: { id: message.user ?? "?", name: message.username ?? "Unknown" }, name: message.username ?? "Unknown", isApp: false };
}
