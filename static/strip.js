// How is the ranking shown? As a row of tie groups, best first, and the responses that have no place yet.

import { fill } from "/static/page.js";

export class Strip {
  constructor(element, words) {
    this.element = element;
    this.words = words;
  }

  /** `unplaced` is what is said of responses without a place. */
  show(ranking, unplaced = this.words.unranked) {
    const focused = document.activeElement?.closest("[data-show]")?.dataset.show;
    const groups = document.createElement("ol");
    groups.className = "groups";
    groups.append(gap(0));
    for (const [index, numbers] of ranking.groups.entries()) {
      groups.append(this.group(index, numbers), gap(index + 1));
    }
    const parts = [groups];
    if (ranking.groups.length === 0) groups.append(make("li", "strip-hint", this.hint(ranking.count)));
    if (!ranking.isComplete) parts.push(this.tray(ranking.unranked, unplaced));
    this.element.replaceChildren(...parts);
    if (focused && this.element.isConnected) this.element.querySelector(`[data-show="${focused}"]`)?.focus();
  }

  hint(count) {
    const { empty, empty_touch: touch } = this.words;
    return matchMedia("(pointer: coarse)").matches ? touch : fill(empty, { count });
  }

  group(index, numbers) {
    const item = make("li", "group");
    item.dataset.drop = "group";
    item.dataset.index = index;
    item.append(make("span", "ordinal", this.words.places[index]));
    for (const number of numbers) item.append(this.chip(number, this.words.places[index]));
    return item;
  }

  tray(numbers, unplaced) {
    const tray = make("div", "tray");
    tray.dataset.drop = "tray";
    tray.append(make("span", "ordinal", unplaced));
    for (const number of numbers) tray.append(this.chip(number, unplaced, "chip_next"));
    return tray;
  }

  chip(number, place, words = "chip") {
    const chip = make("button", "chip", number);
    chip.type = "button";
    chip.dataset.drag = number;
    chip.dataset.show = number;
    if (words === "chip_next") chip.dataset.next = number;
    chip.setAttribute("aria-label", fill(this.words[words], { number, place }));
    return chip;
  }

  /** Points at what is missing. */
  nudge() {
    const tray = this.element.querySelector(".tray");
    tray?.classList.remove("is-nudged");
    requestAnimationFrame(() => tray?.classList.add("is-nudged"));
  }
}

function gap(index) {
  const item = make("li", "gap");
  item.dataset.drop = "gap";
  item.dataset.index = index;
  item.setAttribute("aria-hidden", "true");
  return item;
}

function make(name, className, text = "") {
  const element = document.createElement(name);
  element.className = className;
  element.textContent = text;
  return element;
}
