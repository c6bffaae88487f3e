/* Before and after, one over the other: a slider says where one ends and the other begins. */

import { h, setText } from "./dom.js";

const before = h("img", { class: "compare-before", alt: "Before", draggable: "false" });
const after = h("img", { class: "compare-after", alt: "After", draggable: "false" });
const slider = h("input", { type: "range", class: "compare-slider", min: 0, max: 100, step: "any", value: 50, "aria-label": "Before and after", oninput: place });
const line = h("span", { class: "compare-line", "aria-hidden": "true" });
const sheet = h("div", { class: "compare-sheet", hidden: true }, before, after, line, slider);
const hint = h("div", { class: "welcome upscale-hint" }, h("h2", {}, "Make pictures larger"),
  h("p", {}, "Drop them on the left and press Upscale: before and after appear here, under a slider."));
const room = h("div", { class: "compare-room" }, hint, sheet);
const about = h("p", { class: "about" });
const zooms = { Fit: 0, "1:1": 1, "2:1": 2, "4:1": 4 };
const presses = Object.entries(zooms).map(([name, zoom]) =>
  h("button", { type: "button", class: "press", "aria-pressed": "false", title: zoom ? `${name} pixels` : "All of it", onclick: () => setZoom(zoom) }, name));
const save = h("a", { class: "press", title: "Save this picture", "aria-label": "Save this picture", hidden: true },
  h("span", { class: "glyph glyph-download", "aria-hidden": "true" }), "Save");
const caption = h("div", { class: "caption" }, about, h("div", { class: "acts" }, ...presses, save));

/** What shows both pictures. */
export const board = h("div", { class: "compare" }, room, caption);

let shown = null;
let zoom = 0;

/** Shows a picture {name, before, after}: `before` is an address, `after` a picture of the gallery, or nothing yet; null for none. */
export function show(item) {
  shown = item;
  hint.hidden = Boolean(item);
  sheet.hidden = !item;
  const made = item?.after ?? null;
  for (const part of [after, line, slider, save, ...presses]) part.hidden = !made;
  setText(about, made ? `${item.name} · ${made.width} × ${made.height} · ${made.file ?? "not saved"}` : (item?.name ?? ""));
  if (!item) return;
  before.src = item.before;
  if (made) {
    after.src = made.url;
    save.href = made.url;
    save.download = `${item.name.replace(/\.\w+$/, "")}-${made.width}x${made.height}.png`;
  }
  before.onload = compare;
  compare();
}

function setZoom(wanted) {
  zoom = wanted;
  compare();
}

/** Lays both out at the size that is wanted. */
export function compare() {
  if (!shown) return;
  const width = shown.after?.width ?? before.naturalWidth;
  const height = shown.after?.height ?? before.naturalHeight;
  const scale = zoom || Math.min((room.clientWidth - 32) / width, (room.clientHeight - 32) / height, 4);
  sheet.style.width = `${width * scale}px`;
  sheet.style.height = `${height * scale}px`;
  room.classList.toggle("zoomed", zoom > 0);
  presses.forEach((press, at) => press.setAttribute("aria-pressed", String(Object.values(zooms)[at] === zoom)));
  place();
}

function place() {
  sheet.style.setProperty("--at", `${slider.value}%`);
}

show(null);
window.addEventListener("resize", compare);
