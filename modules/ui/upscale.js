/* Super-resolution: the pictures to enlarge, how far each is, and before and after under a slider. */

import { answered, ask, button, h, setText, whenPresent } from "./dom.js";
import { compare, board, show } from "./compare.js";
import { takeIn } from "./incoming.js";
import { live, onLive } from "./live.js";
import { note } from "./notes.js";
import { duration, plural } from "./words.js";

const MOST_ASKED = 1000; // jobs that the server tells of at once

/** Each is {name, id, before, job, state, reason, after}; state is reading, ready, waiting, running, done, failed or stopped. */
const items = [];
let shown = null; // the item under the slider
let known = null; // the ended job that was looked at last

const file = h("input", { type: "file", accept: "image/*", multiple: true, hidden: true, onchange: () => chosen(file) });
const folder = h("input", { type: "file", webkitdirectory: true, hidden: true, onchange: () => chosen(folder) });
const invitation = h("button", { type: "button", class: "invitation", onclick: () => file.click() },
  h("b", {}, "Drop pictures here"), h("span", {}, "one, many or a folder; or press to choose"));
const list = h("ol", { class: "upscale-list" });
const total = h("p", { class: "about", role: "status" });
const whole = button("Choose a folder", () => folder.click(), { kind: "small" });
const clear = button("Clear", () => forget(items.filter((item) => !busy(item))), { kind: "small" });
const interrupt = button("Interrupt", stop);
const bar = h("progress", { class: "train-bar", max: 1, "aria-label": "Progress of the pictures" });
const acts = h("div", { class: "upscale-acts" }, whole, clear, interrupt);

whenPresent("#upscale-pictures", (home) => home.replaceChildren(invitation, file, folder, bar, h("div", { class: "upscale-head" }, total, acts), list));
whenPresent("#upscale-board", (home) => home.replaceChildren(board));

/** Whether the tab is open. */
export function enlarging() {
  return Boolean(document.querySelector("#upscale-button.selected"));
}

/** Adds what was dropped: files, and those in folders. */
export async function drop(data) {
  const entries = [...data.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const files = [...data.files];
  add(entries.some((entry) => entry.isDirectory) ? (await Promise.all(entries.map(filesIn))).flat() : files);
}

async function filesIn(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const found = [];
  for (let some; (some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject))).length; ) found.push(...some);
  return (await Promise.all(found.map(filesIn))).flat();
}

function chosen(input) {
  add([...input.files]);
  input.value = "";
}

/** Takes files in, one after the other; what is no picture is listed with the reason and left out. */
async function add(files) {
  const added = files.map((each) => ({ name: each.name, file: each, state: "reading" }));
  items.push(...added);
  draw();
  for (const item of added) {
    await taken(item, () => takeIn(item.file));
    delete item.file;
  }
}

async function taken(item, take) {
  try {
    const { id, url } = await take();
    Object.assign(item, { id, before: url, state: "ready" });
    if (!shown) look(item);
  } catch (error) {
    Object.assign(item, { state: "failed", reason: error.message });
  }
  draw();
}

/** Opens the tab with a picture of the gallery in it. */
export function enlarge(picture) {
  const item = { name: picture.file?.split("/").at(-1) ?? `picture ${picture.id}`, state: "reading" };
  items.push(item);
  shown = null;
  document.querySelector("#upscale-button").click();
  taken(item, async () => answered(await fetch(`api/v1/pictures/${picture.id}/incoming`, { method: "POST" })));
}

// What the press of Upscale sends, a picture that is there twice once, and what came of it.
window.easel.upscaling = () => {
  const wanted = items.filter((item) => item.id && !busy(item));
  return [...new Map(wanted.map((item) => [item.id, { picture: item.id, name: item.name }])).values()];
};

whenPresent("#upscale-problem", (home) => {
  new MutationObserver(() => {
    const said = home.querySelector("[data-jobs]");
    if (!said) return;
    for (const [id, job] of Object.entries(JSON.parse(said.dataset.jobs))) {
      for (const item of items.filter((each) => each.id === id && !busy(each))) {
        Object.assign(item, typeof job === "number" ? { job, state: "waiting", reason: "", after: null } : { state: "failed", reason: job });
      }
    }
    follow();
  }).observe(home, { attributes: true, childList: true, subtree: true });
});

const busy = (item) => item.state === "waiting" || item.state === "running";

async function stop() {
  for (const item of items.filter((each) => each.state === "waiting")) {
    ask("DELETE", `api/v1/jobs/${item.job}`).catch((error) => note("error", error.message));
  }
  if (items.some((item) => item.state === "running")) ask("POST", "api/v1/interrupt").catch((error) => note("error", error.message));
}

function forget(gone) {
  for (const item of gone) items.splice(items.indexOf(item), 1);
  if (!items.includes(shown)) look(items.find((item) => item.id) ?? null);
  draw();
}

function look(item) {
  shown = item;
  show(item);
}

/** How the jobs stand: the running one by what is live, the others whenever a job has ended. */
function follow() {
  const { running, last } = live.state;
  for (const item of items) if (busy(item)) item.state = running?.job === item.job ? "running" : "waiting";
  const pending = items.filter((item) => item.state === "waiting");
  const ended = last?.job ?? null;
  if (pending.length && (ended !== known || !running)) {
    known = ended;
    settle(pending.slice(0, MOST_ASKED)).catch(() => (known = null));
  }
  draw();
}

async function settle(pending) {
  const found = await ask("GET", `api/v1/jobs?${pending.map((item) => `id=${item.job}`).join("&")}`);
  for (const { job, state, reason, pictures: made } of found) {
    for (const item of pending.filter((each) => each.job === job)) {
      if (state === "failed") Object.assign(item, { state: "failed", reason });
      if (state === "cancelled") Object.assign(item, { state: "stopped" });
      if (state !== "done") continue;
      Object.assign(item, made.length ? { state: "done", after: made[0] } : { state: "stopped" });
      if (item === shown || !shown?.after) look(item);
    }
  }
  draw();
}

const WORDS = { reading: "reading…", ready: "ready", waiting: "waits", running: "at work", done: "done", stopped: "interrupted" };

function row(item) {
  const size = item.after ? `${item.after.width} × ${item.after.height}` : "";
  const words = item.state === "failed" ? item.reason : [WORDS[item.state], size].filter(Boolean).join(" · ");
  const press = h("button", { type: "button", class: "upscale-item", "aria-current": String(item === shown), onclick: () => { look(item); draw(); } },
    h("b", {}, item.name), h("span", { class: `train-${item.state}` }, words));
  press.disabled = !item.id;
  const remove = button(`Remove ${item.name}`, () => forget([item]), { icon: "close", kind: "small" });
  return h("li", {}, press, busy(item) ? null : remove);
}

let drawn = "";

function draw() {
  const running = items.some((item) => item.state === "running") ? live.state.running : null;
  const ends = items.filter((item) => ["done", "failed", "stopped"].includes(item.state)).length;
  const working = items.some(busy);
  bar.hidden = interrupt.hidden = !working;
  const share = running ? running.step / running.steps : 0;
  bar.value = items.length ? (ends + share) / items.length : 0;
  const left = running?.seconds_left != null ? ` · tile ${running.step} of ${running.steps}, ${duration(running.seconds_left)} left` : "";
  setText(total, items.length ? (working ? `${ends} of ${plural(items.length, "picture")}${left}` : plural(items.length, "picture")) : "");
  clear.hidden = !items.length;
  const now = JSON.stringify([items, items.indexOf(shown)]);
  if (now === drawn) return;
  drawn = now;
  list.replaceChildren(...items.map(row));
}

window.easel.upscalingShown = () => requestAnimationFrame(compare);
onLive(follow);
