/* Around the form: live token counts, help for the field in hand, what was wrong with a value, and the draft. */

import { ask, h, setText, settled, typeInto, whenPresent } from "./dom.js";
import { showEstimate } from "./estimate.js";
import { showNetworks } from "./networks.js";
import { shown } from "./pictures.js";

const COUNT_AFTER = 150; // milliseconds of quiet
const KEEP_AFTER = 300;

const help = h("p", { class: "help", "aria-hidden": "true" }); // readers of the screen hear it with the field
const counts = { prompt: h("span", { class: "tokens" }), negative_prompt: h("span", { class: "tokens" }) };
const counted = {}; // field -> the text that was counted last

async function count(field) {
  const text = document.querySelector(`#field-${field} textarea`)?.value ?? "";
  if (counted[field] === text) return;
  counted[field] = text;
  const { tokens, limit } = await ask("POST", "api/v1/tokens", { text });
  if (counted[field] === text) setText(counts[field], `${tokens} / ${limit}`);
  counts[field].title = `${tokens} tokens; the text encoder reads ${limit}`;
}

const countAll = settled(COUNT_AFTER, () => {
  for (const field of Object.keys(counts)) count(field).catch(() => delete counted[field]);
});
const keep = settled(KEEP_AFTER, () => document.querySelector("#keep-draft")?.click());

/** The form changed, by hand or by program: Gradio calls this. */
function changed() {
  countAll();
  keep();
  requestAnimationFrame(showEstimate);
  requestAnimationFrame(showNetworks);
  window.dispatchEvent(new Event("easel:changed"));
}
Object.assign(window.easel, { changed, wish: "" });

for (const [field, node] of Object.entries(counts)) {
  whenPresent(`#field-${field} [data-testid="block-info"]`, (label) => {
    label.append(node);
    countAll();
  });
}

// Until the server's draft is in the form nothing can be typed, so that nothing typed is overwritten.
window.addEventListener("easel:filled", () => (document.querySelector("#form").inert = false));

whenPresent("#form", (form) => {
  form.inert = !window.easelFilled;
  const helpOf = (node) => node.closest(".field")?.querySelector(".info-text")?.textContent ?? "";
  form.addEventListener("focusin", (event) => {
    setText(help, helpOf(event.target));
    event.target.setAttribute("aria-description", helpOf(event.target));
  });
  form.addEventListener("pointerover", (event) => setText(help, helpOf(event.target)));
  form.addEventListener("input", (event) => event.target.closest(".field.wrong")?.classList.remove("wrong"));
});
whenPresent("#press", (press) => press.prepend(help));

// Gradio rewrites the problem in place, so it is the change that counts, not a new element.
whenPresent("#problem", (home) => {
  const changes = new MutationObserver(() => markWrong(home.querySelector("[data-field]")));
  changes.observe(home, { attributes: true, childList: true, subtree: true });
});

function markWrong(problem) {
  for (const field of document.querySelectorAll(".field.wrong")) field.classList.remove("wrong");
  if (!problem) return;
  const field = document.querySelector(`#field-${CSS.escape(problem.dataset.field)}`);
  field?.classList.add("wrong");
  field?.querySelector("input, textarea")?.focus();
}

whenPresent("#reuse-seed", (press) => press.addEventListener("click", () => shown() && typeInto("seed", String(shown().seed))));

for (const field of Object.keys(counts)) {
  whenPresent(`#field-${field} textarea`, (box) => {
    const label = box.closest(".field").querySelector("[data-testid=block-info]").firstChild.textContent.trim();
    box.setAttribute("aria-label", label); // without the count, which would be read out with every word
  });
}

// The icon buttons of the form are drawn by Gradio, which gives them words but no titles.
for (const id of ["refresh", "swap", "random-seed", "reuse-seed"]) {
  whenPresent(`#${id}`, (press) => (press.title = press.textContent.trim()));
}
