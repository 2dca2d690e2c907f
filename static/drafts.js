// What was ranked but not yet submitted? Kept on this device until the server has it.

import { recall, remember } from "/static/page.js";

const PREFIX = "draft.";
const KEPT = 7 * 24 * 3600 * 1000; // milliseconds

export function saveDraft(name, groups, seconds) {
  remember(PREFIX + name, JSON.stringify({ groups, seconds, at: Date.now() }));
}

/** The draft of a comparison with `count` responses; null where there is none. Drafts of last week are forgotten. */
export function loadDraft(name, count) {
  forgetOld();
  const draft = JSON.parse(recall(PREFIX + name));
  const isOurs = draft?.groups.flat().every((number) => number >= 1 && number <= count);
  return isOurs ? draft : null;
}

export function dropDraft(name) {
  localStorage.removeItem(`prefloop.${PREFIX}${name}`);
}

function forgetOld() {
  for (const key of Object.keys(localStorage)) {
    if (!key.startsWith(`prefloop.${PREFIX}`)) continue;
    if (JSON.parse(localStorage.getItem(key)).at < Date.now() - KEPT) localStorage.removeItem(key);
  }
}
