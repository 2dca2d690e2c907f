// What does this device keep? Texts, and values as JSON, under names of ours, where the browser allows it.

const OURS = "prefloop.";

/** Remembers a choice as text; else it lasts as long as the page. Returns whether it is kept. */
export function remember(name, text) {
  try {
    localStorage.setItem(OURS + name, text);
    return true;
  } catch {
    return false; // storage is closed or full
  }
}

/** The text that is remembered under a name; null where there is none. */
export function recall(name) {
  try {
    return localStorage.getItem(OURS + name);
  } catch {
    return null;
  }
}

/** The value under a name; null where there is none. */
export function read(name) {
  try {
    return JSON.parse(recall(name));
  } catch {
    return null; // somebody else wrote there
  }
}

/** Returns whether the value is kept. Where it cannot be, no older one stays behind. */
export function write(name, value) {
  if (remember(name, JSON.stringify(value))) return true;
  erase(name);
  return false;
}

export function erase(name) {
  try {
    localStorage.removeItem(OURS + name);
  } catch {
    // What could not be written need not be erased.
  }
}

/** The names that begin so. */
export function names(beginning) {
  try {
    const all = Object.keys(localStorage).filter((key) => key.startsWith(OURS + beginning));
    return all.map((key) => key.slice(OURS.length));
  } catch {
    return [];
  }
}

/** Calls back when another tab changes a value whose name begins so. */
export function watch(beginning, callback) {
  addEventListener("storage", ({ key }) => key?.startsWith(OURS + beginning) && callback());
}
