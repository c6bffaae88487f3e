/* What the person must know, above the stage: failures with their reasons, the engine's and the connection's troubles. */

import { button, h } from "./dom.js";
import { live, onLive, tell } from "./live.js";
import { pictures } from "./pictures.js";
import { plural, sentence } from "./words.js";

export const notes = h("div", { class: "notes" });

const LOST_AFTER = 1000; // milliseconds without a connection before it is said
const BRIEF = 4000; // milliseconds that good news stays
const closed = new Set(); // keys of notes that were closed
const brief = new Map(); // key -> note that goes by itself

let lostSince = null;
let before = null; // the engine's state as last seen
let drawn = "";

/** Says `text` above the stage until it is closed. */
export function note(kind, text) {
  closed.delete(text);
  brief.set(text, { key: text, kind, text });
  tell();
}

function noteBriefly(text) {
  brief.set(text, { key: text, kind: "good", text });
  setTimeout(() => brief.delete(text) && tell(), BRIEF);
}

function current() {
  const { engine, last, notices, queued_count: queued, running } = live.state;
  const found = notices.map((text) => ({ key: text, kind: "warn", text }));
  if (engine.state === "restarting") {
    const again = queued ? " What it was drawing is drawn again, with the same seed." : "";
    const words = `The engine stopped and is starting again.${again}`;
    found.push({ key: "restarting", kind: "warn", text: words, stays: true });
  }
  if (engine.state === "failed") found.push({ key: "failed", kind: "error", text: `The engine cannot start: ${engine.text}`, stays: true });
  if (last && !running && !queued) found.push(...ended(last));
  if (lostSince && Date.now() - lostSince >= LOST_AFTER) {
    found.push({ key: "lost", kind: "error", text: "The connection to Easel is lost. Trying again…", stays: true });
  }
  return [...found, ...brief.values()].filter((each) => !closed.has(each.key));
}

function ended(last) {
  const key = `job ${last.job}`;
  if (last.state === "failed") return [{ key, kind: "error", text: `Not drawn: ${last.reason || "the engine gave no reason"}` }];
  if (last.state !== "cancelled") return [];
  const count = pictures.list.filter((picture) => picture.job === last.job).length;
  const kept = count ? `${plural(count, "finished picture")} kept.` : "No picture was finished.";
  return [{ key, kind: "plain", text: `Interrupted. ${kept}` }];
}

function dismiss(key) {
  closed.add(key);
  brief.delete(key);
  tell();
}

function shownNote(each) {
  const close = each.stays ? null : button("Close", () => dismiss(each.key), { icon: "close", kind: "small" });
  return h("div", { class: `note note-${each.kind}`, role: each.kind === "error" ? "alert" : "status" }, h("p", {}, sentence(each.text)), close);
}

function watchConnection() {
  if (live.connected === false && !lostSince) {
    lostSince = Date.now();
    setTimeout(tell, LOST_AFTER);
  }
  if (live.connected && lostSince) {
    if (Date.now() - lostSince >= LOST_AFTER) noteBriefly("Connected again.");
    lostSince = null;
  }
}

function watchEngine() {
  const now = live.state.engine.state;
  const back = before === "restarting" && (now === "ready" || now === "busy");
  before = now;
  if (back) noteBriefly("The engine is back.");
}

onLive(() => {
  watchConnection();
  watchEngine();
  const wanted = current();
  const now = JSON.stringify(wanted);
  if (now === drawn) return;
  drawn = now;
  notes.replaceChildren(...wanted.map(shownNote));
});
