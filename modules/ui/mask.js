/* The mask: painted over the picture with brush and eraser, undone, inverted, loaded, and handed to the server as a picture. */

import { button, h, settled } from "./dom.js";
import { decoded, idIn, put, takeIn } from "./incoming.js";
import { note } from "./notes.js";

const LARGEST = 2048; // pixels a side: the mask of a larger picture is painted smaller
const HAND_AFTER = 200; // milliseconds of quiet
const COLOUR = "rgb(225 40 110)";

const label = "Mask: paint over what should be drawn anew. [ and ] change the brush, Ctrl+Z undoes";
const canvas = h("canvas", { class: "mask", tabindex: "0", "aria-label": label });
const ring = h("div", { class: "ring", "aria-hidden": "true" });
const context = canvas.getContext("2d", { willReadFrequently: true });

/** What lies over the picture. */
export const surface = h("div", { class: "surface" }, canvas, ring);

let operations = []; // each draws on a context; the mask is all of them, one after the other
let handed = ""; // the id of the mask as the server has it
let handing = Promise.resolve();
let dirty = false;

const brush = button("Brush", () => choose(false), { icon: "brush" });
const eraser = button("Eraser", () => choose(true), { icon: "eraser" });
const size = h("input", { type: "range", min: 1, max: 60, value: 12, title: "Brush size", "aria-label": "Brush size" });
const strength = h("input", { type: "range", min: 10, max: 100, value: 100, title: "Brush strength", "aria-label": "Brush strength" });
const file = h("input", { type: "file", accept: "image/*", hidden: true, onchange: () => file.files[0] && load(file.files[0]) });
const undoPress = button("Undo", undo, { icon: "undo" });

/** The tools, for the bar above the picture. */
export const tools = h(
  "div", { class: "tools", role: "group", "aria-label": "Mask" },
  brush, eraser, size, h("label", { class: "strength" }, "Strength", strength), undoPress,
  button("Invert", () => act(invert)), button("Clear", () => act(clear)), button("Load mask", () => file.click()), file,
);

function choose(erasing) {
  brush.setAttribute("aria-pressed", String(!erasing));
  eraser.setAttribute("aria-pressed", String(erasing));
}
choose(false);

/** The brush's diameter in pixels of the mask. */
function diameter() {
  return Math.max(1, (Math.min(canvas.width, canvas.height) * size.value) / 100);
}

function stroke(points, { width, erases, alpha }) {
  return (on) => {
    on.globalCompositeOperation = erases ? "destination-out" : "source-over";
    on.globalAlpha = alpha;
    on.strokeStyle = COLOUR;
    on.lineWidth = width;
    on.lineCap = on.lineJoin = "round";
    on.beginPath();
    on.moveTo(points[0].x, points[0].y);
    for (const point of points) on.lineTo(point.x, point.y);
    on.stroke();
  };
}

function invert(on) {
  on.globalCompositeOperation = "source-out";
  on.fillStyle = COLOUR;
  on.fillRect(0, 0, canvas.width, canvas.height);
}

function clear(on) {
  on.clearRect(0, 0, canvas.width, canvas.height);
}

function draw(extra = []) {
  context.clearRect(0, 0, canvas.width, canvas.height);
  for (const operation of [...operations, ...extra]) {
    context.save();
    operation(context);
    context.restore();
  }
  undoPress.disabled = !operations.length;
}

function act(operation) {
  operations.push(operation);
  draw();
  touched();
}

function undo() {
  operations.pop();
  draw();
  touched();
}

function touched() {
  dirty = true;
  handSoon();
}

const handSoon = settled(HAND_AFTER, handOver);

/** Gives the server the mask as it is painted now. */
export function handOver() {
  if (!dirty) return handing;
  dirty = false;
  handing = handing.then(hand).catch((error) => note("error", `The mask could not be taken over: ${error.message}`));
  return handing;
}

async function hand() {
  const painted = context.getImageData(0, 0, canvas.width, canvas.height).data.some((value, i) => i % 4 === 3 && value > 0);
  handed = painted ? (await takeIn(await blob())).id : "";
  put("mask", handed);
}

/** White where the mask is, black elsewhere. */
function blob() {
  const plain = blank();
  const on = plain.getContext("2d");
  on.drawImage(canvas, 0, 0);
  fill(on, "source-in", "#fff");
  fill(on, "destination-over", "#000");
  return new Promise((resolve) => plain.toBlob(resolve, "image/png"));
}

function fill(on, operation, colour) {
  on.globalCompositeOperation = operation;
  on.fillStyle = colour;
  on.fillRect(0, 0, canvas.width, canvas.height);
}

function blank() {
  return h("canvas", { width: canvas.width, height: canvas.height });
}

/** Begins an empty mask for a picture of this size. */
export function open(width, height) {
  const scale = Math.min(1, LARGEST / Math.max(width, height));
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  operations = [];
  draw();
}

/** Shows the mask that the form names, if it is not the one painted here. */
export async function follow() {
  const id = idIn("mask");
  if (id === handed || dirty) return;
  handed = id;
  operations = id ? [painting(await decoded(`api/v1/incoming/${id}`))] : [];
  draw();
}

/** Makes the mask what `image` shows: its brightness, or its opacity where it is transparent; `inverted` for the opposite. */
function painting(image, inverted = false) {
  const shape = blank();
  const on = shape.getContext("2d");
  on.drawImage(image, 0, 0, shape.width, shape.height);
  const pixels = on.getImageData(0, 0, shape.width, shape.height);
  const { data } = pixels;
  const opaque = data.every((value, i) => i % 4 !== 3 || value === 255);
  for (let i = 0; i < data.length; i += 4) {
    const value = opaque ? 0.299 * data[i] + 0.587 * data[i + 1] + 0.114 * data[i + 2] : data[i + 3];
    data[i + 3] = inverted ? 255 - value : value;
  }
  on.putImageData(pixels, 0, 0);
  fill(on, "source-in", COLOUR);
  return (context) => {
    clear(context);
    context.drawImage(shape, 0, 0);
  };
}

async function load(chosen) {
  try {
    const { url } = await takeIn(chosen);
    act(painting(await decoded(url)));
  } catch (error) {
    note("error", `The mask could not be loaded: ${error.message}`);
  } finally {
    file.value = "";
  }
}

/** Masks what is transparent in `image`. */
export function maskTransparent(image) {
  act(painting(image, true));
}

// Painting: the stroke in hand is drawn over the others, and joins them when it ends.
let current = null;

function at(event) {
  const room = canvas.getBoundingClientRect();
  return { x: ((event.clientX - room.left) * canvas.width) / room.width, y: ((event.clientY - room.top) * canvas.height) / room.height };
}

canvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 && event.button !== 5) return;
  canvas.setPointerCapture(event.pointerId);
  const erases = event.button === 5 || eraser.getAttribute("aria-pressed") === "true";
  const points = [at(event)];
  current = { points, operation: stroke(points, { width: diameter(), erases, alpha: strength.value / 100 }) };
  draw([current.operation]);
});

canvas.addEventListener("pointermove", (event) => {
  const room = canvas.getBoundingClientRect();
  const across = (diameter() * room.width) / canvas.width;
  ring.style.cssText = `width:${across}px;height:${across}px;left:${event.clientX - room.left}px;top:${event.clientY - room.top}px`;
  if (!current) return;
  current.points.push(...(event.getCoalescedEvents?.() ?? [event]).map(at));
  draw([current.operation]);
});

for (const end of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(end, () => {
    if (!current) return;
    const { operation } = current;
    current = null;
    act(operation);
  });
}

canvas.addEventListener("keydown", (event) => {
  const step = { "[": -2, "]": 2 }[event.key];
  if (step) size.value = Number(size.value) + step;
  else if (event.key === "z" && (event.ctrlKey || event.metaKey)) undo();
  else return;
  event.preventDefault();
});
