/* Light or dark: as the system (or the server's --theme) says, until the switch says otherwise. */

import { button, whenPresent } from "./dom.js";

const KEY = "easel:scheme";
const system = matchMedia("(prefers-color-scheme: dark)");
const press = button("Switch between light and dark", flip, { icon: "scheme" });

let asked = "system"; // by the server

function unasked() {
  return asked === "system" ? (system.matches ? "dark" : "light") : asked;
}

function wantsDark() {
  return (localStorage.getItem(KEY) ?? unasked()) === "dark";
}

function flip() {
  const wanted = wantsDark() ? "light" : "dark";
  if (wanted === unasked()) localStorage.removeItem(KEY);
  else localStorage.setItem(KEY, wanted);
  apply();
}

function apply() {
  if (document.body.classList.contains("dark") !== wantsDark()) document.body.classList.toggle("dark");
}

// Gradio sets the class too, once it is up and whenever the system changes: the choice made here stands.
new MutationObserver(apply).observe(document.body, { attributes: true, attributeFilter: ["class"] });
system.addEventListener("change", apply);
apply();
whenPresent("#scheme", (home) => {
  home.replaceChildren(press);
  asked = home.dataset.default;
  apply();
});
