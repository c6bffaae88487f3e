/* The pictures that exist, newest first, and which of them is looked at. */

import { ask } from "./dom.js";
import { live, onLive, tell } from "./live.js";

const PAGE = 60;

/** `list` is newest first; `chosen` is the id that was picked, or null to follow what is newest; `complete` when none are older. */
export const pictures = { list: [], chosen: null, complete: false, loaded: false };

let loading = false;

/** The newest picture that was asked for; samples of a training come by themselves, and push nothing off the stage. */
function newest() {
  return pictures.list.find((picture) => !picture.file?.startsWith("train-samples/")) ?? pictures.list[0] ?? null;
}

/** The picture on the stage while nothing is being drawn. */
export function shown() {
  return pictures.list.find((picture) => picture.id === pictures.chosen) ?? newest();
}

/** Looks at picture `id`; null follows what is being drawn and then the newest. */
export function choose(id) {
  const isNewest = id === newest()?.id && !live.state.running;
  pictures.chosen = isNewest ? null : id;
  tell();
}

/** The neighbour of the shown picture: +1 is older, -1 newer; null at the ends. */
export function neighbour(step) {
  return pictures.list[pictures.list.indexOf(shown()) + step] ?? null;
}

let turn = Promise.resolve();

/** Brings the newest pictures, and with them what changed about those already here. */
export function refresh() {
  turn = turn.then(load, load);
  return turn;
}

async function load() {
  const newest = await ask("GET", `api/v1/pictures?limit=${PAGE}`);
  const joint = pictures.list.findIndex((picture) => picture.id === newest.at(-1)?.id);
  pictures.complete = newest.length < PAGE || (joint >= 0 && pictures.complete);
  pictures.list = joint < 0 ? newest : [...newest, ...pictures.list.slice(joint + 1)];
  if (!pictures.list.some((picture) => picture.id === pictures.chosen)) pictures.chosen = null;
  pictures.loaded = true;
  tell();
}

/** Brings the next older pictures. */
export async function more() {
  if (loading || pictures.complete || !pictures.list.length) return;
  loading = true;
  try {
    const older = await ask("GET", `api/v1/pictures?before=${pictures.list.at(-1).id}&limit=${PAGE}`);
    pictures.complete = older.length < PAGE;
    pictures.list.push(...older);
    tell();
  } finally {
    loading = false;
  }
}

let known; // the newest picture that was asked for, so that each change is asked for once

onLive(() => {
  if (live.connected && live.state.newest_picture !== known) {
    known = live.state.newest_picture;
    refresh().catch(() => (known = undefined));
  }
});
