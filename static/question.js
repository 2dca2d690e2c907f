// What do all questions have in common? A name, whether they must be answered, and how far their answer is.

export class Question {
  constructor(element, cards, words) {
    this.element = element;
    this.cards = cards;
    this.words = words;
    this.key = element.dataset.question;
    this.kind = element.dataset.kind;
    this.name = element.getAttribute("aria-label");
    this.isRequired = "required" in element.dataset;
  }

  /** Whether it may stay empty: because it is so asked, or because `excused` says "all" or "overall". */
  isOptional(excused) {
    return !this.isRequired || this.isExcused(excused);
  }

  isExcused(excused) {
    return excused === "all" || (excused === "overall" && this.key === "overall");
  }

  isMissing(excused) {
    return this.state !== "done" && !(this.state === "empty" ? this.isOptional(excused) : this.isExcused(excused));
  }

  /** How far a begun answer is, in a few characters. */
  get progress() {
    return "";
  }
}
