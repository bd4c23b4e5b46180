// The sidebar: workspace, channels, apps, direct messages, and who sits in front of the page.

import { menu } from "./dialogs.js";
import { h, icon, replace } from "./dom.js";
import { avatar, badges, groupsOf } from "./people.js";
import { app, appChannel, channelName, nameOf, otherOf, person, store, titleOf, unread } from "./store.js";

let drawn = "";

/** Bring the sidebar up to date; nothing is touched while nothing has changed. */
export function renderSidebar(nav, foot) {
  const { state } = store;
  const items = state.channels.map((c) => ({ c, news: c.id === store.place ? { count: 0, named: 0 } : unread(c) }));
  const stamp = JSON.stringify([items, store.user, store.place, state.people, state.team, state.usergroups]);
  if (stamp === drawn) return;
  drawn = stamp;
  const focus = document.activeElement?.getAttribute("href");
  replace(nav, ...sections(items));
  replace(foot, sitter());
  if (focus) nav.querySelector(`[href="${CSS.escape(focus)}"]`)?.focus();
}

function sections(items) {
  const open = items.filter(({ c }) => !c.is_im && !c.is_archived);
  const old = items.filter(({ c }) => !c.is_im && c.is_archived);
  const direct = items.filter(({ c }) => c.is_im && otherOf(c) !== app().user_id);
  return [
    section("Channels", open.map(channelLink), "No channel is open to this account."),
    old.length ? section("Archived", old.map(channelLink)) : null,
    section("Apps", [appLink(items)]),
    direct.length ? section("Direct messages", direct.map(channelLink)) : null,
  ];
}

function section(title, links, empty = "") {
  return h("section", {}, h("h2", {}, title), links.length ? h("ul", {}, links.map((link) => h("li", {}, link))) : h("p.none", {}, empty));
}

const SIGNS = { im: null, archived: "archive", private: "lock", public: "hash" };

export const kindOf = (c) => (c.is_im ? "im" : c.is_archived ? "archived" : c.is_private ? "private" : "public");

function channelLink({ c, news }) {
  const kind = kindOf(c);
  const sign = kind === "im" ? avatar(person(otherOf(c)), "s") : icon(SIGNS[kind], 15);
  return link(c.id, sign, h("span.label", {}, channelName(c)), news, [
    c.is_ext_shared ? h("span.shared", { title: "Shared with another company" }, icon("shared", 15)) : null,
    kind === "private" ? h("span.sr-only", {}, " (private)") : null,
    c.is_member === false ? h("span.sr-only", {}, " (not a member)") : null,
  ], c.is_member === false ? "outside" : "");
}

function appLink(items) {
  const conversation = appChannel();
  const news = items.find(({ c }) => c === conversation)?.news ?? { count: 0, named: 0 };
  const here = store.place === app().id || (conversation && store.place === conversation.id);
  const to = news.count && conversation ? conversation.id : app().id;
  return link(to, avatar(person(app().user_id) ?? { id: app().user_id, name: app().name }, "s"), h("span.label", {}, app().name), news, [], "", here);
}

function link(to, sign, label, news, more, kind = "", here = store.place === to) {
  return h("a.place", { href: `#${store.user}/${to}`, "aria-current": here ? "page" : null, class: `${news.count ? "unread" : ""} ${kind}` },
    h("span.sign", {}, sign), label, more, news.named ? h("span.count", { "aria-label": `${news.named} for you` }, String(news.named)) : null,
    news.count && !news.named ? h("span.sr-only", {}, ` ${news.count} unread`) : null);
}

function sitter() {
  const me = person(store.user) ?? store.state.me;
  const button = h("button.sitter", { type: "button", "aria-haspopup": "menu", "aria-expanded": "false", "aria-label": `You are ${nameOf(me)}. Sit down as somebody else`, onclick: () => menu(button, fillPeople, { label: "Sit down as", kind: "people-menu" }) },
    avatar(me), h("span.who", {}, h("b", {}, nameOf(me)), h("small", {}, titleOf(me) || "No title")), h("span.badges", {}, badges(me)), icon("down", 14));
  return button;
}

function fillPeople(box, close) {
  box.append(h("p.lead", {}, "Who sits in front of this page?", h("small", {}, "Open a second tab to be two people at once.")));
  for (const p of store.state.people) {
    if (p.id === app().user_id || p.id === "USLACKBOT") continue;
    const to = `#${p.id}/${store.place ?? ""}`;
    box.append(h("div.row", {},
      h("a.entry", { role: "menuitem", href: to, "aria-current": p.id === store.user ? "true" : null, onclick: () => close() }, avatar(p),
        h("span.who", {}, h("span.line", {}, h("b", {}, nameOf(p)), badges(p)), h("small", {}, [titleOf(p), groupsOf(p).map((g) => `@${g}`).join(" ")].filter(Boolean).join(" · ")))),
      h("a.tab", { href: to, target: "_blank", rel: "noopener", title: `Open a tab as ${nameOf(p)}`, "aria-label": `Open a tab as ${nameOf(p)}` }, icon("out", 15))));
  }
}
