/* Pictures on their way to the server: there they are kept under an id, which is what the form holds. */

import { answered, typeInto } from "./dom.js";

/** Hands a file over and gives {id, width, height, url}; throws an Error with the server's words when it is no picture. */
export async function takeIn(file) {
  return answered(await fetch("api/v1/incoming", { method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: file }));
}

/** The id in one of the form's fields for pictures. */
export function idIn(field) {
  return document.querySelector(`#field-${field} :is(textarea, input)`)?.value ?? "";
}

export function put(field, id) {
  if (idIn(field) !== id) typeInto(field, id);
}

/** The picture at `url`, decoded. */
export async function decoded(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}

/** Asks the server for what the form's hidden buttons grant: "suit", "send", "paste", "extend" or "batch". */
export function wish(name, words) {
  window.easel.wish = words;
  document.querySelector(`#wish-${name}`).click();
}
