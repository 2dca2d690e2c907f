// What is asked, what is answered, and which question is at hand?

import { PairQuestion } from "/static/pair.js";
import { RankQuestion } from "/static/rank.js";
import { ScoreQuestion } from "/static/scores.js";

const KINDS = { ranking: RankQuestion, pair: PairQuestion, score: ScoreQuestion };
const MARKS = { done: "✓", begun: "…", empty: "" };

/** The questions of a comparison; `active` is the one that digits answer, null where none is asked. */
export class Questions {
  constructor(desk, cards, words) {
    this.words = words;
    this.all = [...desk.querySelectorAll("[data-question]")].map(
      (element) => new KINDS[element.dataset.kind](element, cards, words),
    );
    this.tabs = [...desk.querySelectorAll("[data-ask]")];
    this.fields = [...desk.querySelectorAll("[data-field-of]")];
    this.active = this.all.find((question) => !question.isFull) ?? this.all[0] ?? null;
  }

  get(key) {
    return this.all.find((question) => question.key === key);
  }

  /** The question `step` further, around the ends. */
  beside(step) {
    return this.all.at((this.all.indexOf(this.active) + step) % this.all.length);
  }

  /** The first question after the active one, around the end, that still has something to answer. */
  nextOpen() {
    const at = this.all.indexOf(this.active);
    return [...this.all.slice(at + 1), ...this.all.slice(0, at)].find((question) => !question.isFull);
  }

  /** The nearest question before the active one that holds an answer, itself included: what “take back” is about. */
  lastAnswered() {
    const at = this.all.indexOf(this.active);
    return this.all.slice(0, at + 1).findLast((question) => question.state !== "empty");
  }

  /** The first question that keeps the answer from being submitted. */
  firstMissing(excused) {
    return this.all.find((question) => question.isMissing(excused));
  }

  show(excused) {
    for (const question of this.all) {
      question.element.hidden = question !== this.active;
      question.wasFull = question.isFull;
    }
    for (const tab of this.tabs) this.showTab(tab, this.get(tab.dataset.ask), excused);
    for (const field of this.fields) field.classList.toggle("is-active", field.dataset.fieldOf === this.active.key);
    this.active?.show();
    if (this.shown !== this.active) scrollTabs(this.tabs.find((tab) => tab.dataset.ask === this.active.key));
    this.shown = this.active;
  }

  showTab(tab, question, excused) {
    const { state } = question;
    const isOptional = question.isOptional(excused);
    const words = state === "empty" && isOptional ? this.words[excused ? "excused" : "optional"] : this.words[WORDS[state]];
    if (question === this.active) tab.setAttribute("aria-current", "step");
    else tab.removeAttribute("aria-current");
    tab.dataset.state = isOptional && state === "empty" ? "optional" : state;
    tab.querySelector(".state").textContent = state === "begun" ? question.progress : MARKS[state];
    tab.querySelector("[data-state-words]").textContent = words;
  }
}

const WORDS = { done: "done", begun: "begun", empty: "missing" };

/** Brings the tab into sight sideways, without moving the page. */
function scrollTabs(tab) {
  if (!tab) return;
  const row = tab.parentElement;
  if (row.scrollWidth > row.clientWidth) row.scrollLeft = tab.offsetLeft - 16;
}
