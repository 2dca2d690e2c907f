// What does this device keep? Values as JSON under names of ours, where the browser allows it.

const OURS = "prefloop.";

/** The value under a name; null where there is none. */
export function read(name) {
  try {
    return JSON.parse(localStorage.getItem(OURS + name));
  } catch {
    return null; // storage is closed, or somebody else wrote there
  }
}

/** Returns whether the value is kept. Where it cannot be, no older one stays behind. */
export function write(name, value) {
  try {
    localStorage.setItem(OURS + name, JSON.stringify(value));
    return true;
  } catch {
    erase(name); // storage is closed or full
    return false;
  }
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
