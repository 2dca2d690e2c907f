// The annotator's desk: where the questions, flags and texts of one comparison come together into one answer.

import { enliven } from "/static/content.js";
import { Corrections } from "/static/corrections.js";
import { DeskClicks } from "/static/desk_clicks.js";
import { DeskKeys } from "/static/desk_keys.js";
import { makeDraggable } from "/static/drag.js";
import { Flags } from "/static/flags.js";
import { startFlow } from "/static/flow.js";
import { KeyMap } from "/static/keys.js";
import { Layout } from "/static/layout.js";
import { fill } from "/static/page.js";
import { Panels } from "/static/panels.js";
import { Questions } from "/static/questions.js";
import { startSheet } from "/static/sheet.js";
import { Stopwatch } from "/static/stopwatch.js";

const TWICE = 500; // milliseconds within which a second Enter or click is still about the comparison before

class Desk extends HTMLElement {
  connectedCallback() {
    this.ending = new AbortController();
    this.words = JSON.parse(this.dataset.words);
    const { signal } = this.ending;
    this.isPreview = "preview" in this.dataset;
    new DeskKeys(this, signal);
    new DeskClicks(this, signal);
    this.form = this.querySelector("#ranking");
    this.panels = new Panels(this, signal);
    this.keys = new KeyMap();
    const sheet = this.querySelector("#keys");
    if (sheet) startSheet(sheet, this.keys, this.words, signal);
    if (this.form) this.begin(signal);
    else if (!this.isPreview) startFlow(this, { form: null, words: this.words, signal });
    this.keys.show();
    if (!this.isPreview) this.arrive();
  }

  disconnectedCallback() {
    this.ending.abort();
    this.undrag?.();
  }

  /** The next comparison is read from its beginning; a page that is only loading keeps its place. */
  arrive() {
    if (document.readyState === "complete") scrollTo(0, 0);
    if (document.activeElement === document.body) this.querySelector("[data-start]")?.focus({ preventScroll: true });
  }

  begin(signal) {
    const { form, words } = this;
    this.isEdit = Number(form.dataset.revision) > 0;
    this.isTouched = false;
    // A page that was loaded follows no other comparison.
    this.begun = document.readyState === "complete" ? performance.now() : -TWICE;
    this.stopwatch = new Stopwatch(Number(form.dataset.seconds), signal);
    // First of all, since it puts a newer draft into the fields.
    this.flow = this.isPreview ? null : startFlow(this, { form, stopwatch: this.stopwatch, words, signal });
    this.cards = [...this.querySelectorAll(".response")];
    this.current = 1;
    this.questions = new Questions(this, this.cards, words);
    this.flags = new Flags(this);
    this.corrections = new Corrections(this);
    this.rationale = this.querySelector("[data-rationale]");
    const announce = (text, isLoud) => this.announce(text, isLoud);
    this.layout = new Layout(this, words, { pairOf: () => this.pairOf(), announce, signal });
    this.undrag = makeDraggable(this, (number, target) => this.drop(number, target));
    // What is missing is said in words, for all kinds of questions alike.
    form.noValidate = true;
    this.passExcused();
    this.addEventListener("submit", (event) => this.onSubmit(event), { capture: true, signal });
    this.addEventListener("input", (event) => this.onInput(event.target), { signal });
    this.addEventListener("focusin", (event) => this.onFocus(event.target), { signal });
    this.show();
    enliven(this, words);
  }

  // --- What is shown and said ---

  show() {
    const { excused } = this.flags;
    this.questions.show(excused);
    this.toggleAttribute("data-excused", excused !== null);
    this.showUndo();
    this.querySelector("[data-submit]").classList.toggle("is-waiting", this.missing() !== null);
  }

  showUndo() {
    const undo = this.querySelector("[data-undo]");
    if (!undo) return;
    const hadFocus = document.activeElement === undo;
    undo.disabled = !this.questions.lastAnswered();
    // A button that is switched off under the focus would lose it.
    if (hadFocus && undo.disabled) this.questions.active.element.focus({ preventScroll: true });
  }

  /** Says `text` to screen readers; what keeps somebody from going on is shown as well. */
  announce(text, isLoud = false) {
    const status = this.querySelector("[data-announce]");
    status.textContent = text;
    status.classList.toggle("visually-hidden", !isLoud);
    status.classList.toggle("bar-note", isLoud);
  }

  /** The answer to the question at hand has changed at `number`. Once complete, the next one comes, unless it `stays`. */
  changed(number, stays = false) {
    const { active } = this.questions;
    const said = [active.said(number)];
    const isDone = active.isFull && !active.wasFull;
    const next = isDone && !stays && !this.flags.excused && this.questions.nextOpen();
    if (next) this.questions.active = next;
    const hadFocus = active.element.contains(document.activeElement);
    this.noted();
    if (next && hadFocus) next.element.focus({ preventScroll: true });
    if (next) said.push(fill(this.words.now, { name: next.name }), next.left());
    else said.push(active.isFull ? this.rest() : active.left());
    this.announce(said.filter(Boolean).join(" "));
  }

  noted() {
    this.isTouched = true;
    this.show();
    this.flow?.changed();
  }

  /** What is left to do once the question at hand is answered. */
  rest() {
    const isRanking = this.questions.all.length === 1 && this.questions.active.kind === "ranking";
    return this.missing()?.say ?? this.words[isRanking ? "complete" : "all_done"];
  }

  /** The first thing that keeps the answer from being submitted: what to `say` and where to `go`; null for nothing. */
  missing() {
    const { excused } = this.flags;
    const question = this.questions.firstMissing(excused);
    if (question) return { say: this.about(question, question.missing()), go: () => this.ask(question) };
    if (excused === "all") return null;
    if (this.corrections.isMissing) return { say: this.words.not_corrected, go: () => this.correct() };
    if (this.rationale?.dataset.rationale !== "required" || this.rationale.value.trim()) return null;
    return { say: this.words.not_why, go: () => this.rationale.focus() };
  }

  /** A sentence about a question; with its name, where there are several. */
  about(question, sentence) {
    return this.questions.all.length > 1 ? fill(this.words.about, { name: question.name, sentence }) : sentence;
  }

  // --- Answering ---

  /** Makes `question` the one at hand and points at what is missing. */
  ask(question) {
    this.turnTo(question);
    question.nudge();
  }

  turnTo(question) {
    this.questions.active = question;
    this.show();
    if (question.kind === "score") this.focusCard(question.current);
  }

  turnBy(step) {
    if (this.questions.all.length < 2) return;
    this.turnTo(this.questions.beside(step));
    const { active } = this.questions;
    this.announce([fill(this.words.now, { name: active.name }), active.isFull ? this.words.done : active.left()].join(" "));
  }

  act(name, number) {
    this.questions.active.act(name, number);
    this.changed(number);
  }

  press(digit, isShifted) {
    const { active } = this.questions;
    const number = this.isDecimal && active.takesDecimals ? active.pressDecimal(digit) : active.press(digit, isShifted);
    this.isDecimal = false;
    if (number === undefined) return;
    this.changed(number);
    if (this.questions.active.kind === "score") this.focusCard(this.questions.active.current);
  }

  takeBack() {
    const question = this.questions.lastAnswered();
    if (!question) return;
    this.questions.active = question;
    this.changed(question.takeBack());
  }

  drop(number, target) {
    this.questions.active.drop(number, target.dataset);
    this.changed(number);
  }

  /** A field was changed by hand: a grade, a score, a flag, a text. */
  onInput(field) {
    const key = field.closest("[data-question], [data-field-of]");
    if (field.matches("textarea")) this.onText(field);
    else if (field.matches("[type=checkbox][form=ranking]")) this.onFlag(field);
    else if (key) this.onAnswer(field, this.questions.get(key.dataset.question ?? key.dataset.fieldOf));
  }

  onAnswer(field, question) {
    this.questions.active = question;
    // Whoever goes along a scale by its own keys or types a number goes on there: no other question takes its place.
    if (question.kind !== "score") return this.changed(0, !this.isPointed);
    const number = Number(field.closest(".response").dataset.number);
    question.noted(number);
    return this.changed(number, true);
  }

  onText(field) {
    const { number } = field.closest(".response")?.dataset ?? {};
    const isOther = this.corrections.changed(field);
    this.noted();
    if (isOther) this.announce(fill(this.words[field.closest("[data-correction]").querySelector("[data-changed]").hidden ? "restored" : "corrected"], { number }));
  }

  onFlag(box) {
    this.flags.changed(box);
    this.passExcused();
    this.noted();
    const name = box.closest("label").childNodes[2].textContent.trim();
    // What excuses the order alone may leave other questions to answer.
    const left = box.dataset.excuses && box.checked ? this.missing()?.say : undefined;
    const excuses = box.checked ? (left ? "flagged" : "excuses") : "excuses_not";
    const kind = box.dataset.excuses ? excuses : box.checked ? "flagged" : "unflagged";
    this.announce([fill(this.words[kind], { name }), left].filter(Boolean).join(" "));
  }

  /** Where the question at hand need not be answered any more, the first that must be takes its place. */
  passExcused() {
    const { excused } = this.flags;
    const { active } = this.questions;
    if (active?.state === "empty" && active.isExcused(excused)) this.questions.active = this.questions.firstMissing(excused) ?? active;
  }

  openFlags(number) {
    const menu = this.flags.menuOf(number, this.cards);
    if (menu) this.panels.unfold(menu, "input");
  }

  correct() {
    this.unfoldText(this.cards[this.current - 1].querySelector("[data-correction]"));
  }

  unfoldText(details) {
    details.open = true;
    details.querySelector("textarea").focus();
  }

  // --- Focus ---

  onFocus(element) {
    const number = Number(element.closest(".response")?.dataset.number);
    if (!number || number === this.current) return;
    this.current = number;
    const { active } = this.questions;
    if (active?.kind === "score") {
      active.current = number;
      active.show();
    }
    this.layout.focusMoved();
  }

  focusNext(step) {
    const current = this.cards.indexOf(document.activeElement.closest(".response"));
    const next = current < 0 ? (step > 0 ? 0 : this.cards.length - 1) : current + step;
    this.focusCard(Math.min(Math.max(next, 0), this.cards.length - 1) + 1);
  }

  focusCard(number) {
    const card = this.cards[number - 1];
    card.focus({ preventScroll: true });
    const { top, bottom } = card.getBoundingClientRect();
    const bar = this.querySelector(".rank-bar");
    const room = innerHeight - (getComputedStyle(bar).position === "sticky" ? bar.offsetHeight : 0) - 10;
    // What is taller than the window is in sight when it fills it.
    const isInSight = top >= 50 && bottom <= room;
    const isFilled = top < room * 0.4 && bottom >= room * 0.6;
    if (!isInSight && !isFilled) card.scrollIntoView({ block: "start" });
  }

  /** The two responses whose differences are of interest: the one in focus, and the best or its neighbour. */
  pairOf() {
    const { current } = this;
    const best = this.questions.active?.best;
    const other = best && best !== current ? best : current > 1 ? current - 1 : 2;
    return [Math.min(current, other), Math.max(current, other)];
  }

  restore(correction) {
    this.corrections.restore(correction);
    this.noted();
    this.announce(fill(this.words.restored, { number: correction.closest(".response").dataset.number }));
  }

  // --- Submitting ---

  onSubmit(event) {
    if (event.target.matches(".skip-form")) return this.hand(event, () => this.flow.skip(event.target));
    if (event.target !== this.form) return;
    const missing = this.isPreview ? null : this.missing();
    if (missing) {
      event.preventDefault();
      event.stopImmediatePropagation();
      this.announce(missing.say, true);
      missing.go();
      return;
    }
    // Where everything may stay empty, a double click would answer what nobody has seen.
    if (!this.isTouched && !this.isEdit && performance.now() - this.begun < TWICE) {
      event.preventDefault();
      event.stopImmediatePropagation();
      return;
    }
    this.form.elements.seconds.value = this.stopwatch.seconds.toFixed(1);
    if (!this.isEdit && !this.isPreview) this.hand(event, () => this.flow.submit());
  }

  /** The flow takes over from the browser. */
  hand(event, take) {
    if (!this.flow?.submit) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    take();
  }
}

customElements.define("ranking-desk", Desk);
