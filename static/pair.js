// How much better is one of two responses? A scale as a question: radio buttons, and what stands on each card.

import { fill } from "/static/page.js";
import { Question } from "/static/question.js";

export class PairQuestion extends Question {
  constructor(element, cards, words) {
    super(element, cards, words);
    this.grades = [...element.querySelectorAll("input")];
  }

  get chosen() {
    return this.grades.find((grade) => grade.checked);
  }

  get isFull() {
    return this.chosen !== undefined;
  }

  get state() {
    return this.chosen ? "done" : "empty";
  }

  get best() {
    return Number(this.chosen?.dataset.better) || null;
  }

  missing() {
    return this.words.not_graded;
  }

  nudge() {
    this.element.querySelector(".grades").classList.remove("is-nudged");
    requestAnimationFrame(() => this.element.querySelector(".grades").classList.add("is-nudged"));
  }

  /** The digits go along the scale, from left to right. */
  press(digit) {
    const grade = this.grades[digit - 1];
    if (!grade) return undefined;
    grade.checked = true;
    return digit;
  }

  /** One grade to the left or right; from nothing, to the weakest on that side. */
  move(step) {
    const at = this.grades.indexOf(this.chosen);
    const middle = (this.grades.length - 1) / 2;
    const from = at < 0 ? (this.grades.length % 2 ? middle : middle - step / 2) : at;
    this.grades[Math.min(Math.max(from + step, 0), this.grades.length - 1)].checked = true;
  }

  takeBack() {
    const { chosen } = this;
    if (chosen) chosen.checked = false;
    return this.grades.indexOf(chosen) + 1;
  }

  said() {
    const { chosen } = this;
    if (!chosen) return this.words.cleared;
    const { better: number, words } = chosen.dataset;
    return number ? fill(this.words.graded, { number, words }) : this.words.equal;
  }

  left() {
    return "";
  }

  show() {
    const { chosen } = this;
    this.element.querySelector("[data-chosen]").textContent = chosen ? this.said() : "";
    for (const [index, card] of this.cards.entries()) {
      const isBetter = this.best === index + 1;
      card.classList.toggle("is-ranked", isBetter);
      card.classList.toggle("is-best", isBetter);
      card.querySelector("[data-place]").textContent = isBetter || (chosen && !this.best) ? chosen.dataset.words : "";
      for (const button of card.querySelectorAll("[data-act]")) button.hidden = true;
    }
  }
}
