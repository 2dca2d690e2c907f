// What is pointed out, of a response or of the whole? Menus of flags, and “all are bad”; some stand instead of an answer.

export class Flags {
  constructor(desk) {
    this.menus = [...desk.querySelectorAll("[data-flags]")];
    this.excusing = [...desk.querySelectorAll("input[data-excuses]:not([data-excuses=''])")];
    this.allBad = desk.querySelector("input[name=all_bad]");
    for (const menu of this.menus) showCount(menu);
  }

  /** What need not be answered: "all", "overall", or nothing (null). */
  get excused() {
    const found = this.excusing.filter((flag) => flag.checked).map((flag) => flag.dataset.excuses);
    return found.includes("all") ? "all" : (found[0] ?? null);
  }

  /** The menu of a response; without a number, that of the comparison. */
  menuOf(number, cards) {
    const own = number ? cards[number - 1] : null;
    return this.menus.find((menu) => (own ? own.contains(menu) : !menu.closest(".response")));
  }

  /** Shows that a checkbox of a menu or “all are bad” has changed. */
  changed(box) {
    const menu = box.closest("[data-flags]");
    if (menu) showCount(menu);
  }

  /** Inside an open menu, digits set its flags. */
  static press(menu, digit) {
    menu.querySelectorAll("input")[digit - 1]?.click();
  }
}

function showCount(menu) {
  const count = menu.querySelectorAll("input:checked").length;
  menu.querySelector("[data-flagged]").textContent = count || "";
  menu.classList.toggle("is-flagged", count > 0);
}
