// What does a click do on the desk, by mouse, by touch or by a button's own keys?

import { fill } from "/static/page.js";

export class DeskClicks {
  constructor(desk, signal) {
    this.desk = desk;
    document.addEventListener("pointerdown", () => { desk.isPointed = true; }, { signal });
    document.addEventListener("click", (event) => this.onClick(event), { signal });
    desk.addEventListener("wheel", (event) => this.onWheel(event), { passive: true, signal });
  }

  onClick(event) {
    const { target } = event;
    const link = target.closest(".prose a");
    if (link && !confirm(fill(this.desk.words.link, { address: link.href }))) event.preventDefault();
    const opens = target.closest("[data-open]");
    if (opens) {
      event.preventDefault();
      this.desk.panels.toggle(opens.dataset.open);
    }
    if (this.desk.form && target.closest("[data-layout-toggle]")) this.desk.layout.toggleStacked();
    if (this.desk.form && target.closest("[data-panes]:is(button)")) this.desk.layout.togglePanes();
    if (this.desk.form && target.closest("[data-differences]")) this.desk.layout.toggleDifferences();
    if (this.desk.contains(target)) this.onOwnClick(event);
    if (event.detail > 0) this.leave(target.closest("button"));
  }

  /** Enter shall submit after a click with the mouse, and not press the same button once more. */
  leave(button) {
    if (!button || button !== document.activeElement || button.closest("dialog, .skip-form")) return;
    (button.closest(".response") ?? this.desk.querySelector("[data-start]"))?.focus({ preventScroll: true });
  }

  /** Whoever scrolls wants to read: a browser would change the score that was typed last. */
  onWheel({ target }) {
    if (target === document.activeElement && target.matches("[type=number]")) target.closest(".response").focus({ preventScroll: true });
  }

  onOwnClick({ target, detail }) {
    if (target.closest("[data-close-dialog]")) this.desk.panels.close(target.closest("dialog"));
    if (target.closest("[data-unskip]")) this.desk.panels.close(target.closest("details"));
    if (target.closest("button[data-more]")) this.desk.layout.toggleMore();
    if (target.closest("[data-undo]")) this.desk.takeBack();
    if (target.closest("[data-earlier] > summary")) setTimeout(() => this.desk.layout.rememberConversation());
    const restored = target.closest("[data-restore]")?.closest("[data-correction]");
    if (restored) this.desk.restore(restored);
    const tab = target.closest("[data-ask]");
    if (tab) this.desk.turnTo(this.desk.questions.get(tab.dataset.ask));
    const score = target.closest("[data-score]");
    if (score) this.onScore(score, detail > 0);
    const chip = target.closest("[data-show]");
    if (chip?.dataset.next) this.desk.act("next", Number(chip.dataset.next));
    else if (chip) this.desk.focusCard(Number(chip.dataset.show));
    const button = target.closest("[data-act]");
    if (button) this.onAct(button, detail > 0);
  }

  onAct(button, byPointer) {
    const card = button.closest(".response");
    this.desk.act(button.dataset.act, Number(card.dataset.number));
    // Enter shall submit after a click with the mouse; after one by keyboard the focus must not be lost.
    if (byPointer) card.focus({ preventScroll: true });
    else if (button.hidden) (card.querySelector("[data-act]:not([hidden])") ?? card).focus();
  }

  onScore(button, byPointer) {
    const { active } = this.desk.questions;
    const card = button.closest(".response");
    this.desk.changed(active.give(Number(button.dataset.score), card ? Number(card.dataset.number) : undefined));
    if (card && (byPointer || !button.checkVisibility())) card.focus({ preventScroll: true });
    else if (byPointer && this.desk.questions.active.kind === "score") this.desk.focusCard(this.desk.questions.active.current);
  }
}
