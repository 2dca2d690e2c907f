// How are the keys listed and changed? The sheet behind “?”.

import { isUsable, nameOf, signOf } from "/static/keys.js";
import { fill } from "/static/page.js";

/** Lets the sheet `dialog` switch the keys of `map` on and off, change them one by one and set them back. */
export function startSheet(dialog, map, words, signal) {
  const on = dialog.querySelector("[data-keys-on]");
  const status = dialog.querySelector("[data-keys-say]");
  let asking = null;

  on.checked = map.isOn;
  on.addEventListener("change", () => {
    map.switch(on.checked);
    map.show();
  }, { signal });

  dialog.querySelector("[data-keys-reset]").addEventListener("click", () => {
    map.reset();
    map.show();
    status.textContent = words.defaults;
  }, { signal });

  dialog.addEventListener("click", (event) => {
    const button = event.target.closest("[data-remap]");
    const was = asking;
    stop();
    if (button && button !== was) ask(button);
  }, { signal });
  dialog.addEventListener("close", stop, { signal });
  dialog.addEventListener("keydown", onKey, { capture: true, signal });

  function ask(button) {
    asking = button;
    button.textContent = words.press;
    status.textContent = words.press;
  }

  function stop() {
    if (asking) asking.textContent = words.change;
    asking = null;
  }

  function onKey(event) {
    if (!asking || event.isComposing || event.key === "Tab" || /^(?:Shift|Control|Alt|AltGraph|Meta)$/.test(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    const { remap: action } = asking.dataset;
    stop();
    if (event.key === "Escape") status.textContent = "";
    else status.textContent = take(action, nameOf(event), event.ctrlKey || event.altKey || event.metaKey);
  }

  function take(action, name, hasModifier) {
    const key = signOf(name);
    if (hasModifier || !isUsable(name)) return fill(words.unusable, { key });
    const other = map.give(action, name);
    if (other) return fill(words.taken, { key, action: doesOf(other) });
    map.show();
    return fill(words.changed, { key, action: doesOf(action) });
  }

  /** What an action is called in the list; one that this project does not ask keeps its key all the same. */
  function doesOf(action) {
    return dialog.querySelector(`[data-key-row="${action}"] [data-does]`)?.textContent ?? action;
  }
}
