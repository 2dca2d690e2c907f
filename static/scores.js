// How good is each response by itself? A score as a question: number fields, and a button for each whole number.

import { fill } from "/static/page.js";
import { Question } from "/static/question.js";

export class ScoreQuestion extends Question {
  constructor(element, cards, words) {
    super(element, cards, words);
    this.fields = cards.map((card) => card.querySelector(`[data-field-of="${this.key}"] input`));
    this.shown = element.querySelector("[data-scores]");
    this.whole = this.shown.dataset.whole.split(" ").filter(Boolean).map(Number);
    this.current = this.firstOpen() ?? 1;
    this.given = []; // numbers of responses, the one scored last at the end
    this.build();
  }

  /** Chips that show the scores, and the whole numbers as buttons for the response at hand; on each card as well. */
  build() {
    this.chips = this.cards.map((_, index) => {
      const chip = button("score-chip", { show: index + 1 });
      chip.append(unread(make("b", "", index + 1)), unread(make("span", "score")), make("span", "visually-hidden"));
      return chip;
    });
    this.shown.append(row("score-chips", this.chips));
    if (this.whole.length === 0) return;
    this.barScale = this.scale();
    this.shown.append(this.barScale);
    for (const [index, field] of this.fields.entries()) {
      field.closest("label").before(this.scale(index + 1));
      field.closest("label").classList.toggle("is-covered", this.isCovered(field));
    }
  }

  scale(number) {
    const buttons = this.whole.map((score) => {
      const key = button("score-key", { score });
      key.textContent = score;
      if (number) key.setAttribute("aria-label", fill(this.words.score_button, { score, number }));
      return key;
    });
    const scale = row("score-scale needs-script", buttons);
    if (number) scale.dataset.fieldOf = this.key;
    return scale;
  }

  /** Whether the buttons say all that the field could. */
  isCovered({ min, max, step }) {
    return this.whole.length === Math.round((max - min) / step) + 1;
  }

  isScored(number) {
    const field = this.fields[number - 1];
    return field.value !== "" && field.validity.valid;
  }

  isWrong(number) {
    return !this.fields[number - 1].validity.valid;
  }

  get unscored() {
    return this.fields.map((_, index) => index + 1).filter((number) => !this.isScored(number));
  }

  firstOpen(after = 0) {
    const open = this.unscored;
    return open.find((number) => number > after) ?? open[0];
  }

  get isFull() {
    return this.unscored.length === 0;
  }

  get state() {
    if (this.isFull) return "done";
    const isUntouched = this.unscored.length === this.cards.length && !this.unscored.some((number) => this.isWrong(number));
    return isUntouched ? "empty" : "begun";
  }

  /** Some scores without the others say something too, where none is required. */
  isMissing(excused) {
    return this.state !== "done" && (!this.isOptional(excused) || this.unscored.some((number) => this.isWrong(number)));
  }

  get progress() {
    return `${this.cards.length - this.unscored.length}/${this.cards.length}`;
  }

  get best() {
    const scores = this.fields.map((field) => Number.parseFloat(field.value));
    const best = scores.indexOf(Math.max(...scores.filter((score) => !Number.isNaN(score))));
    return best < 0 ? null : best + 1;
  }

  missing() {
    const wrong = this.unscored.find((number) => this.isWrong(number));
    return wrong ? this.rangeInWords(wrong) : fill(this.words.not_scored, { numbers: this.unscored.join(", ") });
  }

  rangeInWords(number) {
    const { min: lowest, max: highest, step } = this.fields[number - 1];
    return fill(this.words.score_range, { number, lowest, highest, step });
  }

  nudge() {
    this.chips[this.firstOpen() - 1]?.classList.remove("is-nudged");
    requestAnimationFrame(() => this.chips[this.firstOpen() - 1]?.classList.add("is-nudged"));
  }

  /** A digit is a whole score for the response at hand; 0 is 10 where there is no 0. */
  press(digit) {
    const score = digit === 0 && !this.whole.includes(0) ? 10 : digit;
    return this.whole.includes(score) ? this.give(score) : undefined;
  }

  /** Scores a response, and takes the next one in hand. Returns the number of the one scored. */
  give(score, number = this.current) {
    this.fields[number - 1].value = score;
    this.noted(number);
    this.current = this.firstOpen(number) ?? number;
    return number;
  }

  /** The first decimal of the score given last, where scores have decimals. */
  pressDecimal(digit) {
    const number = this.given.at(-1);
    const field = this.fields[number - 1];
    const before = field.value;
    field.value = `${Math.trunc(Number(before))}.${digit}`;
    if (field.validity.valid) return number;
    field.value = before;
    return undefined;
  }

  get takesDecimals() {
    return this.given.length > 0 && Number(this.fields[0].step) % 1 !== 0;
  }

  /** The response was scored: through a button, a key, or in its field. */
  noted(number) {
    this.given = this.given.filter((other) => other !== number);
    if (this.isScored(number)) this.given.push(number);
  }

  takeBack() {
    const number = this.given.pop() ?? this.fields.findLastIndex((field) => field.value !== "") + 1;
    this.fields[number - 1].value = "";
    this.current = number;
    return number;
  }

  said(number) {
    if (this.isWrong(number)) return this.rangeInWords(number);
    return fill(this.words.scored, { number, score: this.fields[number - 1].value || this.words.unscored });
  }

  left() {
    return fill(this.words.left_to_score, { left: this.unscored.length });
  }

  show() {
    for (const [index, card] of this.cards.entries()) this.showCard(card, index + 1);
    if (this.barScale) this.mark(this.barScale, this.current, true);
  }

  showCard(card, number) {
    const score = this.fields[number - 1].value;
    card.classList.toggle("is-ranked", this.isScored(number));
    card.classList.remove("is-best");
    card.querySelector("[data-place]").textContent = "";
    for (const act of card.querySelectorAll("[data-act]")) act.hidden = true;
    const scale = card.querySelector(`.score-scale[data-field-of="${this.key}"]`);
    if (scale) this.mark(scale, number);
    const chip = this.chips[number - 1];
    chip.querySelector(".score").textContent = score || "–";
    chip.classList.toggle("is-current", number === this.current);
    chip.classList.toggle("is-scored", this.isScored(number));
    chip.lastChild.textContent = fill(this.words.score_chip, { number, score: score || this.words.unscored });
  }

  mark(scale, number, isNamed = false) {
    const score = this.fields[number - 1].value;
    for (const key of scale.children) {
      key.setAttribute("aria-pressed", String(score !== "" && Number(score) === Number(key.dataset.score)));
      if (isNamed) key.setAttribute("aria-label", fill(this.words.score_button, { score: key.dataset.score, number }));
    }
  }
}

function row(className, children) {
  const element = make("div", className);
  element.append(...children);
  return element;
}

function unread(element) {
  element.setAttribute("aria-hidden", "true");
  return element;
}

function button(className, data) {
  const element = make("button", className);
  element.type = "button";
  Object.assign(element.dataset, data);
  return element;
}

function make(name, className, text = "") {
  const element = document.createElement(name);
  element.className = className;
  element.textContent = text;
  return element;
}
