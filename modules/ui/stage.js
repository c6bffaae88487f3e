/* The stage: the picture being drawn, or the one looked at, and in words how things stand. */

import { ask, button, h, setText, typeInto, whenPresent } from "./dom.js";
import { live, onLive } from "./live.js";
import { note, notes } from "./notes.js";
import { parameters } from "./parameters.js";
import { choose, pictures, refresh, shown } from "./pictures.js";
import { sendTo } from "./source.js";
import { strip } from "./strip.js";
import { enlarge } from "./upscale.js";
import { openViewer } from "./viewer.js";
import { pictureWords, progressWords, sentence } from "./words.js";

const image = h("img", { alt: "", hidden: true });
const frame = h("button", { type: "button", class: "frame", "aria-label": "Open in the viewer", onclick: openViewer }, image);
const welcome = h("div", { class: "welcome" });
const empty = h("div", { class: "welcome empty" });
const room = h("div", { class: "room" }, frame, welcome, empty, notes);

const says = h("p", { class: "says" });
const save = button("Save again", saveAgain, { kind: "strong" });
const zoom = button("Open in the viewer", openViewer, { icon: "zoom" });
const download = h("a", { class: "press", title: "Download this picture", "aria-label": "Download this picture" });
const send = h("details", { class: "fold send" }, h("summary", { class: "press" }, "Send to"), h("div", { class: "sheet" },
  ...Object.entries({ "text-to-image": "Text to image", "image-to-image": "Image to image", inpainting: "Inpainting" }).map(([tab, name]) => button(name, () => {
    send.open = false;
    sendTo(tab);
  })),
  button("Super-resolution", () => {
    send.open = false;
    enlarge(shown());
  })));
const skip = button("Skip", () => act("api/v1/skip"));
const interrupt = button("Interrupt", stop);
const bar = h("progress", { class: "bar", max: 1, "aria-label": "Progress of the job" });
const caption = h("div", { class: "caption" }, says, h("div", { class: "acts" }, save, send, zoom, download, skip, interrupt), bar);
const told = h("p", { class: "unseen", role: "status" }); // for ears: beginnings and ends, not every step

download.append(h("span", { class: "glyph glyph-download", "aria-hidden": "true" }));
skip.title = "Leave this picture out and go on with the next";
interrupt.title = "Stop the running job (Escape)";

whenPresent("#stage", (stage) => {
  drawWelcome(JSON.parse(stage.dataset.examples));
  stage.replaceChildren(room, caption, strip, parameters, told);
});

function drawWelcome(examples) {
  const tries = examples.map((prompt) => button(prompt, () => tryOut(prompt), { kind: "example" }));
  const words = "Write it in a sentence and press Generate: the picture appears here, step by step.";
  welcome.replaceChildren(h("h2", {}, "What would you like to see?"), h("p", {}, words), h("div", { class: "examples" }, ...tries));
}

function tryOut(prompt) {
  typeInto("prompt", prompt);
  setTimeout(() => document.querySelector("#generate").click(), 50); // once the form has taken it up
}

/** Interrupts the running job, and shows so before the server has answered. */
export function stop() {
  if (!live.state?.running) return;
  live.state.running.interrupting = true;
  draw();
  act("api/v1/interrupt");
}

function act(path) {
  return ask("POST", path).catch((error) => note("error", error.message));
}

async function saveAgain() {
  await act(`api/v1/pictures/${shown().id}/save`);
  await refresh();
}

/** What is on the stage: "drawing", "picture", "waiting", "nomodel" or "welcome". */
function view() {
  const { models, queued_count: queued, running } = live.state;
  if (pictures.chosen !== null && shown()) return "picture";
  if (running) return "drawing";
  if (shown()) return "picture";
  if (queued) return "waiting";
  return models.count ? "welcome" : "nomodel";
}

function draw() {
  const on = view();
  room.dataset.view = pictures.loaded || on === "drawing" ? on : "blank";
  const picture = on === "picture" ? shown() : null;
  drawFrame(picture);
  drawEmpty(on);
  drawCaption(picture);
  drawTold();
}

function drawFrame(picture) {
  const { running } = live.state;
  const preview = live.preview?.picture === running?.picture ? live.preview?.image : null;
  const source = picture ? picture.url : preview;
  const subject = picture ?? running;
  frame.disabled = !picture;
  image.hidden = !source;
  if (source && image.getAttribute("src") !== source) image.src = source;
  if (!source) image.removeAttribute("src");
  image.alt = picture ? picture.infotext.split("\n")[0] : "The picture as it is being drawn";
  if (!subject) return;
  frame.style.setProperty("--w", subject.width);
  frame.style.setProperty("--h", subject.height);
}

function drawEmpty(on) {
  const { engine } = live.state;
  const title = on === "waiting" ? "Queued" : "There is no checkpoint yet";
  const waits = engine.state === "loading" ? `It starts when the engine is ready: ${engine.text}` : "It starts when the engine is ready.";
  const put = "Put a Stable Diffusion 1.x checkpoint (.safetensors or .ckpt) into models/Stable-diffusion, then press the arrow beside the list at the top.";
  const text = on === "waiting" ? waits : put;
  if (empty.textContent !== title + text) empty.replaceChildren(h("h2", {}, title), h("p", {}, text));
}

function drawCaption(picture) {
  const { engine, running } = live.state;
  setText(says, running ? progressWords(running, engine) : picture ? pictureWords(picture) : "");
  says.title = says.textContent;
  for (const press of [skip, interrupt, bar]) press.hidden = !running;
  skip.hidden = !running || running.pictures < 2;
  interrupt.disabled = Boolean(running?.interrupting);
  for (const press of [send, zoom, download]) press.hidden = !picture;
  save.hidden = !picture?.problem;
  if (picture) {
    download.href = picture.url;
    download.download = (picture.file ?? `${picture.id}-${picture.seed}.png`).split("/").at(-1);
  }
  if (running) bar.value = (running.picture + running.step / running.steps) / running.pictures;
  const percent = running ? `${Math.round(bar.value * 100)} % · ` : "";
  if (document.title !== `${percent}Easel`) document.title = `${percent}Easel`;
}

function drawTold() {
  const { last, running } = live.state;
  const endings = { done: "Finished", failed: "Failed", cancelled: "Interrupted" };
  setText(told, running ? `Drawing job ${running.job}` : last ? sentence(endings[last.state]) : "");
}

onLive(draw);

// Whoever asks for a picture wants to see it: the stage follows what is drawn, and comes into sight where it stands above the form.
document.addEventListener("click", (event) => {
  if (!event.target.closest("#generate")) return;
  choose(null);
  if (innerWidth < 1100) document.querySelector("#stage").scrollIntoView({ behavior: "smooth" });
}, true);
