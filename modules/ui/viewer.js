/* A picture as large as the window allows, or pixel by pixel; arrows walk, Escape leaves. */

import { button, h, setText, whenPresent } from "./dom.js";
import { choose, neighbour, shown } from "./pictures.js";
import { onLive } from "./live.js";

const image = h("img", { class: "viewer-image", alt: "" });
const caption = h("p", { class: "viewer-caption" });
const zoom = h("button", { type: "button", class: "press", "aria-pressed": "false", onclick: toggleZoom }, "1:1");
const newer = button("Newer picture", () => step(-1), { icon: "left" });
const older = button("Older picture", () => step(1), { icon: "right" });
const close = button("Close", () => viewer.close(), { icon: "close" });
const bar = h("div", { class: "viewer-bar" }, caption, zoom, newer, older, close);
const viewer = h("dialog", { class: "viewer", "aria-label": "Picture viewer" }, bar, h("div", { class: "viewer-room", onclick: leave }, image));
whenPresent(".gradio-container", (page) => page.append(viewer));

export function openViewer() {
  if (!shown() || viewer.open) return;
  setZoom(false);
  viewer.showModal();
  draw();
}

export function viewerIsOpen() {
  return viewer.open;
}

function toggleZoom() {
  setZoom(zoom.getAttribute("aria-pressed") !== "true");
}

function setZoom(on) {
  zoom.setAttribute("aria-pressed", String(on));
  viewer.classList.toggle("actual", on);
}

function step(by) {
  const next = neighbour(by);
  if (next) choose(next.id);
}

function leave(event) {
  if (event.target !== image) viewer.close();
  else toggleZoom();
}

function draw() {
  const picture = shown();
  if (!viewer.open || !picture) return;
  if (image.getAttribute("src") !== picture.url) image.src = picture.url;
  image.alt = picture.infotext.split("\n")[0];
  image.style.setProperty("--w", picture.width);
  image.style.setProperty("--h", picture.height);
  setText(caption, `${picture.width} × ${picture.height} · seed ${picture.seed}`);
  newer.disabled = !neighbour(-1);
  older.disabled = !neighbour(1);
}

const KEYS = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), 1: () => setZoom(true), 0: () => setZoom(false) };

viewer.addEventListener("keydown", (event) => {
  const action = KEYS[event.key];
  if (!action || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  action();
});
onLive(draw);
