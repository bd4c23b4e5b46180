// Messages: the list of a channel and of a thread. Nodes are kept while their message is unchanged.

import { api } from "./api.js";
import { blocks } from "./blocks.js";
import { announce, lightbox, toast } from "./dialogs.js";
import { h, icon, replace } from "./dom.js";
import { collect } from "./elements.js";
import { emoji } from "./emoji.js";
import { mrkdwn, plain, words } from "./mrkdwn.js";
import { authorOf, avatar, badges } from "./people.js";
import { isReply, messagesOf, nameOf, person, store } from "./store.js";
import { ago, clock, day, dayKey, full } from "./times.js";

const GROUP_SECONDS = 300;
const NEAR_BOTTOM = 90;
const SHOWN_MAX = 400;

/** A scrolling list of messages. `render(messages, {first, key, newSince})` brings it up to date. */
export function messageList(label, openThread) {
  const list = h("div.messages", { role: "log", "aria-label": label, tabindex: "0", "aria-live": "off" });
  const jump = h("button.jump", { type: "button", hidden: true, onclick: () => scrollDown(list) }, icon("down", 14), "Newest messages");
  const node = h("div.list", {}, list, jump);
  const cache = new Map();
  let shownKey = null;
  let stuck = true;
  list.addEventListener("scroll", () => {
    stuck = atEnd(list);
    if (stuck) jump.hidden = true;
  });
  list.addEventListener("load", () => stuck && scrollDown(list), true);
  new ResizeObserver(() => stuck && scrollDown(list)).observe(list);
  const render = (messages, { key, head = null, newSince = null, inThread = false }) => {
    const moved = key !== shownKey;
    const stick = moved || stuck;
    const before = list.scrollHeight;
    const wanted = rows(messages.slice(-SHOWN_MAX), { head, newSince, inThread, openThread, cache });
    reconcile(list, wanted);
    for (const [name, entry] of cache) if (!entry.used) cache.delete(name);
    stuck = stick;
    if (stick) scrollDown(list);
    else if (list.scrollHeight > before) jump.hidden = false;
    if (moved) jump.hidden = true;
    shownKey = key;
  };
  return { node, list, render };
}

const atEnd = (list) => list.scrollHeight - list.scrollTop - list.clientHeight < NEAR_BOTTOM;

function scrollDown(list) {
  list.scrollTop = list.scrollHeight;
}

function rows(messages, { head, newSince, inThread, openThread, cache }) {
  for (const entry of cache.values()) entry.used = false;
  const wanted = head ? [head] : [];
  let previous = null;
  let marked = newSince === null;
  for (const message of messages) {
    if (!inThread && (!previous || dayKey(previous.ts) !== dayKey(message.ts))) wanted.push(kept(cache, `day ${dayKey(message.ts)}`, day(message.ts), () => separator(day(message.ts))));
    if (!marked && Number(message.ts) > Number(newSince) && message.user !== store.user) {
      wanted.push(kept(cache, "new", newSince, newMarker));
      marked = true;
      previous = null;
    }
    const grouped = previous !== null && follows(previous, message);
    const author = authorOf(message);
    const stamp = JSON.stringify([message, grouped, author, inThread, store.user]);
    wanted.push(kept(cache, `${message.ts} ${message.ephemeral ?? ""}`, stamp, () => drawMessage(message, author, { grouped, inThread, openThread })));
    previous = message;
    if (inThread && messages.length > 1 && message === messages[0]) {
      wanted.push(kept(cache, "replies", String(messages.length), () => replyCount(messages.length - 1)));
      previous = null;
    }
  }
  return wanted;
}

function kept(cache, key, stamp, make) {
  const entry = cache.get(key);
  if (entry && entry.stamp === stamp) {
    entry.used = true;
    return entry.node;
  }
  const node = make();
  if (entry) moveFocus(entry.node, node);
  cache.set(key, { stamp, node, used: true });
  return node;
}

// A redrawn message hands the keyboard's place on: to the same button, or to the message itself.
function moveFocus(old, fresh) {
  if (!old.contains(document.activeElement)) return;
  const key = document.activeElement.closest("[data-key]")?.dataset.key;
  queueMicrotask(() => ((key && fresh.querySelector(`[data-key="${CSS.escape(key)}"]`)) ?? fresh).focus({ preventScroll: true }));
}

function reconcile(list, wanted) {
  const keep = new Set(wanted);
  for (const node of [...list.children]) if (!keep.has(node)) node.remove();
  wanted.forEach((node, i) => {
    if (list.children[i] !== node) list.insertBefore(node, list.children[i] ?? null);
  });
}

const follows = (a, b) =>
  a.user === b.user && a.bot_id === b.bot_id && !a.ephemeral && !b.ephemeral && !a.failed && !b.failed
  && dayKey(a.ts) === dayKey(b.ts) && Number(b.ts) - Number(a.ts) < GROUP_SECONDS && !a.reply_count && !isCard(b);

// What has a heading or buttons stands for itself.
const isCard = (message) => (message.blocks ?? []).some((block) => block.type === "header" || block.type === "actions");

const separator = (text) => h("div.day", { role: "separator" }, h("span", {}, text));
const newMarker = () => h("div.day.new", { role: "separator" }, h("span", {}, "New"));
const replyCount = (count) => h("div.day.replies", { role: "separator" }, h("span", {}, `${count} ${count === 1 ? "reply" : "replies"}`));

function drawMessage(message, author, { grouped, inThread, openThread }) {
  const kind = refusal(message) ? "failed" : message.ephemeral ? "ephemeral" : "plain";
  const compact = grouped && kind === "plain";
  const node = h(`article.message.${kind}`, { tabindex: "-1", "aria-label": `${author.name}, ${clock(message.ts)}`, data: { ts: message.ts }, class: compact ? "compact" : "" },
    note(message),
    h("div.gutter", {}, compact ? h("time", { title: full(message.ts) }, clock(message.ts)) : avatar(author.who)),
    h("div.content", {}, compact ? null : byline(message, author), body(message, inThread), reactions(message), inThread ? null : replies(message, openThread)),
    tools(message, inThread, openThread));
  return node;
}

// Slack's own word to one person; on any other message `failed` is about its last click.
const refusal = (message) => Boolean(message.failed && (message.ephemeral || !message.blocks?.length));

function note(message) {
  if (!message.ephemeral && !refusal(message)) return null;
  return h("div.note", {}, icon(refusal(message) ? "warn" : "eye", 14),
    h("span", {}, refusal(message) ? "Slack could not do this · only visible to you" : "Only visible to you"),
    h("button.link", { type: "button", onclick: () => dismiss(message) }, "Dismiss"));
}

async function dismiss(message) {
  try {
    await api.dismiss({ user: store.user, channel: message.channel ?? store.place, ts: message.ts });
  } catch (error) {
    toast(error.message, "error");
  }
}

function byline(message, author) {
  return h("div.byline", {}, h("bdi.name", {}, author.name), author.isApp ? h("span.badge.app", {}, "APP") : badges(author.who).filter((b) => !b.classList.contains("bot")),
    h("time", { title: full(message.ts) }, clock(message.ts)));
}

function body(message, inThread) {
  const ctx = {
    key: `${message.channel ?? store.place}:${message.ts}`, kept: message.state?.values ?? null,
    container: { type: "message", channel: message.channel ?? store.place, ts: message.ts },
    values: () => collect(holder),
  };
  const holder = h("div.text", {});
  if (refusal(message)) replace(holder, h("div.words.failure", { dir: "auto" }, plain(message.failed)));
  else if (message.blocks?.length) replace(holder, blocks(message.blocks, ctx));
  else replace(holder, h("div.words", { dir: "auto" }, mrkdwn(message.text ?? "")));
  if (message.edited) (holder.querySelector(":scope > .words") ?? holder).append(h("span.edited", { title: message.edited.ts ? full(message.edited.ts) : "" }, "(edited)"));
  for (const [index, one] of (message.attachments ?? []).entries()) holder.append(attachment(one, { ...ctx, key: `${ctx.key}:a${index}` }));
  for (const file of message.files ?? []) holder.append(fileNode(file));
  if (message.failed && !refusal(message)) holder.append(h("p.click-failed", { role: "alert" }, icon("warn", 15), plain(message.failed)));
  if (inThread && message.subtype === "thread_broadcast") holder.append(h("p.edited", {}, "Also sent to the channel"));
  return holder;
}

function attachment(one, ctx) {
  const color = /^#?[0-9a-f]{6}$/i.test(one.color ?? "") ? `#${one.color.replace("#", "")}` : { good: "var(--good)", warning: "var(--warn)", danger: "var(--danger)" }[one.color] ?? "var(--line-strong)";
  return h("div.attachment", { vars: { "--edge": color } },
    one.pretext ? h("div.words", {}, mrkdwn(one.pretext)) : null, one.title ? h("strong", {}, one.title) : null,
    one.blocks ? blocks(one.blocks, ctx) : h("div.words", {}, mrkdwn(one.text ?? one.fallback ?? "")),
    (one.fields ?? []).map((field) => h("div.cell", {}, h("strong", {}, field.title ?? ""), " ", mrkdwn(field.value ?? ""))));
}

const size = (bytes) => (bytes >= 1e6 ? `${(bytes / 1e6).toFixed(1)} MB` : bytes >= 1e3 ? `${Math.round(bytes / 1e3)} kB` : `${bytes} bytes`);

function fileNode(file) {
  const url = `/ui/file/${encodeURIComponent(file.id)}`;
  const title = file.title || file.name || file.id;
  if (/^image\/(?!svg)/.test(file.mimetype ?? "")) {
    return h("figure.file-image", {}, h("figcaption", {}, title),
      h("button", { type: "button", "aria-label": `Enlarge ${title}`, onclick: () => lightbox(url, title) }, h("img", { src: url, alt: file.alt_txt ?? title })));
  }
  return h("a.file", { href: url, download: file.name ?? title, target: "_blank", rel: "noopener" }, icon("file", 26),
    h("span", {}, h("bdi", {}, title), h("small", {}, [file.pretty_type ?? file.filetype ?? file.mimetype, file.size === undefined ? null : size(file.size)].filter(Boolean).join(" · "))));
}

function reactions(message) {
  if (!message.reactions?.length) return null;
  return h("div.reactions", {}, message.reactions.map((one) =>
    h("span.reaction", { title: `${(one.users ?? []).map((id) => nameOf(person(id))).join(", ")} reacted with :${one.name}:` }, emoji(one.name) ?? `:${one.name}:`, " ", String(one.count ?? one.users?.length ?? 1))));
}

function replies(message, openThread) {
  const ofThread = messagesOf(message.channel ?? store.place).filter((m) => isReply(m) && m.thread_ts === message.ts);
  const count = ofThread.length || message.reply_count || 0;
  if (!count) return null;
  const authors = [...new Map(ofThread.map((m) => [m.user ?? m.bot_id, authorOf(m).who])).values()].slice(0, 4);
  const last = ofThread[ofThread.length - 1]?.ts ?? message.latest_reply;
  return h("button.replies", { type: "button", onclick: () => openThread(message.ts) }, h("span.faces", {}, authors.map((who) => avatar(who, "s"))),
    h("b", {}, `${count} ${count === 1 ? "reply" : "replies"}`), last ? h("span.when", {}, `Last reply ${ago(last)}`) : null, icon("right", 14));
}

function tools(message, inThread, openThread) {
  const thread = !inThread && !message.ephemeral && !refusal(message)
    ? h("button", { type: "button", title: "Reply in thread", "aria-label": "Reply in thread", onclick: () => openThread(message.thread_ts ?? message.ts) }, icon("thread")) : null;
  const copy = h("button", { type: "button", title: "Copy text", "aria-label": "Copy text", onclick: () => copyText(message) }, icon("copy"));
  return h("div.tools", {}, thread, copy);
}

async function copyText(message) {
  try {
    await navigator.clipboard.writeText(words(message.text ?? ""));
    toast("Copied.");
  } catch {
    toast("The browser did not allow copying.", "error");
  }
}

/** Read out what others wrote since the last call. */
export function announcer() {
  let last = null;
  let where = null;
  return (place, messages) => {
    const newest = messages[messages.length - 1];
    if (place === where && newest && last !== null && Number(newest.ts) > last && newest.user !== store.user) {
      announce(`${authorOf(newest).name}: ${words(newest.failed ?? newest.text ?? "")}`);
    }
    where = place;
    last = newest ? Number(newest.ts) : 0;
  };
}
