/* The parameters text of the picture that is looked at, to read and to copy; and what is done with one that is pasted. */

import { button, h, setText } from "./dom.js";
import { wish } from "./incoming.js";
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

// Pasted where the prompt goes, it fills the form.
document.addEventListener("paste", (event) => {
  const text = event.clipboardData.getData("text/plain").replaceAll("\r\n", "\n");
  if (!event.target.closest?.("#field-prompt") || !/(^|\n)Steps: \d+,[^\n]*$/.test(text.trim())) return;
  event.preventDefault();
  wish("paste", text);
});

onLive(() => {
  parameters.classList.toggle("away", !shown()); // it keeps its place
  setText(words, shown()?.infotext ?? "");
});
