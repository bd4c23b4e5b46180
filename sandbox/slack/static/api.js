// The page's side of the HTTP API, and the stream of changes with its reconnecting.

const WAIT_MS = 20_000;

/** What the server answered, or what kept it from answering, as one shape. */
export class ApiError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

async function call(method, path, body) {
  const options = { method, signal: AbortSignal.timeout(WAIT_MS) };
  if (body !== undefined) {
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    throw new ApiError(error.name === "TimeoutError" ? "The stand-in did not answer." : "The stand-in cannot be reached.");
  }
  const text = await response.text();
  const answer = parse(text);
  if (!response.ok) {
    throw new ApiError(answer?.error ?? `The stand-in answered ${response.status}.`, response.status);
  }
  return answer ?? {};
}

function parse(text) {
  try {
    return text ? JSON.parse(text) : {};
  } catch {
    return null;
  }
}

export const get = (path) => call("GET", path);
export const post = (path, body) => call("POST", path, body);
export const remove = (path, body) => call("DELETE", path, body);

export const api = {
  state: (user) => get(`/ui/state?user=${encodeURIComponent(user)}`),
  command: (body) => post("/ui/command", body),
  message: (body) => post("/ui/message", body),
  action: (body) => post("/ui/action", body),
  submit: (body) => post("/ui/submit", body),
  close: (body) => post("/ui/close", body),
  home: (user) => post("/ui/home", { user }),
  dismiss: (body) => post("/ui/dismiss", body),
  options: (body) => post("/ui/options", body),
  shortcut: (body) => post("/ui/shortcut", body),
  advance: (seconds) => post("/ui/advance", { seconds }),
  wire: (after) => get(`/ui/wire?after=${after}`),
  addFault: (body) => post("/ui/faults", body),
  clearFaults: (id) => remove(`/ui/faults${id === null ? "" : `?id=${id}`}`),
  setFlags: (user, body) => post(`/ui/users/${encodeURIComponent(user)}/flags`, body),
};

const FIRST_RETRY_MS = 400;
const LAST_RETRY_MS = 5_000;
const HIDDEN_MS = 4_000;

/**
 * Calls `changed` on every event and `online(true|false)` as the line comes and goes. Returns stop().
 *
 * A browser grants six connections to one server for all its tabs together, so a tab that
 * nobody looks at gives its stream back and asks now and then instead.
 */
export function listen(user, { changed, online }) {
  let source = null;
  let timer = null;
  let wait = FIRST_RETRY_MS;
  const open = () => {
    source = new EventSource(`/ui/events?user=${encodeURIComponent(user)}`);
    source.onopen = () => {
      wait = FIRST_RETRY_MS;
      online(true);
      changed();
    };
    source.onmessage = () => changed();
    source.onerror = () => {
      source.close();
      online(false);
      timer = setTimeout(open, wait);
      wait = Math.min(wait * 1.6, LAST_RETRY_MS);
    };
  };
  const close = () => {
    clearTimeout(timer);
    clearInterval(timer);
    source?.close();
  };
  const settle = () => {
    close();
    if (document.visibilityState === "hidden") timer = setInterval(changed, HIDDEN_MS);
    else open();
  };
  document.addEventListener("visibilitychange", settle);
  settle();
  return () => {
    document.removeEventListener("visibilitychange", settle);
    close();
  };
}
