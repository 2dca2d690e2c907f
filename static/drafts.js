// What was filled in but not yet submitted? Kept on this device at once, on the server a moment later.

import { ask } from "/static/server.js";
import { erase, names, read, write } from "/static/storage.js";

const KEPT = 7 * 24 * 3600 * 1000; // milliseconds
const PAUSE = 800; // milliseconds without a change, after which the server gets it
const RETRY = [5, 15, 60]; // seconds
const NO_ANSWERS = new Set(["csrf", "seconds"]);

/** All that a form says, as [name, value]. A correction that corrects nothing says nothing. */
export function fieldsOf(form) {
  const corrections = new Map([...form.elements].filter(isCorrection).map((field) => [field.name, originalOf(field)]));
  return [...new FormData(form)].filter(([name, value]) => name !== "csrf" && corrections.get(name) !== value);
}

export function dropDraft(member, comparison) {
  erase(nameOf(member, comparison));
}

export class Draft {
  constructor(form, { member, comparison }, stopwatch, signal) {
    Object.assign(this, { form, stopwatch, signal });
    this.name = nameOf(member, comparison);
    this.revision = Number(form.dataset.revision);
    this.sequence = Number(form.dataset.sequence);
    this.failures = 0;
    const leave = () => document.hidden && this.send();
    document.addEventListener("visibilitychange", leave, { signal });
    addEventListener("pagehide", () => this.send(), { signal });
    signal.addEventListener("abort", () => clearTimeout(this.timer));
    document.querySelector("[data-cancel]")?.addEventListener("click", () => this.drop(), { signal });
    forgetOld();
  }

  /** Puts what this device kept into the form, if that is newer than what the server sent; returns whether it was. */
  restore() {
    const kept = read(this.name);
    if (!kept || kept.revision !== this.revision || kept.sequence <= this.sequence) return false;
    fillIn(this.form, kept.fields);
    this.sequence = kept.sequence;
    this.stopwatch.counted = kept.seconds * 1000;
    // The server has not heard of it.
    this.sendIn(PAUSE);
    return true;
  }

  /** Puts an answer that was given elsewhere into the form. */
  adopt(fields) {
    fillIn(this.form, fields);
    this.save();
  }

  save() {
    // Another device's clock may be ahead of ours: what comes later counts higher all the same.
    this.sequence = Math.max(Date.now(), this.sequence + 1);
    write(this.name, this.said());
    this.sendIn(PAUSE);
  }

  /** From now on the answer is on its own way to the server. */
  stop() {
    write(this.name, this.said());
    this.isUnsent = false;
    clearTimeout(this.timer);
  }

  /** The change is wanted no more: the label is shown as it stands again. */
  drop() {
    this.isUnsent = false;
    clearTimeout(this.timer);
    erase(this.name);
    ask(this.form.dataset.draft, { method: "DELETE" });
  }

  said() {
    const fields = fieldsOf(this.form).filter(([name]) => !NO_ANSWERS.has(name));
    return { fields, seconds: this.stopwatch.seconds, sequence: this.sequence, revision: this.revision };
  }

  sendIn(milliseconds) {
    this.isUnsent = true;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.send(), milliseconds);
  }

  /** Sends the newest state. Where that fails it is tried again, without a word: this device has it. */
  async send() {
    if (!this.isUnsent || !this.form.dataset.draft) return;
    this.isUnsent = false;
    clearTimeout(this.timer);
    const answer = await ask(this.form.dataset.draft, { method: "PUT", json: this.said() });
    this.failures = answer.ok ? 0 : this.failures + 1;
    const isLater = answer.status === 0 || answer.status === 401 || answer.status >= 500;
    if (!isLater || this.isUnsent || this.signal.aborted) return;
    this.sendIn(RETRY[Math.min(this.failures, RETRY.length) - 1] * 1000);
  }
}

// By the comparison: after a lease that ran out it may come back as another assignment.
function nameOf(member, comparison) {
  return `draft.${member}.${comparison}`;
}

function isCorrection(field) {
  return field.name.startsWith("correction_");
}

function originalOf(field) {
  return field.dataset.original ?? field.defaultValue;
}

function fillIn(form, fields) {
  const said = new Map(fields);
  for (const field of form.elements) {
    if (!field.name || NO_ANSWERS.has(field.name)) continue;
    if (field.type === "checkbox" || field.type === "radio") field.checked = said.get(field.name) === field.value;
    else if (said.has(field.name)) field.value = said.get(field.name);
    else if (isCorrection(field)) field.value = originalOf(field);
  }
}

function forgetOld() {
  for (const name of names("draft.")) if (!(read(name)?.sequence > Date.now() - KEPT)) erase(name);
}
