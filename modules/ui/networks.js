/* The folded part Networks: the LoRAs there are. A press puts one into the prompt, the next takes it out again. */

import { ask, button, h, setText, typeInto, whenPresent } from "./dom.js";
import { live, onLive } from "./live.js";

const SHOWN = 100; // of the LoRAs that are looked for
const TAG = /\s*<(?:lora|lyco):([^:<>]+)[^<>]*>/g;

const find = h("input", { type: "search", placeholder: "Find a LoRA", "aria-label": "Find a LoRA", oninput: draw });
const list = h("ul", { class: "loras" });
const rest = h("p", { class: "loras-rest" });
const fold = h("details", { class: "networks", ontoggle: look }, h("summary", {}, "Networks"), h("div", {}, find, list, rest));
let loras = []; // {name, call, about, reason} of each file
let version; // of the model folders when they were asked for

const words = () => document.querySelector("#field-prompt textarea")?.value ?? "";
const used = () => [...new Set([...words().matchAll(TAG)].map(([, call]) => call.trim()))];
const same = (one, other) => one.trim().toLowerCase() === other.toLowerCase();

/** Asks for the list when it is open and the model folders have been looked into since. */
function look() {
  if (!fold.open || !live.state || version === live.state.models.version) return;
  version = live.state.models.version;
  ask("GET", "api/v1/loras").then((found) => {
    loras = found.sort((a, b) => Boolean(b.call) - Boolean(a.call));
    draw();
  }, () => (version = undefined));
}

function draw() {
  const wanted = find.value.trim().toLowerCase();
  const found = loras.filter((lora) => lora.name.toLowerCase().includes(wanted));
  list.replaceChildren(...found.slice(0, SHOWN).map(item));
  const more = found.length > SHOWN ? `and ${found.length - SHOWN} more: find them by name` : "";
  setText(rest, loras.length ? more : "None yet: put LoRA files into models/Lora and press ⟳ above.");
  find.hidden = loras.length < 10;
  showNetworks();
}

function item(lora) {
  if (!lora.call) return h("li", { class: "refused" }, h("b", {}, lora.name), h("span", {}, lora.reason));
  const press = button(lora.call, () => toggle(lora), { kind: "small" });
  press.title = lora.about;
  press.dataset.call = lora.call;
  return h("li", {}, press);
}

function toggle(lora) {
  const text = words();
  const without = text.replace(TAG, (tag, call) => (same(call, lora.call) ? "" : tag));
  typeInto("prompt", without === text ? `${text.trimEnd()}${text.trim() && " "}<lora:${lora.call}:1>` : without.trimStart());
}

/** Shows which LoRAs the prompt has, on them and in the title. */
export function showNetworks() {
  const calls = used();
  setText(fold.firstChild, calls.length ? `Networks · ${calls.join(", ")}` : "Networks");
  for (const press of list.querySelectorAll("button")) press.setAttribute("aria-pressed", calls.some((call) => same(call, press.dataset.call)));
}

whenPresent("#networks", (home) => home.replaceChildren(fold));
onLive(look);
