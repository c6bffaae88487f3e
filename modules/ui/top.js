/* The top bar: how the engine is, what waits, and which checkpoints were refused. */

import { ask, button, h, setText, whenPresent } from "./dom.js";
import { live, onLive } from "./live.js";

const pill = h("summary", { class: "pill" }, h("span", { class: "dot" }), h("span", { class: "pill-text", role: "status" }, "starting"));
const facts = h("dl", { class: "facts" });
const waiting = h("ol", { class: "waiting" });
const engine = h("details", { class: "fold" }, pill, h("div", { class: "sheet" }, facts, waiting));

function drawEngine() {
  const { state, connected } = live;
  const { engine: about, queued_count: count } = state;
  engine.dataset.state = connected ? about.state : "lost";
  const words = connected ? `engine: ${about.text}` : "connection lost";
  setText(pill.lastChild, count ? `${words} · ${count} queued` : words);
  const rows = [["Device", about.device], ["Number format", about.number_format], ["Why", about.why]].filter(([, value]) => value);
  facts.replaceChildren(...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

function drawWaiting() {
  const { state } = live;
  const items = state.queued.map((job) => {
    const drop = button("Remove from the queue", () => ask("DELETE", `api/v1/jobs/${job.job}`), { icon: "close", kind: "small" });
    const many = job.pictures > 1 ? ` × ${job.pictures}` : "";
    return h("li", {}, h("span", {}, `${job.prompt || "(no prompt)"}${many}`), drop);
  });
  const unseen = state.queued_count - state.queued.length;
  if (unseen > 0) items.push(h("li", {}, `and ${unseen} more`));
  waiting.replaceChildren(...items);
  waiting.hidden = !items.length;
}

const refused = h("details", { class: "fold", hidden: true }, h("summary", { class: "pill" }), h("ul", { class: "sheet" }));

async function drawRefused() {
  const bad = await ask("GET", "api/v1/models/refused");
  refused.hidden = !bad.length;
  setText(refused.firstChild, `${bad.length} refused`);
  refused.firstChild.title = "Files in the model folders that cannot be used, and why";
  refused.lastChild.replaceChildren(...bad.map((model) => h("li", {}, h("b", {}, model.name), h("span", {}, model.reason))));
}

whenPresent("#engine", (home) => home.replaceChildren(engine));
whenPresent("#refused", (home) => home.replaceChildren(refused));

const drawn = {}; // what each part was last drawn from

/** Draws a part when what it shows has changed: what is being pressed stays where it is. */
function drawOnce(draw, ...shown) {
  const now = JSON.stringify(shown);
  if (drawn[draw.name] !== now) draw();
  drawn[draw.name] = now;
}

let version; // of the list of checkpoints

onLive(() => {
  const { engine: about, queued, queued_count: count, models } = live.state;
  drawOnce(drawEngine, live.connected, about, count);
  drawOnce(drawWaiting, queued, count);
  if (models.version === version || !live.connected) return;
  if (version !== undefined) document.querySelector("#models-changed")?.click();
  version = models.version;
  drawRefused().catch(() => (version = undefined));
});

// A fold in the top bar closes like a menu: by Escape, or by pressing elsewhere.
document.addEventListener("click", (event) => {
  if (!event.isTrusted) return; // the page's own presses are nobody's wish
  for (const fold of [engine, refused]) if (!fold.contains(event.target)) fold.open = false;
});
for (const fold of [engine, refused]) {
  fold.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !fold.open) return;
    event.stopPropagation();
    fold.open = false;
    fold.firstChild.focus();
  });
}
