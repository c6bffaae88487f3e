/* The server's state, as it changes. Everything on the page that moves is drawn from here. */

/** `state` is the server's snapshot; `preview` the latest look at the picture being drawn; `connected` null before the first word. */
export const live = { state: null, preview: null, connected: null };

const listeners = new Set();
const RETRY = 1000; // milliseconds between attempts to connect
let source = null;
let retry = null;

/** Calls `listener` now, if there is something to tell, and on every change. */
export function onLive(listener) {
  listeners.add(listener);
  if (live.state) listener();
}

export function tell() {
  for (const listener of listeners) listener();
}

function connect() {
  disconnect();
  source = new EventSource("api/v1/events");
  source.addEventListener("state", (event) => heard(JSON.parse(event.data)));
  source.addEventListener("preview", (event) => {
    live.preview = JSON.parse(event.data);
    tell();
  });
  source.addEventListener("error", () => {
    disconnect();
    if (live.connected !== null) live.connected = false;
    tell();
    retry = setTimeout(connect, RETRY);
  });
}

function disconnect() {
  clearTimeout(retry);
  source?.close();
  source = null;
}

function heard(state) {
  live.state = state;
  live.connected = true;
  if (live.preview && live.preview.job !== state.running?.job) live.preview = null;
  tell();
}

// A hidden page lets its connection go: browsers allow few to one host, and the snapshot brings everything back.
document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));
window.addEventListener("online", connect);
connect();
