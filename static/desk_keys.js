// What does a key do on the desk? Digits and arrows belong to the question at hand, the rest to the table of keys.

import { Flags } from "/static/flags.js";

const TEXT_FIELDS = "input:not([type=checkbox], [type=radio]), textarea, [contenteditable]";
const OWN_ENTER = "a, button, summary, select, input, textarea";
const OWN_ARROWS = "pre, .table-scroll, .is-wide, [type=radio], select";

export class DeskKeys {
  constructor(desk, signal) {
    this.desk = desk;
    document.addEventListener("keydown", (event) => this.onKey(event), { signal });
  }

  onKey(event) {
    this.desk.isPointed = false;
    if (event.isComposing || event.keyCode === 229) return;
    const isInText = event.target.closest(TEXT_FIELDS) !== null;
    if (event.key === "Escape") return this.onEscape(event, isInText);
    const hasModifier = (event.ctrlKey || event.metaKey) && !event.getModifierState("AltGraph");
    if (hasModifier && event.key === "Enter" && this.desk.form?.contains(event.target.form ?? null)) {
      event.preventDefault();
      this.desk.form.requestSubmit();
    }
    if (hasModifier || isInText || this.desk.panels.isModal || !this.desk.keys.isOn) return;
    const does = this.keyed(event);
    if (!does) return;
    event.preventDefault();
    does();
  }

  onEscape(event, isInText) {
    const { opened } = this.desk.panels;
    if (opened) {
      event.preventDefault();
      this.desk.panels.close(opened);
    } else if (isInText && this.desk.contains(event.target)) {
      event.preventDefault();
      (event.target.closest(".response") ?? this.desk.querySelector("[data-start]")).focus({ preventScroll: true });
    }
  }

  /** What a key does, if anything. */
  keyed(event) {
    const digit = /^(?:Digit|Numpad)([0-9])$/.exec(event.code);
    // With AltGr these are other signs, such as brackets.
    const isDigit = digit && !event.altKey && !event.getModifierState("AltGraph");
    if (this.desk.form && isDigit && !event.target.closest("select, .skip-form")) return this.digitKeyed(event, Number(digit[1]));
    this.desk.isDecimal = false;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (this.desk.form && step) return this.arrowKeyed(event, step);
    if (this.desk.form && event.key === "." && this.desk.questions.active?.takesDecimals) return () => { this.desk.isDecimal = true; };
    const action = this.desk.keys.actionOf(event);
    if (event.altKey && !event.getModifierState("AltGraph")) return null;
    if (action === "submit" && (event.repeat || event.target.closest(OWN_ENTER))) return null;
    return action ? this.does(action) : null;
  }

  digitKeyed(event, digit) {
    const menu = event.target.closest(".menu[open]");
    if (menu) return () => Flags.press(menu, digit);
    return this.desk.questions.active ? () => this.desk.press(digit, event.shiftKey) : null;
  }

  arrowKeyed(event, step) {
    const isSideways = event.key === "ArrowLeft" || event.key === "ArrowRight";
    if (!isSideways) {
      const card = event.altKey ? event.target.closest(".response") : null;
      const isRanked = this.desk.questions.active?.kind === "ranking";
      return card && isRanked ? () => this.desk.act(step < 0 ? "up" : "down", Number(card.dataset.number)) : null;
    }
    if (event.altKey || event.target.closest(OWN_ARROWS)) return null;
    if (this.desk.questions.active?.kind === "pair") return () => this.movePair(step);
    return () => this.desk.focusNext(step);
  }

  movePair(step) {
    const { active } = this.desk.questions;
    active.move(step);
    // The arrows go on along the scale, so it stays at hand.
    this.desk.changed(0, true);
  }

  does(action) {
    const skip = this.desk.querySelector("[data-skip]");
    const back = this.desk.querySelector("[data-back]:not([hidden])");
    const always = {
      guidelines: () => this.desk.panels.toggle("guidelines"),
      keys: () => this.desk.panels.toggle("keys"),
      back: back && (() => back.click()),
    };
    if (action in always || !this.desk.form) return always[action];
    return {
      submit: () => this.desk.form.requestSubmit(),
      take_back: () => this.desk.takeBack(),
      question_next: () => this.desk.turnBy(1),
      question_previous: () => this.desk.turnBy(-1),
      response_next: () => this.desk.focusNext(1),
      response_previous: () => this.desk.focusNext(-1),
      all_bad: this.desk.flags.allBad && (() => this.desk.flags.allBad.click()),
      flag: () => this.desk.openFlags(this.desk.current),
      flag_all: () => this.desk.openFlags(null),
      rationale: this.desk.rationale && (() => this.desk.rationale.focus()),
      correct: this.desk.corrections.all.length && (() => this.desk.correct()),
      write: this.desk.corrections.written && (() => this.desk.unfoldText(this.desk.corrections.written)),
      skip: skip && (() => this.desk.panels.unfold(skip, ".primary")),
      layout: () => this.desk.layout.toggleStacked(),
      panes: () => this.desk.layout.togglePanes(),
      differences: () => this.desk.layout.toggleDifferences(),
      conversation: () => this.desk.layout.toggleConversation(),
    }[action];
  }
}
