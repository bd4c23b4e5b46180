// The middle of the page: a channel with its messages, or the app with its Home and Messages tabs.

import { api } from "./api.js";
import { blocks } from "./blocks.js";
import { composer } from "./composer.js";
import { toast } from "./dialogs.js";
import { h, icon, replace } from "./dom.js";
import { collect } from "./elements.js";
import { announcer, messageList } from "./messages.js";
import { avatar, badges, kinds } from "./people.js";
import { kindOf } from "./sidebar.js";
import { app, appChannel, channel, channelName, isReply, lastRead, markRead, messagesOf, nameOf, otherOf, person, store } from "./store.js";

/** The pane in `root`; `openThread(ts)` opens the panel on the right. */
export function pane(root, openThread) {
  const head = h("header.head");
  const list = messageList("Messages", openThread);
  const box = composer(() => ({ channel: conversation()?.id ?? store.place }));
  const home = h("div.home", { role: "region", "aria-label": "App Home", tabindex: "0" });
  const notice = h("div.notice", { hidden: true });
  root.append(head, notice, list.node, home, box.node);
  const self = { root, head, list, box, home, notice, stamps: {}, entered: null, since: null, say: announcer(), asked: null };
  return { render: () => render(self), focus: () => box.input.focus() };
}

const atHome = () => store.place === app().id;

const conversation = () => channel(store.place);

function once(self, name, value, draw) {
  const stamp = JSON.stringify(value);
  if (self.stamps[name] === stamp) return;
  self.stamps[name] = stamp;
  draw();
}

function render(self) {
  const c = conversation();
  const me = person(store.user);
  enter(self);
  once(self, "head", [c, store.place, store.user, store.state.app, appChannel()?.id, me], () => drawHead(self, c));
  once(self, "notice", me, () => drawNotice(self, me));
  self.home.hidden = !atHome();
  self.list.node.hidden = atHome();
  self.box.node.hidden = atHome();
  if (atHome()) return renderHome(self);
  const messages = messagesOf(store.place).filter((m) => !isReply(m) || m.subtype === "thread_broadcast");
  self.list.render(messages, { key: `${store.user}/${store.place}`, head: beginning(self, c, messages.length), newSince: self.since });
  self.box.render({ placeholder: c ? `Message ${c.is_im ? channelName(c) : `#${channelName(c)}`}` : "Write a message", blocked: blockedBecause(c) });
  self.say(store.place, messages);
  const newest = messages[messages.length - 1];
  if (newest && document.visibilityState === "visible") markRead(store.place, newest.ts);
  return undefined;
}

function enter(self) {
  const where = `${store.user}/${store.place}`;
  if (self.entered === where) return;
  self.entered = where;
  const read = lastRead(store.place);
  self.since = read === "0" ? null : read;
  self.asked = null;
}

function blockedBecause(c) {
  if (!c) return "This conversation is not open to this account.";
  if (c.is_archived) return [icon("archive"), h("span", {}, "#", c.name, " is archived. It can be read, and nothing more.")];
  return null;
}

const SIGN = { archived: "archive", private: "lock", public: "hash" };

function drawHead(self, c) {
  const isApp = atHome() || (c?.is_im && otherOf(c) === app().user_id);
  const title = isApp ? appTitle() : channelTitle(c);
  replace(self.head, title, isApp ? tabs() : h("p.topic", {}, topicOf(c)));
}

const appTitle = () => h("h1", {}, avatar(person(app().user_id) ?? { id: app().user_id, name: app().name }), h("bdi", {}, app().name), h("span.badge.app", {}, "APP"));

function channelTitle(c) {
  if (!c) return h("h1", {}, "Nothing here");
  const sign = c.is_im ? avatar(person(otherOf(c))) : icon(SIGN[kindOf(c)], 19);
  return h("h1", {}, sign, h("bdi", {}, channelName(c)), c.is_im ? badges(person(otherOf(c))) : null,
    c.is_ext_shared ? h("span.badge.external", { title: "People of another company read here" }, "shared with another company") : null,
    c.is_archived ? h("span.badge.deactivated", {}, "archived") : null);
}

function topicOf(c) {
  const topic = typeof c?.topic === "string" ? c.topic : c?.topic?.value;
  if (topic) return topic;
  return c?.is_private ? "Private: only its members see it" : "";
}

function tabs() {
  const messages = appChannel();
  const tab = (to, label, name) => h("a.tab", { href: `#${store.user}/${to}`, role: "tab", "aria-selected": String(store.place === to) }, icon(name, 15), label);
  return h("nav.tabs", { role: "tablist", "aria-label": app().name }, tab(app().id, "Home", "home"), messages ? tab(messages.id, "Messages", "thread") : null);
}

const NOTICES = {
  deactivated: "This account is deactivated. Whatever it presses, the app should refuse.",
  guest: "This is a guest account.",
  "single-channel guest": "This is a guest in one channel.",
  external: "This account belongs to another workspace.",
  unconfirmed: "This account’s e-mail address is not confirmed.",
  bot: "This account is a bot.",
};

function drawNotice(self, me) {
  const lines = kinds(me).map(([kind]) => NOTICES[kind]);
  self.notice.hidden = lines.length === 0;
  replace(self.notice, icon("warn", 15), h("span", {}, h("b", {}, nameOf(me)), ": ", lines.join(" ")));
}

function beginning(self, c, count) {
  if (self.begun?.dataset.of !== `${store.user}/${store.place}/${count > 0}`) self.begun = drawBeginning(self, c, count);
  return self.begun;
}

function drawBeginning(self, c, count) {
  const isApp = c?.is_im && otherOf(c) === app().user_id;
  const sign = c?.is_im ? avatar(person(otherOf(c)), "l") : h("span.avatar.l.of-channel", {}, icon(SIGN[kindOf(c ?? {})], 26));
  const command = store.state.commands[0];
  return h("div.beginning", { data: { of: `${store.user}/${store.place}/${count > 0}` } }, sign,
    h("h2", {}, c ? (c.is_im ? channelName(c) : `#${channelName(c)}`) : "Nothing here"),
    h("p", {}, isApp ? `What ${app().name} tells you alone.` : c?.is_im ? "The start of your conversation." : `The start of #${channelName(c)}.`, " ",
      topicOf(c) ? `${topicOf(c)}.` : null),
    count === 0 && command && c && !c.is_archived ? firstSteps(self, `${command.command} help`) : null);
}

// What somebody who has just opened the page can do.
const firstSteps = (self, command) => h("ul.first", {},
  h("li", {}, "Try ", h("button.try", { type: "button", onclick: () => self.box.fill(command) }, command), ": press Enter to send it."),
  h("li", {}, "You sit here as ", h("b", {}, nameOf(person(store.user))), ". Press the name at the bottom left to be somebody else, in this tab or in another one."),
  h("li", {}, "The wire log at the top right tells what goes back and forth between Slack and the app."));

// --- App Home ----------------------------------------------------------------------------

async function renderHome(self) {
  const view = store.state.home;
  once(self, "home", [store.user, view], () => drawHome(self, view));
  if (self.asked === store.user) return;
  self.asked = store.user;
  try {
    await api.home(store.user);
  } catch (error) {
    toast(error.message, "error");
  }
}

function drawHome(self, view) {
  const focus = document.activeElement?.closest("[data-key]")?.dataset.key;
  const kept = self.homeId === view?.id ? collect(self.home) : null;
  self.homeId = view?.id;
  if (!view?.blocks?.length) {
    replace(self.home, h("div.beginning.centred", {}, avatar(person(app().user_id), "l"), h("h2", {}, `${app().name} has no Home yet`), h("p", {}, "The app was told that its Home was opened. Once it publishes a view, it stands here.")));
    return;
  }
  const ctx = { key: view.id, container: { type: "view", view_id: view.id }, kept, values: () => collect(self.home) };
  replace(self.home, h("div.sheet", {}, blocks(view.blocks, ctx)));
  if (focus) self.home.querySelector(`[data-key="${CSS.escape(focus)}"]`)?.focus({ preventScroll: true });
}
