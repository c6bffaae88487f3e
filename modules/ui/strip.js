/* The strip of pictures: newest first, the one being drawn at its head. Arrow keys walk it. */

import { h } from "./dom.js";
import { live, onLive } from "./live.js";
import { choose, more, pictures, shown } from "./pictures.js";

const glimpse = h("img", { alt: "", hidden: true });
const label = "The picture being drawn";
const current = h("button", { type: "button", class: "tile drawing", "aria-label": label, title: label, onclick: () => choose(null) }, glimpse);
export const strip = h("div", { class: "strip", role: "group", "aria-label": "Pictures, newest first", onkeydown: walk, onscroll: reach });

const tiles = new Map(); // picture id -> its button
let drawn = null; // the list that the strip shows

function tile(picture) {
  const words = picture.infotext.split("\n")[0] || "(no prompt)";
  const label = `${words}, seed ${picture.seed}${picture.problem ? ", not saved" : ""}`;
  const look = h("img", { src: picture.thumbnail, alt: "", loading: "lazy", width: picture.width, height: picture.height });
  const press = h("button", { type: "button", class: "tile", "aria-label": label, title: label, onclick: () => choose(picture.id) }, look);
  press.classList.toggle("unsaved", Boolean(picture.problem));
  press.dataset.picture = picture.id;
  return press;
}

function draw() {
  const { running } = live.state;
  current.hidden = !running;
  if (running) current.style.setProperty("--ratio", running.width / running.height);
  glimpse.hidden = !live.preview;
  if (live.preview) glimpse.src = live.preview.image;
  if (drawn !== pictures.list || tiles.size !== pictures.list.length) drawTiles();
  const looked = running && pictures.chosen === null ? current : tiles.get(shown()?.id);
  for (const press of strip.children) {
    const here = press === looked;
    press.setAttribute("aria-current", String(here));
    press.tabIndex = here ? 0 : -1;
  }
}

function drawTiles() {
  drawn = pictures.list;
  const old = new Map(tiles);
  tiles.clear();
  for (const picture of pictures.list) {
    const known = old.get(picture.id);
    const same = known && known.classList.contains("unsaved") === Boolean(picture.problem);
    tiles.set(picture.id, same ? known : tile(picture));
  }
  const focused = document.activeElement?.dataset?.picture;
  strip.replaceChildren(current, ...tiles.values());
  if (focused) tiles.get(Number(focused))?.focus();
}

function walk(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity }[event.key];
  if (!step) return;
  event.preventDefault();
  const all = [...strip.children].filter((press) => !press.hidden);
  const at = all.indexOf(document.activeElement) + step;
  const next = all[Math.max(0, Math.min(all.length - 1, at))];
  next.click();
  next.focus();
  next.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function reach() {
  if (strip.scrollLeft + strip.clientWidth > strip.scrollWidth - 400) more();
}

onLive(draw);
