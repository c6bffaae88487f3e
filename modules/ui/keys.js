/* Keys that work everywhere on the page: Ctrl or ⌘ with Enter generates (or enlarges), Escape interrupts. */

import { stop } from "./stage.js";
import { enlarging } from "./upscale.js";
import { viewerIsOpen } from "./viewer.js";

document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    event.stopPropagation();
    document.querySelector(enlarging() ? "#upscale-start" : "#generate").click();
  }
}, true);

document.addEventListener("keydown", (event) => {
  const isForAList = event.target.getAttribute?.("aria-expanded") === "true";
  if (event.key === "Escape" && !isForAList && !viewerIsOpen()) stop();
});

// Gradio opens a list that is left by Tab, and leaves it open.
document.addEventListener("focusout", ({ target }) => {
  if (!target.matches("[role=combobox]")) return;
  setTimeout(() => {
    if (target === document.activeElement || target.getAttribute("aria-expanded") !== "true") return;
    target.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
  }, 50);
});
