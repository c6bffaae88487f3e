/* The picture that is changed, beside the stage: dropped, pasted, chosen or sent here, with the mask over it. */

import { batch, collect } from "./batch.js";
import { button, h, setText, settled, whenPresent } from "./dom.js";
import { decoded, idIn, put, takeIn, wish } from "./incoming.js";
import { follow, handOver, maskTransparent, open, surface, tools } from "./mask.js";
import { note } from "./notes.js";
import { shown } from "./pictures.js";
import { drop, enlarging } from "./upscale.js";

const image = h("img", { alt: "The picture that is changed", draggable: "false" });
const sheet = h("div", { class: "sheet-of-paper", hidden: true }, image, surface);
const file = h("input", { type: "file", accept: "image/*", hidden: true, onchange: () => file.files[0] && take(file.files[0]) });
const invitation = h("button", { type: "button", class: "invitation", onclick: () => file.click() },
  h("b", {}, "Drop a picture here"), h("span", {}, "or press to choose one; pasting works too"));
const room = h("div", { class: "source-room" }, invitation, sheet);
const about = h("p", { class: "about" });
const another = button("Choose another", () => file.click());
const transparent = button("Mask what is transparent", () => maskTransparent(image), { kind: "for-masks" });
const remove = button("Take the picture away", () => put("init_image", ""), { icon: "close" });
const caption = h("div", { class: "caption" }, about, h("div", { class: "acts" }, transparent, another, remove), file);

const margin = h("input", { type: "number", min: 8, max: 2048, step: 8, value: 64, "aria-label": "Pixels to extend by" });
const sides = { left: "←", top: "↑", right: "→", bottom: "↓", all: "all sides" };
const extend = h("details", { class: "fold extend" }, h("summary", { class: "press" }, "Extend"),
  h("div", { class: "sheet" }, h("label", {}, "By ", margin, " pixels"),
    h("div", { class: "sides" }, ...Object.entries(sides).map(([side, sign]) => {
      const press = button(sign, () => grow(side));
      press.setAttribute("aria-label", side === "all" ? "Extend on all sides" : `Extend at the ${side}`);
      return press;
    }))));

function grow(side) {
  extend.open = false;
  wish("extend", `${idIn("init_image")} ${side} ${margin.value}`);
}

let opened = ""; // the id of the picture that is shown

async function show() {
  const id = idIn("init_image");
  if (id !== opened) {
    opened = id;
    sheet.hidden = !id;
    invitation.hidden = Boolean(id);
    for (const part of [caption, extend]) part.hidden = !id;
    if (id) await openPicture(id);
  }
  if (id && document.body.dataset.tab === "inpainting") await follow();
}

async function openPicture(id) {
  image.src = (await decoded(`api/v1/incoming/${id}`)).src;
  await image.decode();
  sheet.style.setProperty("--w", image.naturalWidth);
  sheet.style.setProperty("--h", image.naturalHeight);
  setText(about, `${image.naturalWidth} × ${image.naturalHeight}`);
  open(image.naturalWidth, image.naturalHeight);
}

/** Takes what was dropped: one picture to change, or a batch of them. */
function takeAll(files) {
  if (files.length < 2) return files[0] && take(files[0]);
  leaveText();
  return collect("pictures", files);
}

function leaveText() {
  if (document.body.dataset.tab === "text-to-image") openTab("image-to-image");
}

/** Makes a file the picture that is changed. */
async function take(chosen) {
  try {
    const { id } = await takeIn(chosen);
    leaveText();
    put("mask", "");
    put("init_image", id);
    wish("suit", id);
  } catch (error) {
    note("error", `${chosen.name || "The picture"}: ${error.message}`);
  } finally {
    file.value = "";
  }
}

function openTab(tab) {
  document.querySelectorAll("#tabs [role=tab]")[["text-to-image", "image-to-image", "inpainting"].indexOf(tab)]?.click();
}

/** Sends the shown picture, and how it was drawn, to a tab. */
export function sendTo(tab) {
  if (shown()) wish("send", `${tab} ${shown().id}`);
}

const showSoon = settled(30, () => show().catch((error) => {
  opened = "";
  note("error", `The picture cannot be shown: ${error.message}`);
}));

function followTab() {
  document.body.dataset.tab = idIn("tab") || "text-to-image";
  showSoon();
}

whenPresent("#source", (home) => {
  home.replaceChildren(h("div", { class: "tool-bar" }, tools, h("div", { class: "folds" }, batch, extend)), room, caption);
  for (const part of [caption, extend]) part.hidden = true;
  opened = "";
  followTab();
});
window.addEventListener("easel:changed", followTab);
window.addEventListener("easel:filled", followTab);

// Whatever is dropped or pasted anywhere on the page is a picture to change, or to enlarge.
for (const name of ["dragover", "drop"]) {
  document.addEventListener(name, (event) => {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    event.stopPropagation();
    if (name === "drop" && enlarging()) drop(event.dataTransfer);
    else if (name === "drop") takeAll(event.dataTransfer.files);
  }, true);
}
document.addEventListener("paste", (event) => {
  const pasted = [...event.clipboardData.files].find((each) => each.type.startsWith("image/"));
  if (!pasted) return;
  event.preventDefault();
  take(pasted);
});

// Who paints and presses Generate at once means the mask that is seen.
let passing = false;
document.addEventListener("click", (event) => {
  const press = event.target.closest("#generate, #remove");
  if (!press || passing || document.body.dataset.tab !== "inpainting") return;
  event.stopImmediatePropagation();
  event.preventDefault();
  handOver().then(() => setTimeout(() => {
    passing = true;
    press.click();
    passing = false;
  }, 50)); // once the form has taken it up
}, true);
