// How are the responses laid out? Side by side or stacked, in boxes that scroll together, with their differences.

import { canShowDifferences, hideDifferences, showDifferences } from "/static/differences.js";
import { fill } from "/static/page.js";
import { recall, remember } from "/static/storage.js";
import { syncScrolling } from "/static/scrolling.js";

const root = document.documentElement;

export class Layout {
  /** `pairOf()` says which two responses to compare, by number; `announce(text)` says what was done. */
  constructor(desk, words, { pairOf, announce, signal }) {
    Object.assign(this, { desk, words, pairOf, announce, signal });
    this.texts = [...desk.querySelectorAll("[data-response]")];
    this.legend = desk.querySelector("[data-legend]");
    this.earlier = desk.querySelector("[data-earlier]");
    this.areDifferencesShown = false;
    signal.addEventListener("abort", () => hideDifferences());
    const folded = recall("conversation");
    if (this.earlier && folded) this.earlier.open = folded === "open";
    if (root.dataset.panes) this.tie();
    this.mark();
  }

  toggleStacked() {
    if (root.dataset.layout === "stacked") delete root.dataset.layout;
    else root.dataset.layout = "stacked";
    remember("layout", root.dataset.layout ?? "side");
    this.mark();
  }

  togglePanes() {
    if (root.dataset.panes) {
      delete root.dataset.panes;
      this.untie?.();
      for (const text of this.texts) text.removeAttribute("tabindex");
    } else {
      root.dataset.panes = "on";
      this.tie();
    }
    remember("panes", root.dataset.panes ?? "off");
    this.mark();
    this.announce(this.words[root.dataset.panes ? "panes_on" : "panes_off"]);
  }

  /** Where there is little room, what is said of the whole folds away. */
  toggleMore() {
    if (root.dataset.more) delete root.dataset.more;
    else root.dataset.more = "on";
    remember("more", root.dataset.more ?? "off");
    this.mark();
  }

  /** Boxes that scroll must be reached by keyboard. */
  tie() {
    for (const text of this.texts) text.tabIndex = 0;
    this.untie = syncScrolling(this.texts, this.signal);
  }

  toggleConversation() {
    if (!this.earlier) return;
    this.earlier.open = !this.earlier.open;
    this.rememberConversation();
  }

  rememberConversation() {
    remember("conversation", this.earlier.open ? "open" : "folded");
  }

  async toggleDifferences() {
    if (this.areDifferencesShown) {
      this.areDifferencesShown = false;
      hideDifferences();
      this.legend.hidden = true;
      this.announce(this.words.differences_off);
    } else if (this.texts.length > 1) {
      if (!canShowDifferences) return this.announce(this.words.differences_none, true);
      this.areDifferencesShown = true;
      await this.compare();
    }
    this.mark();
  }

  /** Shows the differences of the pair that is looked at now. */
  async compare() {
    const [first, second] = this.pairOf();
    this.compared = `${first} ${second}`;
    const how = await showDifferences(this.texts[first - 1], this.texts[second - 1]);
    const legend = fill(this.words[how === "in order" ? "differences" : "differences_far"], { first, second });
    this.legend.replaceChildren(...legendParts(legend));
    this.legend.hidden = false;
    this.announce(legend);
  }

  /** Another response came into focus. */
  focusMoved() {
    if (this.areDifferencesShown && this.compared !== this.pairOf().join(" ")) this.compare();
  }

  mark() {
    press("[data-layout-toggle]", root.dataset.layout === "stacked");
    press("[data-panes]", root.dataset.panes === "on");
    press("[data-more]", root.dataset.more === "on");
    press("[data-differences]", this.areDifferencesShown);
  }
}

function legendParts(text) {
  const sample = document.createElement("span");
  sample.className = "difference-sample";
  sample.textContent = "abc";
  sample.setAttribute("aria-hidden", "true");
  return [sample, ` ${text}`];
}

function press(selector, isOn) {
  document.querySelector(`button${selector}`)?.setAttribute("aria-pressed", String(isOn));
}
