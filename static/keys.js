// Which key does what? One table of actions and keys, which each person may change on this device.

import { recall, remember } from "/static/storage.js";

/** The usual keys. Digits, Shift and digits, and arrows belong to the questions; Tab and Escape to the browser. */
const USUAL = {
  take_back: "Backspace",
  submit: "Enter",
  question_next: "]",
  question_previous: "[",
  response_next: "j",
  response_previous: "k",
  all_bad: "x",
  flag: "f",
  flag_all: "Shift+f",
  rationale: "r",
  correct: "e",
  write: "w",
  skip: "s",
  back: "b",
  layout: "v",
  panes: "y",
  differences: "d",
  conversation: "c",
  guidelines: "g",
  keys: "?",
};
const SIGNS = { Backspace: "⌫", Enter: "↵", ArrowUp: "↑", ArrowDown: "↓", Delete: "⌦" };
const TAKEN = /^(?:\d|Tab|Escape|Shift|Control|Alt|AltGraph|Meta|CapsLock|Dead|Process|Unidentified|Space| |Arrow.*)$/;

/** What a key press is called: "s", "Shift+s", "?", "Enter". Keyboards without Latin letters go by the key's place. */
export function nameOf({ key, code, shiftKey }) {
  const isForeign = key.length === 1 && key.charCodeAt(0) > 127;
  const letter = isForeign ? /^Key([A-Z])$/.exec(code)?.[1] : undefined;
  const plain = letter ?? key;
  if (/^[a-z]$/i.test(plain)) return `${shiftKey ? "Shift+" : ""}${plain.toLowerCase()}`;
  return plain;
}

/** How a key is shown. */
export function signOf(name) {
  return SIGNS[name] ?? name;
}

export class KeyMap {
  constructor() {
    this.own = readOwn();
    this.isOn = recall("keys") !== "off";
  }

  keyOf(action) {
    return this.own[action] ?? USUAL[action];
  }

  actionOf(event) {
    const name = nameOf(event);
    return Object.keys(USUAL).find((action) => this.keyOf(action) === name);
  }

  /** Gives `action` the key `name`. Returns the action that has it already, if any; then nothing changes. */
  give(action, name) {
    const other = Object.keys(USUAL).find((one) => one !== action && this.keyOf(one) === name);
    if (other) return other;
    this.own = { ...this.own, [action]: name };
    if (name === USUAL[action]) delete this.own[action];
    remember("keymap", JSON.stringify(this.own));
    return null;
  }

  reset() {
    this.own = {};
    remember("keymap", "{}");
  }

  switch(isOn) {
    this.isOn = isOn;
    remember("keys", isOn ? "on" : "off");
  }

  /** Writes the keys beside what they do, for eyes and for screen readers. */
  show() {
    document.documentElement.classList.toggle("keys-off", !this.isOn);
    for (const element of document.querySelectorAll("[data-key]")) {
      const key = this.keyOf(element.dataset.key);
      if (this.isOn) element.setAttribute("aria-keyshortcuts", key);
      else element.removeAttribute("aria-keyshortcuts");
      const hint = element.querySelector("kbd") ?? element.parentElement.querySelector(":scope > kbd");
      if (hint) hint.textContent = signOf(key);
    }
    for (const row of document.querySelectorAll("[data-key-row]")) {
      row.querySelector("kbd").textContent = signOf(this.keyOf(row.dataset.keyRow));
    }
  }
}

/** Whether a key can be given to an action. */
export function isUsable(name) {
  return !TAKEN.test(name);
}

/** The keys of this person; whatever else stands in the storage is left out. */
function readOwn() {
  try {
    const kept = Object.entries(JSON.parse(recall("keymap") ?? "{}"));
    return Object.fromEntries(kept.filter(([action, key]) => action in USUAL && typeof key === "string" && isUsable(key)));
  } catch {
    return {};
  }
}
