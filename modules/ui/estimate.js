/* How long the picture in the form will take, from how long the last one of its kind took. */

import { live, onLive } from "./live.js";
import { pictures } from "./pictures.js";
import { duration } from "./words.js";

const KEY = "easel:rates";
const rates = JSON.parse(localStorage.getItem(KEY) ?? "{}"); // checkpoint and sampler -> seconds for a pixel and a step
const keys = matchMedia("(hover: none)").matches ? null : /mac/i.test(navigator.platform) ? "⌘ Enter" : "Ctrl Enter";
const measured = new Set(); // jobs
const loaded = new Set(); // jobs that a checkpoint was loaded for: their time says little about the next

const valueOf = (field) => document.querySelector(`#field-${field} :is(input, textarea)`)?.value ?? "";
const stem = (name) => name.split("/").at(-1).replace(/\.[^.]*$/, "");

function measure(last) {
  const mine = pictures.list.filter((picture) => picture.job === last.job);
  if (measured.has(last.job) || !mine.length) return;
  measured.add(last.job);
  const { infotext, width, height } = mine[0];
  const about = (key) => infotext.match(new RegExp(`${key}: "?([^,"]+)`))?.[1];
  if (about("Postprocess upscaler")) return; // it was made larger, not drawn
  const kind = `${about("Model")} ${about("Sampler")}`;
  if (loaded.has(last.job) && rates[kind]) return;
  let work = width * height * Number(about("Steps"));
  if (about("Hires upscaler")) { // then the picture's own size is that of its second drawing
    const [across, down] = about("Size").split("x").map(Number);
    work = width * height * Number(about("Hires steps") ?? about("Steps")) + across * down * Number(about("Steps"));
  }
  rates[kind] = last.seconds / (work * mine.length);
  localStorage.setItem(KEY, JSON.stringify(rates));
}

/** Pixels times steps of the second drawing, if there is one. */
function secondWork(width, height, steps) {
  const isShown = ["text-to-image", undefined].includes(document.body.dataset.tab);
  if (!isShown || !document.querySelector("#field-hires input")?.checked) return 0;
  const [scale, across, down, own] = ["scale", "width", "height", "steps"].map((field) => Number(valueOf(`hires_${field}`)));
  const pixels = across && down ? across * down : across || down ? (across || (down * width) / height) ** 2 * (height / width) : width * height * scale ** 2;
  return pixels * (own || steps);
}

/** Says on Generate which keys press it and about how long it will take. */
export function showEstimate() {
  const rate = rates[`${stem(valueOf("checkpoint"))} ${valueOf("sampler")}`];
  const [width, height, steps, size, count] = ["width", "height", "steps", "batch_size", "batch_count"].map((field) => Number(valueOf(field)));
  const work = (width * height * steps + secondWork(width, height, steps)) * size * count;
  const hint = [keys, rate && work ? `~ ${duration(rate * work)}` : null];
  const generate = document.querySelector("#generate");
  if (generate) generate.dataset.hint = hint.filter(Boolean).join(" · ");
}

onLive(() => {
  const { last, running } = live.state;
  if (running?.phase === "load") loaded.add(running.job);
  if (last?.state === "done" && last.seconds && !running) measure(last);
  showEstimate();
});
