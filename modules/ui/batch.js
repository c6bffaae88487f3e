/* A batch: many pictures in, each changed as the form says, with masks of the same names where there are any. */

import { button, h, setText } from "./dom.js";
import { takeIn, wish } from "./incoming.js";
import { handOver } from "./mask.js";
import { note } from "./notes.js";
import { plural } from "./words.js";

const chosen = { pictures: [], masks: [] };
const says = h("p", { role: "status" });
const start = button("Draw them all", () => drawAll(), { kind: "strong" });
const explains = h("p", { class: "explains" }, "Each is drawn as the form says, at the size that suits it. ",
  h("span", { class: "for-masks" }, "Without masks the painted one is used for all."));

/** The part of the bar above the picture that is about batches. */
export const batch = h("details", { class: "fold batch" }, h("summary", { class: "press" }, "Batch"),
  h("div", { class: "sheet" }, chooser("pictures"), chooser("masks"), explains, start, says));
draw();

/** What is chosen for a batch: files, or all of a folder. */
function chooser(kind) {
  const take = (event) => {
    collect(kind, event.target.files);
    event.target.value = "";
  };
  const files = h("input", { type: "file", accept: "image/*", multiple: true, hidden: true, onchange: take });
  const folder = h("input", { type: "file", webkitdirectory: true, hidden: true, onchange: take });
  return h("div", { class: `chooser ${kind}` }, button(`Choose ${kind}`, () => files.click()), button("or a folder", () => folder.click()), files, folder,
    h("span", { class: "count" }));
}

/** Makes these files the pictures (or the masks) of the batch, and shows it. */
export function collect(kind, files) {
  chosen[kind] = [...files].sort((one, other) => called(one).localeCompare(called(other), "en", { numeric: true }));
  setText(says, "");
  batch.open = true;
  draw();
}

function draw() {
  for (const [kind, files] of Object.entries(chosen)) setText(batch.querySelector(`.${kind} .count`), files.length ? `${files.length} chosen` : "");
  start.disabled = !chosen.pictures.length;
}

/** A file's name, with its folders below the one that was chosen. */
function called(file) {
  return (file.webkitRelativePath || file.name).replace(/^[^/]*\//, "");
}

function stem(file) {
  return called(file).replace(/\.[^./]*$/, "");
}

async function drawAll() {
  start.disabled = true;
  await handOver();
  const masks = document.body.dataset.tab === "inpainting" ? new Map(chosen.masks.map((file) => [stem(file), file])) : new Map();
  const taken = [], problems = [];
  for (const [number, picture] of chosen.pictures.entries()) {
    setText(says, `Taking ${number + 1} of ${chosen.pictures.length}…`);
    try {
      taken.push(await takeBoth(picture, masks));
    } catch (error) {
      problems.push(`${called(picture)}: ${error.message}`);
    }
  }
  if (problems.length) note("error", `Left out: ${problems.join("; ")}`);
  setText(says, `${plural(taken.length, "picture")} handed over.`);
  wish("batch", JSON.stringify(taken));
  draw();
}

async function takeBoth(picture, masks) {
  const mask = masks.get(stem(picture));
  if (masks.size && !mask) throw new Error("there is no mask of this name");
  const { id } = await takeIn(picture);
  return { name: called(picture), init_image: id, mask: mask ? (await takeIn(mask)).id : "" };
}
