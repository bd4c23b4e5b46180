// What the page knows: the server's last state, and where the person in front of it is.

export const store = {
  state: null, // the answer of /ui/state
  user: null, // Slack user id of who sits here
  place: null, // channel id, or the app's id for App Home
  thread: null, // ts of the open thread's first message
  online: true,
};

const listeners = new Set();

/** `render` is called after each change. */
export function subscribe(render) {
  listeners.add(render);
}

export function update(change) {
  Object.assign(store, change);
  for (const render of listeners) render();
}

export const person = (id) =>
  store.state?.people.find((p) => p.id === id || (id && p.bot_id === id)) ?? null;
export const channel = (id) => store.state?.channels.find((c) => c.id === id) ?? null;
export const group = (id) => store.state?.usergroups.find((g) => g.id === id) ?? null;
export const app = () => store.state?.app ?? { id: "", name: "", user_id: "" };

/** The name that people know somebody by. */
export function nameOf(p) {
  return p ? p.real_name || p.profile?.real_name || p.profile?.display_name || p.name : "Somebody";
}

export const titleOf = (p) => p?.title ?? p?.profile?.title ?? "";

/** The direct conversation with the app, when there is one. */
export function appChannel() {
  return store.state?.channels.find((c) => c.is_im && otherOf(c) === app().user_id) ?? null;
}

/** Whom a direct conversation is with, from this person's side. */
export function otherOf(c) {
  if (c.user && c.user !== store.user) return c.user;
  const members = c.members ?? c.users ?? [];
  return members.find((id) => id !== store.user) ?? c.user ?? null;
}

/** A channel's name for people: a direct conversation is called after the other person. */
export function channelName(c) {
  if (!c) return "";
  return c.is_im ? nameOf(person(otherOf(c))) : c.name;
}

export const messagesOf = (id) => store.state?.messages[id] ?? [];

export const isReply = (m) => Boolean(m.thread_ts) && m.thread_ts !== m.ts;

// --- what has been read, per person, kept by this browser -------------------------------

const KEY = "standin.read";

function readMarks() {
  try {
    return JSON.parse(localStorage.getItem(KEY) ?? "{}");
  } catch {
    return {};
  }
}

const markKey = (place) => `${store.user}/${place}`;

export const lastRead = (place) => readMarks()[markKey(place)] ?? "0";

/** Everything in `place` up to `ts` has been seen. */
export function markRead(place, ts) {
  const marks = readMarks();
  if (Number(marks[markKey(place)] ?? 0) >= Number(ts)) return;
  marks[markKey(place)] = ts;
  const newest = Object.entries(marks).sort((a, b) => Number(b[1]) - Number(a[1]));
  localStorage.setItem(KEY, JSON.stringify(Object.fromEntries(newest.slice(0, 300))));
}

/** How many messages of others came since, and whether one names this person. */
export function unread(c) {
  const since = Number(lastRead(c.id));
  const fresh = messagesOf(c.id).filter(
    (m) => Number(m.ts) > since && m.user !== store.user && !isReply(m),
  );
  const named = fresh.filter((m) => c.is_im || m.ephemeral || (m.text ?? "").includes(`<@${store.user}>`));
  return { count: fresh.length, named: named.length };
}
