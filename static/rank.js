// In which order are the responses? A ranking as a question: its fields, the strip and what stands on each card.

import { fill } from "/static/page.js";
import { Question } from "/static/question.js";
import { Ranking } from "/static/ranking.js";
import { Strip } from "/static/strip.js";

export class RankQuestion extends Question {
  constructor(element, cards, words) {
    super(element, cards, words);
    this.hasTies = "ties" in element.dataset;
    this.isPartial = "partial" in element.dataset;
    this.fields = cards.map((card) => card.querySelector(`[data-field-of="${this.key}"] select`));
    this.strip = new Strip(element.querySelector("[data-strip]"), words);
    this.ranking = new Ranking(cards.length, this.sentGroups());
  }

  /** The groups that the form came with: an old label, a draft, or what a refused form said. */
  sentGroups() {
    const places = this.fields.map((field) => Number(field.value));
    const used = [...new Set(places.filter(Boolean))].sort((a, b) => a - b);
    return used.map((place) => places.flatMap((other, index) => (other === place ? [index + 1] : [])));
  }

  get isFull() {
    return this.ranking.isComplete;
  }

  get placed() {
    return this.cards.length - this.ranking.unranked.length;
  }

  get state() {
    if (this.placed === 0) return "empty";
    return this.isFull || (this.isPartial && this.placed >= 2) ? "done" : "begun";
  }

  get progress() {
    return `${this.placed}/${this.cards.length}`;
  }

  /** The best response, where there is one alone at the top. */
  get best() {
    const [first] = this.ranking.groups;
    return first?.length === 1 ? first[0] : null;
  }

  missing() {
    if (this.isPartial) return this.words.not_two;
    return fill(this.words.not_ranked, { numbers: this.ranking.unranked.join(", ") });
  }

  nudge() {
    this.strip.nudge();
  }

  press(digit, isShifted) {
    if (digit < 1 || digit > this.cards.length) return undefined;
    this.act(isShifted ? "tie" : "next", digit);
    return digit;
  }

  act(name, number) {
    if (name === "tie" && this.hasTies) this.ranking.tie(number);
    else if (name === "next" || name === "tie") this.ranking.next(number);
    else if (name === "remove") this.ranking.remove(number);
    else if (this.hasTies) this.ranking.move(number, name === "up" ? -1 : 1);
    else this.ranking.insert(number, this.ranking.placeOf(number) + (name === "up" ? -1 : 2));
    this.write();
  }

  drop(number, { drop, index }) {
    if (drop === "gap") this.ranking.insert(number, Number(index));
    else if (drop === "group" && this.hasTies) this.ranking.join(number, Number(index));
    else if (drop === "tray") this.ranking.remove(number);
    this.write();
  }

  takeBack() {
    const number = this.ranking.takeBack();
    this.write();
    return number;
  }

  write() {
    for (const [index, field] of this.fields.entries()) {
      const place = this.ranking.placeOf(index + 1);
      field.value = place >= 0 ? place + 1 : "";
    }
  }

  said(number) {
    const { placed, removed } = this.words;
    return fill(this.ranking.placeOf(number) < 0 ? removed : placed, { number, place: this.placeInWords(number) });
  }

  /** What is left to do here, in words. */
  left() {
    const { left, enough } = this.words;
    return fill(this.state === "done" ? enough : left, { left: this.ranking.unranked.length });
  }

  placeInWords(number) {
    const place = this.ranking.placeOf(number);
    if (place < 0) return this.state === "done" ? this.words.left_out : this.words.unranked;
    const word = this.words.places[place];
    return this.ranking.isTied(number) ? fill(this.words.tied, { place: word }) : word;
  }

  show() {
    for (const [index, card] of this.cards.entries()) this.showCard(card, index + 1);
    this.strip.show(this.ranking, this.state === "done" ? this.words.left_out : this.words.unranked);
  }

  showCard(card, number) {
    const place = this.ranking.placeOf(number);
    const { length } = this.ranking.groups;
    card.classList.toggle("is-ranked", place >= 0);
    card.classList.toggle("is-best", place === 0);
    card.querySelector("[data-place]").textContent = this.placeInWords(number);
    for (const button of card.querySelectorAll("[data-act]")) {
      const { act } = button.dataset;
      if (act === "next" || act === "tie") {
        const offered = this.words.places[act === "next" ? length : length - 1] ?? "";
        button.hidden = place >= 0 || !offered;
        button.querySelector("[data-word]").textContent = fill(this.words[act], { place: offered });
      } else {
        button.hidden = place < 0;
      }
    }
  }
}
