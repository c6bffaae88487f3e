/* The trainings: the one that runs with its newest sample, those that wait, and what was trained before. */

import { ask, button, h, setText, whenPresent } from "./dom.js";
import { live, onLive } from "./live.js";
import { note } from "./notes.js";
import { duration, sentence } from "./words.js";

const KEPT = "It stops and keeps what it has learnt: Resume goes on from there";
const nothing = "Nothing is trained. What is started here goes on beside the drawing, and after a restart too.";
const idle = h("p", { class: "train-idle" }, nothing);
const current = h("div", { class: "train-current" });
const others = h("ol", { class: "train-list" });
const told = h("p", { class: "unseen", role: "status" });

whenPresent("#trainings", (home) => home.replaceChildren(idle, current, others, told));

function act(method, path) {
  return ask(method, path).catch((error) => note("error", error.message));
}

function cancel(training) {
  const press = button(training.state === "running" ? "Cancel" : "Remove", () => act("DELETE", `api/v1/jobs/${training.job}`));
  press.title = training.state === "running" ? KEPT : "Take it out of the queue";
  return press;
}

function resume(training) {
  return button("Resume", () => act("POST", `api/v1/train/${training.job}/resume`));
}

function address(training, size = "") {
  return `api/v1/pictures/${training.picture}${size}?v=${encodeURIComponent(training.folder)}`; // ids begin anew with a new store
}

function figures(training) {
  const { step, loss, held_out: heldOut, psnr } = training.values;
  return [
    ["Stage", sentence(training.stage)],
    ["Step", step?.toLocaleString("en").replaceAll(",", " ")],
    ["Time left", training.seconds_left ? duration(training.seconds_left) : null],
    ["Loss", loss?.toPrecision(3)],
    ["Loss of held-out pictures", heldOut?.toPrecision(3)],
    ["Autoencoder", psnr && `${psnr.toFixed(1)} dB`],
  ].filter(([, value]) => value);
}

function drawCurrent(training) {
  if (!training) return current.replaceChildren();
  const begun = training.fraction !== null;
  const bar = h("progress", { class: "train-bar", max: 1, "aria-label": "Progress of the training", value: begun ? training.fraction : null });
  const rows = begun ? figures(training) : [["Step", "preparing"]];
  const facts = h("dl", { class: "facts" }, ...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
  const look = training.picture && h("img", { src: address(training), alt: `The newest samples of ${training.name}` });
  const head = h("div", { class: "train-head" }, h("h2", {}, training.about), cancel(training));
  return current.replaceChildren(head, bar, facts, ...(look ? [look] : []));
}

function ending(training) {
  const reached = training.fraction === null ? "" : ` at ${Math.round(training.fraction * 100)} %`;
  const ways = { queued: "Waits", done: "Done", cancelled: `Cancelled${reached}`, failed: `Failed${reached}: ${training.reason}` };
  return ways[training.state];
}

function entry(training) {
  const look = training.picture ? h("img", { src: address(training, "/thumbnail"), alt: "" }) : h("span", { class: "train-blank" });
  const press = { queued: cancel, cancelled: resume, failed: resume }[training.state];
  const words = h("div", {}, h("b", {}, training.about), h("span", { class: `train-${training.state}` }, ending(training)));
  return h("li", {}, look, words, press ? press(training) : null);
}

let drawn = "";

onLive(() => {
  const { trainings } = live.state;
  const now = JSON.stringify(trainings);
  if (now === drawn) return;
  drawn = now;
  const running = trainings.find((training) => training.state === "running");
  idle.hidden = trainings.length > 0;
  drawCurrent(running);
  others.replaceChildren(...trainings.filter((training) => training !== running).map(entry));
  setText(told, running ? `Training ${running.name}` : "");
});

// Gradio rewrites the problem in place, so it is the change that counts, not a new element.
whenPresent("#train-problem", (home) => {
  new MutationObserver(() => {
    const wrong = home.querySelector("[data-field]")?.dataset.field;
    for (const field of document.querySelectorAll("#train-form .field")) field.classList.toggle("wrong", field.id === `train-${wrong}`);
    document.querySelector(`#train-${CSS.escape(wrong ?? "")} :is(input, textarea)`)?.focus();
  }).observe(home, { attributes: true, childList: true, subtree: true });
});
