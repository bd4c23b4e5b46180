// The thread panel on the right.

import { composer } from "./composer.js";
import { h, icon, replace } from "./dom.js";
import { announcer, messageList } from "./messages.js";
import { channel, channelName, messagesOf, store } from "./store.js";

/** The panel in `root`; `close()` is called by its button and by Escape. */
export function threadPanel(root, close) {
  const where = h("small");
  const head = h("header.head", {}, h("h1", {}, icon("thread", 18), "Thread", where),
    h("button.round", { type: "button", "aria-label": "Close thread", onclick: close }, icon("close")));
  const list = messageList("Thread", () => {});
  const box = composer(() => ({ channel: store.place, thread_ts: store.thread }));
  const say = announcer();
  root.append(head, list.node, box.node);
  root.addEventListener("keydown", (event) => event.key === "Escape" && close());
  const render = () => {
    root.hidden = !store.thread;
    if (!store.thread) return;
    const c = channel(store.place);
    replace(where, c ? (c.is_im ? channelName(c) : `#${channelName(c)}`) : "");
    const messages = messagesOf(store.place).filter((m) => m.ts === store.thread || m.thread_ts === store.thread);
    list.render(messages, { key: `${store.user}/${store.place}/${store.thread}`, head: messages.length ? null : gone, inThread: true });
    box.render({ placeholder: "Reply…", blocked: c?.is_archived ? "This channel is archived." : null });
    say(store.thread, messages);
  };
  return { render, focus: () => box.input.focus() };
}

const gone = h("p.empty", {}, "This thread is no longer here.");
