/* Light or dark: as the system says, until the switch says otherwise. */

import { button, whenPresent } from "./dom.js";

const KEY = "easel:scheme";
const system = matchMedia("(prefers-color-scheme: dark)");
const press = button("Switch between light and dark", flip, { icon: "scheme" });

function wantsDark() {
  return (localStorage.getItem(KEY) ?? (system.matches ? "dark" : "light")) === "dark";
}

function flip() {
  const dark = !wantsDark();
  if (dark === system.matches) localStorage.removeItem(KEY);
  else localStorage.setItem(KEY, dark ? "dark" : "light");
  apply();
}

function apply() {
  if (document.body.classList.contains("dark") !== wantsDark()) document.body.classList.toggle("dark");
}

// Gradio sets the class too, once it is up and whenever the system changes: the choice made here stands.
new MutationObserver(apply).observe(document.body, { attributes: true, attributeFilter: ["class"] });
system.addEventListener("change", apply);
apply();
whenPresent("#scheme", (home) => home.replaceChildren(press));
