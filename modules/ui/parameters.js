/* The parameters text of the picture that is looked at, to read and to copy. */

import { button, h, setText } from "./dom.js";
import { onLive } from "./live.js";
import { shown } from "./pictures.js";

const words = h("pre", { class: "parameters-text", tabindex: "0", "aria-label": "Parameters" });
const copy = button("Copy", copyWords, { kind: "small" });

export const parameters = h("details", { class: "parameters" }, h("summary", {}, "Parameters"), h("div", { class: "parameters-body" }, words, copy));

/** Copies the text; by selecting it where the browser keeps its clipboard to pages of https. */
async function copyWords() {
  try {
    await navigator.clipboard.writeText(words.textContent);
  } catch {
    getSelection().selectAllChildren(words);
    document.execCommand("copy");
  }
  setText(copy, "Copied");
  setTimeout(() => setText(copy, "Copy"), 1500);
}

onLive(() => {
  parameters.classList.toggle("away", !shown()); // it keeps its place
  setText(words, shown()?.infotext ?? "");
});
