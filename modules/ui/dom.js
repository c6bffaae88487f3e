/* Small helpers around the document. What people typed reaches it as text and attributes only, never as HTML. */

window.easel = {}; // what Gradio's events call

/** A new element: properties that begin with "on" are listeners, the others attributes; children are nodes or text. */
export function h(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

/** A button that shows an icon (a class of its own) or a word, with the same name for eyes, ears and pointer. */
export function button(label, action, { icon = null, kind = "" } = {}) {
  const shown = icon ? h("span", { class: `glyph glyph-${icon}`, "aria-hidden": "true" }) : label;
  return h("button", { type: "button", class: `press ${kind}`, title: icon && label, "aria-label": icon && label, onclick: action }, shown);
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const watched = []; // {selector, attach, node: the element that was attached to last}

/** Calls `attach` with the element for `selector` now or when Gradio draws it, and again when it is drawn anew. */
export function whenPresent(selector, attach) {
  watched.push({ selector, attach, node: null });
  look();
}

function look() {
  for (const entry of watched) {
    const node = document.querySelector(entry.selector);
    if (node === entry.node) continue;
    entry.node = node;
    if (node) entry.attach(node);
  }
}
new MutationObserver(look).observe(document.documentElement, { childList: true, subtree: true });

/** The server's answer as data; throws an Error with the server's own words when it refuses. */
export async function ask(method, path, body = null) {
  const options = { method, headers: { "Content-Type": "application/json" } };
  if (method !== "GET") options.body = JSON.stringify(body ?? {});
  return answered(await fetch(path, options));
}

/** What an answer of the server holds; throws an Error with the server's own words when it refuses. */
export async function answered(answer) {
  const data = await answer.json().catch(() => null);
  if (!answer.ok) throw new Error(data?.message ?? data?.detail ?? `The server answered ${answer.status}`);
  return data;
}

/** Calls `action` once things have been quiet for `pause` milliseconds. */
export function settled(pause, action) {
  let timer = null;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, pause);
  };
}

/** Types `text` into the box of a field of the form, as a person would. */
export function typeInto(field, text) {
  const box = document.querySelector(`#field-${field} textarea, #field-${field} input`);
  if (!box) return;
  const value = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(box), "value");
  value.set.call(box, text);
  box.dispatchEvent(new Event("input", { bubbles: true }));
}
