// The annotator's desk: takes keys, clicks, drags and touch, and lets the questions, flags and texts answer to them.

import { enliven } from "/static/content.js";
import { Corrections } from "/static/corrections.js";
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

const TEXT_FIELDS = "input:not([type=checkbox], [type=radio]), textarea, [contenteditable]";
const OWN_ENTER = "a, button, summary, select, input, textarea";
const OWN_ARROWS = "pre, .table-scroll, .is-wide, [type=radio], select";

class Desk extends HTMLElement {
  connectedCallback() {
    this.ending = new AbortController();
    this.words = JSON.parse(this.dataset.words);
    const { signal } = this.ending;
    this.isPreview = "preview" in this.dataset;
    // A preview stands among other fields, and answers only what happens inside it.
    const heard = this.isPreview ? this : document;
    heard.addEventListener("keydown", (event) => this.onKey(event), { signal });
    heard.addEventListener("pointerdown", () => { this.isPointed = true; }, { signal });
    heard.addEventListener("click", (event) => this.onClick(event), { signal });
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
    const undo = this.querySelector("[data-undo]");
    if (undo) undo.disabled = !this.questions.lastAnswered();
    this.querySelector("[data-submit]").classList.toggle("is-waiting", this.missing() !== null);
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
    const number = this.isDecimal ? active.pressDecimal(digit) : active.press(digit, isShifted);
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
    this.noted();
    const name = box.closest("label").childNodes[2].textContent.trim();
    const kind = box.dataset.excuses ? (box.checked ? "excuses" : "excuses_not") : box.checked ? "flagged" : "unflagged";
    this.announce(fill(this.words[kind], { name }));
  }

  // --- Keys ---

  onKey(event) {
    this.isPointed = false;
    if (event.isComposing || event.keyCode === 229) return;
    const isInText = event.target.closest(TEXT_FIELDS) !== null;
    if (event.key === "Escape") return this.onEscape(event, isInText);
    const hasModifier = (event.ctrlKey || event.metaKey) && !event.getModifierState("AltGraph");
    if (hasModifier && event.key === "Enter" && this.form?.contains(event.target.form ?? null)) {
      event.preventDefault();
      this.form.requestSubmit();
    }
    if (hasModifier || isInText || this.panels.isModal || !this.keys.isOn) return;
    const does = this.keyed(event);
    if (!does) return;
    event.preventDefault();
    does();
  }

  onEscape(event, isInText) {
    const { opened } = this.panels;
    if (opened) {
      event.preventDefault();
      this.panels.close(opened);
    } else if (isInText && this.contains(event.target)) {
      event.preventDefault();
      (event.target.closest(".response") ?? this.querySelector("[data-start]")).focus({ preventScroll: true });
    }
  }

  /** What a key does, if anything. */
  keyed(event) {
    const digit = /^(?:Digit|Numpad)([0-9])$/.exec(event.code);
    if (this.form && digit && !event.altKey && !event.target.closest("select, .skip-form")) return this.digitKeyed(event, Number(digit[1]));
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (this.form && step) return this.arrowKeyed(event, step);
    if (this.form && event.key === "." && this.questions.active?.takesDecimals) return () => { this.isDecimal = true; };
    const action = this.keys.actionOf(event);
    if (event.altKey && !event.getModifierState("AltGraph")) return null;
    if (action === "submit" && (event.repeat || event.target.closest(OWN_ENTER))) return null;
    return action ? this.does(action) : null;
  }

  digitKeyed(event, digit) {
    const menu = event.target.closest(".menu[open]");
    if (menu) return () => Flags.press(menu, digit);
    return this.questions.active ? () => this.press(digit, event.shiftKey) : null;
  }

  arrowKeyed(event, step) {
    const isSideways = event.key === "ArrowLeft" || event.key === "ArrowRight";
    if (!isSideways) {
      const card = event.altKey ? event.target.closest(".response") : null;
      const isRanked = this.questions.active?.kind === "ranking";
      return card && isRanked ? () => this.act(step < 0 ? "up" : "down", Number(card.dataset.number)) : null;
    }
    if (event.altKey || event.target.closest(OWN_ARROWS)) return null;
    if (this.questions.active?.kind === "pair") return () => this.movePair(step);
    return () => this.focusNext(step);
  }

  movePair(step) {
    const { active } = this.questions;
    active.move(step);
    // The arrows go on along the scale, so it stays at hand.
    this.changed(0, true);
  }

  does(action) {
    const skip = this.querySelector("[data-skip]");
    const back = this.querySelector("[data-back]:not([hidden])");
    const always = {
      guidelines: () => this.panels.toggle("guidelines"),
      keys: () => this.panels.toggle("keys"),
      back: back && (() => back.click()),
    };
    if (action in always || !this.form) return always[action];
    return {
      submit: () => this.form.requestSubmit(),
      take_back: () => this.takeBack(),
      question_next: () => this.turnBy(1),
      question_previous: () => this.turnBy(-1),
      response_next: () => this.focusNext(1),
      response_previous: () => this.focusNext(-1),
      all_bad: this.flags.allBad && (() => this.flags.allBad.click()),
      flag: () => this.openFlags(this.current),
      flag_all: () => this.openFlags(null),
      rationale: this.rationale && (() => this.rationale.focus()),
      correct: this.corrections.all.length && (() => this.correct()),
      write: this.corrections.written && (() => this.unfoldText(this.corrections.written)),
      skip: skip && (() => this.panels.unfold(skip, ".primary")),
      layout: () => this.layout.toggleStacked(),
      panes: () => this.layout.togglePanes(),
      differences: () => this.layout.toggleDifferences(),
      conversation: () => this.layout.toggleConversation(),
    }[action];
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
    const room = innerHeight - this.querySelector(".rank-bar").offsetHeight - 10;
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

  // --- Clicks ---

  onClick(event) {
    const { target } = event;
    const link = target.closest(".prose a");
    if (link && !confirm(fill(this.words.link, { address: link.href }))) event.preventDefault();
    const opens = target.closest("[data-open]");
    if (opens) {
      event.preventDefault();
      this.panels.toggle(opens.dataset.open);
    }
    if (this.form && target.closest("[data-layout-toggle]")) this.layout.toggleStacked();
    if (this.form && target.closest("[data-panes]:is(button)")) this.layout.togglePanes();
    if (this.form && target.closest("[data-differences]")) this.layout.toggleDifferences();
    if (this.contains(target)) this.onOwnClick(event);
  }

  onOwnClick({ target, detail }) {
    if (target.closest("[data-close-dialog]")) this.panels.close(target.closest("dialog"));
    if (target.closest("[data-unskip]")) this.panels.close(target.closest("details"));
    if (target.closest("[data-undo]")) this.takeBack();
    if (target.closest("[data-earlier] > summary")) setTimeout(() => this.layout.rememberConversation());
    const restored = target.closest("[data-restore]")?.closest("[data-correction]");
    if (restored) this.restore(restored);
    const tab = target.closest("[data-ask]");
    if (tab) this.turnTo(this.questions.get(tab.dataset.ask));
    const score = target.closest("[data-score]");
    if (score) this.onScore(score, detail > 0);
    const chip = target.closest("[data-show]");
    if (chip?.dataset.next) this.act("next", Number(chip.dataset.next));
    else if (chip) this.focusCard(Number(chip.dataset.show));
    const button = target.closest("[data-act]");
    if (button) this.onAct(button, detail > 0);
  }

  onAct(button, byPointer) {
    const card = button.closest(".response");
    this.act(button.dataset.act, Number(card.dataset.number));
    // Enter shall submit after a click with the mouse; after one by keyboard the focus must not be lost.
    if (byPointer) card.focus({ preventScroll: true });
    else if (button.hidden) (card.querySelector("[data-act]:not([hidden])") ?? card).focus();
  }

  onScore(button, byPointer) {
    const { active } = this.questions;
    const card = button.closest(".response");
    this.changed(active.give(Number(button.dataset.score), card ? Number(card.dataset.number) : undefined));
    if (card && (byPointer || !button.checkVisibility())) card.focus({ preventScroll: true });
    else if (byPointer && this.questions.active.kind === "score") this.focusCard(this.questions.active.current);
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
