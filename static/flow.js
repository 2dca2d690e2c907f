// What happens between two comparisons? The answer goes into the outbox, the next comparison is shown at once.

import { idle } from "/static/content.js";
import { showDelivery } from "/static/delivery.js";
import { Draft, fieldsOf } from "/static/drafts.js";
import { watchLease } from "/static/lease.js";
import { outboxOf } from "/static/outbox.js";
import { fill, say } from "/static/page.js";
import { prefetchFor } from "/static/prefetch.js";

/**
 * Call first of all when a desk came into the page: what this device kept is put into the form. `changed()` after every
 * change of the answer; `submit()` once it is complete, `skip(form)` instead. Where a label is changed, or where there is
 * nothing to judge (`form` is null), there is nothing after it: then only `changed()`, and what waits is sent.
 */
export function startFlow(desk, { form, stopwatch, words, signal }) {
  const outbox = outboxOf(desk.dataset.member);
  showDelivery(desk, outbox, words, signal);
  outbox.addEventListener("sent", ({ detail }) => count(desk, detail.entry, detail.body, words), { signal });
  outbox.flush();
  if (!form) return {};

  const draft = new Draft(form, desk.dataset, stopwatch, signal);
  const isRestored = draft.restore();
  if (isRestored || Number(form.dataset.sequence) > 0) setTimeout(() => desk.announce(words.draft));
  if (Number(form.dataset.revision) > 0) {
    mend(outbox, draft, form, desk.dataset.comparison, signal);
    return { changed: () => draft.save() };
  }

  const lease = desk.querySelector("[data-lease]");
  if (lease) watchLease(lease, words, stopwatch, signal);
  const next = new Next(desk, { form, draft, outbox, words, signal });
  return {
    changed: () => draft.save(),
    submit: () => next.hand(form.getAttribute("action"), fieldsOf(form)),
    skip: (skipForm) => next.hand(skipForm.getAttribute("action"), fieldsOf(skipForm)),
  };
}

/** An answer that was refused since there is a label already: it becomes the change of that label. */
function mend(outbox, draft, form, comparison, signal) {
  const entry = outbox.find(comparison);
  if (entry?.refused === undefined) return;
  draft.adopt(entry.fields);
  form.addEventListener("submit", () => outbox.settle(entry), { signal });
}

/** The way from one comparison to the next. */
class Next {
  constructor(desk, { form, draft, outbox, words, signal }) {
    Object.assign(this, { desk, form, draft, outbox, words, signal });
    this.id = desk.dataset.comparison;
    this.prefetch = prefetchFor(desk, outbox, words);
    // While one waits, keys are not for the comparison that is answered.
    addEventListener("keydown", (event) => this.isMoving && event.stopPropagation(), { capture: true, signal });
    const waiting = outbox.find(this.id);
    if (waiting && waiting.refused === undefined) this.resume();
    else this.prefetch.follow(desk, signal);
  }

  /** Takes an answer or a skip, and goes on. */
  hand(action, fields) {
    if (this.isMoving) return;
    this.isMoving = true;
    this.draft.stop();
    const isKept = this.outbox.add({ id: this.id, action, fields });
    // What this device cannot keep must have arrived before the page shows something else.
    const next = isKept && this.prefetch.take();
    if (next) this.show(next);
    else this.wait(isKept);
  }

  async wait(isKept) {
    this.setBusy(true);
    if (isKept) await this.prefetch.first();
    let next = isKept && this.prefetch.take();
    if (!next) {
      await this.outbox.emptied(this.signal);
      if (this.outbox.find(this.id)) return this.stay();
      next = this.prefetch.take() ?? (await this.prefetch.ask(this.signal));
    }
    if (next) this.show(next);
  }

  /** The page was loaded anew while its answer still waited to be sent. */
  async resume() {
    this.isMoving = true;
    this.setBusy(true);
    await this.outbox.emptied(this.signal);
    if (this.outbox.find(this.id)) return this.stay();
    // Who opened this one comparison wants to see what became of it.
    if (location.pathname !== this.desk.dataset.desk) location.reload();
    else this.show(await this.prefetch.ask(this.signal));
  }

  /** The answer was not taken: here it can be mended. */
  stay() {
    this.isMoving = false;
    this.setBusy(false);
    this.desk.announce("");
    this.desk.querySelector("[data-start]")?.focus();
  }

  show(next) {
    if (this.signal.aborted) return;
    if (location.pathname !== next.dataset.desk) history.replaceState(null, "", next.dataset.desk);
    const back = next.querySelector("[data-back]");
    if (back) pointBack(back, this.form.getAttribute("action").replace(/\/label$/, ""));
    // What lies below the window is laid out a moment later: what is read first is there at once.
    next.classList.add("is-arriving");
    this.desk.replaceWith(next);
    requestAnimationFrame(() => idle().then(() => next.classList.remove("is-arriving")));
    // Only the page that says why there is nothing asks again by itself.
    if ("empty" in next.dataset) globalThis.htmx?.process(next);
    if (next.querySelector("[data-announce]")) next.announce(this.words.moved);
  }

  setBusy(isBusy) {
    this.desk.setAttribute("aria-busy", String(isBusy));
    for (const part of this.desk.querySelectorAll("#ranking, .rank-bar")) part.inert = isBusy;
    if (!isBusy) return;
    this.sayWhatFor();
    this.outbox.addEventListener("change", () => this.isMoving && this.sayWhatFor(), { signal: this.signal });
  }

  sayWhatFor() {
    const { moving, moving_offline } = this.words;
    this.desk.announce(navigator.onLine && !this.outbox.isStuck ? moving : moving_offline, true);
  }
}

/** Shows what the server counted when it took an answer. */
function count(desk, entry, body, words) {
  const { today, done, wanted } = body;
  const form = new Intl.PluralRules(document.documentElement.lang).select(today);
  setText(desk.querySelector("[data-today]"), fill(words.today[form] ?? words.today.other, { today }));
  setText(desk.querySelector("[data-done]"), fill(words.finished, { done, wanted }));
  const bar = desk.querySelector("[data-progress]");
  if (bar) Object.assign(bar, { max: wanted, value: done });
  const back = desk.querySelector("[data-back]");
  if (back && body.label_id) pointBack(back, entry.action.replace(/\/assignments\/.*/, `/labels/${body.label_id}`));
  if (body.surplus) say("info", words.surplus);
}

function setText(element, text) {
  if (element) element.textContent = text;
}

function pointBack(link, address) {
  link.href = address;
  link.hidden = false;
}
