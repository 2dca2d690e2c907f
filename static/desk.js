// The annotator's desk: ranks by key, click and drag; keeps the draft, the time and the lease.

import { dropDraft, loadDraft, saveDraft } from "/static/drafts.js";
import { makeDraggable } from "/static/drag.js";
import { watchLease } from "/static/lease.js";
import { fill, recall, remember } from "/static/page.js";
import { Ranking } from "/static/ranking.js";
import { Strip } from "/static/strip.js";
import { Stopwatch } from "/static/stopwatch.js";

const TEXT_FIELDS = "input:not([type=checkbox], [type=radio]), textarea, [contenteditable]";
const OWN_ENTER = "a, button, summary, select, input, textarea";

class Desk extends HTMLElement {
  connectedCallback() {
    this.ending = new AbortController();
    this.words = JSON.parse(this.dataset.words);
    const { signal } = this.ending;
    document.addEventListener("keydown", (event) => this.onKey(event), { signal });
    document.addEventListener("click", (event) => this.onClick(event), { signal });
    this.form = this.querySelector("#ranking");
    this.keysOn = this.querySelector("[data-keys-on]");
    this.keysOn.checked = recall("keys") !== "off";
    this.keysOn.addEventListener("change", () => remember("keys", this.keysOn.checked ? "on" : "off"), { signal });
    markLayout();
    if (this.form) this.begin(signal);
    // The next comparison is read from its beginning; a page that is only loading keeps its place.
    if (document.readyState === "complete") scrollTo(0, 0);
    if (document.activeElement === document.body) this.querySelector("[data-start]")?.focus({ preventScroll: true });
  }

  disconnectedCallback() {
    this.ending.abort();
    this.undrag?.();
    // It is replaced only when the server has taken the label or the skip.
    if (this.form) dropDraft(this.form.dataset.draft);
  }

  begin(signal) {
    this.cards = [...this.querySelectorAll(".response")];
    this.strip = new Strip(this.querySelector("[data-strip]"), this.words);
    const draft = loadDraft(this.form.dataset.draft, this.cards.length);
    this.ranking = new Ranking(this.cards.length, draft?.groups ?? this.sentGroups());
    this.stopwatch = new Stopwatch(draft?.seconds ?? 0, signal);
    this.undrag = makeDraggable(this, (number, target) => this.drop(number, target));
    // The hidden fields cannot be pointed at; what is missing is said in words instead.
    this.form.noValidate = true;
    this.form.addEventListener("submit", (event) => this.onSubmit(event), { capture: true, signal });
    const lease = this.querySelector("[data-lease]");
    if (lease) watchLease(lease, this.form.elements.csrf.value, this.words, this.stopwatch, signal);
    if (draft?.groups.length) this.announce(this.words.draft);
    this.show();
  }

  /** The groups that the form came with: an old label, or what a refused one said. */
  sentGroups() {
    const places = this.cards.map((card) => Number(card.querySelector("select").value));
    const used = [...new Set(places.filter(Boolean))].sort((a, b) => a - b);
    return used.map((place) => places.flatMap((other, index) => (other === place ? [index + 1] : [])));
  }

  /** Shows the ranking everywhere and says in words what changed. */
  show(changed) {
    for (const [index, card] of this.cards.entries()) this.showCard(card, index + 1);
    this.strip.show(this.ranking);
    this.querySelector("[data-undo]").disabled = this.ranking.groups.length === 0;
    this.querySelector("button[form=ranking]").classList.toggle("is-waiting", !this.ranking.isComplete);
    if (changed === undefined) return;
    this.keepDraft();
    const { placed, removed, left, complete } = this.words;
    const said = this.ranking.placeOf(changed) < 0 ? removed : placed;
    const rest = this.ranking.isComplete ? complete : fill(left, { left: this.ranking.unranked.length });
    this.announce(`${fill(said, { number: changed, place: this.placeInWords(changed) })} ${rest}`);
  }

  showCard(card, number) {
    const place = this.ranking.placeOf(number);
    const { length } = this.ranking.groups;
    card.classList.toggle("is-ranked", place >= 0);
    card.classList.toggle("is-best", place === 0);
    card.querySelector("[data-place]").textContent = this.placeInWords(number);
    card.querySelector("select").value = place >= 0 ? place + 1 : "";
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

  placeInWords(number) {
    const place = this.ranking.placeOf(number);
    if (place < 0) return this.words.unranked;
    const word = this.words.places[place];
    return this.ranking.isTied(number) ? fill(this.words.tied, { place: word }) : word;
  }

  announce(text) {
    this.querySelector("[data-announce]").textContent = text;
  }

  act(name, number) {
    const hasTies = this.querySelector("[data-act=tie]") !== null;
    if (name === "next" || (name === "tie" && !hasTies)) this.ranking.next(number);
    else if (name === "tie") this.ranking.tie(number);
    else if (name === "remove") this.ranking.remove(number);
    else this.step(number, name === "up" ? -1 : 1, hasTies);
    this.show(number);
  }

  step(number, by, hasTies) {
    if (hasTies) this.ranking.move(number, by);
    else this.ranking.insert(number, this.ranking.placeOf(number) + (by < 0 ? -1 : 2));
  }

  takeBack() {
    const number = this.ranking.takeBack();
    if (number !== undefined) this.show(number);
  }

  drop(number, target) {
    const { drop, index } = target.dataset;
    if (drop === "gap") this.ranking.insert(number, Number(index));
    else if (drop === "group" && this.querySelector("[data-act=tie]")) this.ranking.join(number, Number(index));
    else if (drop === "tray") this.ranking.remove(number);
    this.show(number);
  }

  onKey(event) {
    if (event.isComposing || event.keyCode === 229 || event.ctrlKey || event.metaKey) return;
    if (event.target.closest(TEXT_FIELDS)) return;
    const open = this.querySelector("dialog[open], details[open]");
    if (event.key === "Escape" && open) {
      event.preventDefault();
      this.close(open);
      return;
    }
    if (this.querySelector("dialog:modal") || !this.keysOn.checked) return;
    const does = this.keyed(event);
    if (!does) return;
    event.preventDefault();
    does();
  }

  /** What a key does, if anything. */
  keyed(event) {
    const digit = /^(?:Digit|Numpad)([1-9])$/.exec(event.code);
    if (event.altKey) return this.altKeyed(event);
    if (event.key === "?") return () => this.open("keys");
    if (event.key === "g") return () => this.open("guidelines");
    if (event.key === "v") return toggleLayout;
    if (!this.form) return null;
    if (digit && Number(digit[1]) <= this.cards.length && !event.target.closest("select, [type=radio]")) {
      return () => this.act(event.shiftKey ? "tie" : "next", Number(digit[1]));
    }
    if (event.key === "Backspace") return () => this.takeBack();
    if (event.key === "Enter" && !event.repeat && !event.target.closest(OWN_ENTER)) return () => this.form.requestSubmit();
    if (event.key === "s" && this.querySelector("[data-skip]")) return () => this.openSkip();
    if (event.key === "b" && this.querySelector("[data-back]")) return () => this.querySelector("[data-back]").click();
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step && !event.target.closest("pre, .table-scroll, [type=radio], select")) return () => this.focusNext(step);
    return null;
  }

  altKeyed(event) {
    const step = { ArrowUp: "up", ArrowDown: "down" }[event.key];
    const card = event.target.closest(".response");
    return step && card ? () => this.act(step, Number(card.dataset.number)) : null;
  }

  focusNext(step) {
    const current = this.cards.indexOf(document.activeElement.closest(".response"));
    const next = current < 0 ? (step > 0 ? 0 : this.cards.length - 1) : current + step;
    this.focusCard(Math.min(Math.max(next, 0), this.cards.length - 1) + 1);
  }

  focusCard(number) {
    const card = this.cards[number - 1];
    card.focus({ preventScroll: true });
    const { top, bottom } = card.getBoundingClientRect();
    const isVisible = top >= 60 && bottom <= innerHeight - 90;
    if (!isVisible) card.scrollIntoView({ block: "start" });
  }

  onClick(event) {
    const link = event.target.closest(".prose a");
    if (link && !confirm(fill(this.words.link, { address: link.href }))) event.preventDefault();
    const opens = event.target.closest("[data-open]");
    if (opens) {
      event.preventDefault();
      this.open(opens.dataset.open);
    }
    if (event.target.closest("[data-layout-toggle]")) toggleLayout();
    if (!this.contains(event.target)) return;
    if (event.target.closest("[data-close-dialog]")) this.close(event.target.closest("dialog"));
    if (event.target.closest("[data-unskip]")) this.close(event.target.closest("details"));
    if (event.target.closest("[data-undo]")) this.takeBack();
    const chip = event.target.closest("[data-show]");
    if (chip) this.focusCard(Number(chip.dataset.show));
    const button = event.target.closest("[data-act]");
    if (button) this.onAct(button, event.detail > 0);
  }

  onAct(button, byPointer) {
    const card = button.closest(".response");
    this.act(button.dataset.act, Number(card.dataset.number));
    // Enter shall submit after a click with the mouse; after one by keyboard the focus must not be lost.
    if (byPointer) card.focus({ preventScroll: true });
    else if (button.hidden) card.querySelector("[data-act]:not([hidden])").focus();
  }

  open(id) {
    const dialog = this.querySelector(`#${id}`);
    if (dialog.open) this.close(dialog);
    else if (id === "keys") dialog.showModal();
    else {
      dialog.show();
      // Not the button that closes it: Enter shall go on submitting.
      dialog.querySelector("[data-panel-text]").focus({ preventScroll: true });
    }
  }

  openSkip() {
    this.returnTo = document.activeElement;
    this.querySelector("[data-skip]").open = true;
    this.querySelector(".skip-form .primary").focus({ preventScroll: true });
  }

  close(opened) {
    if (opened.matches("dialog")) opened.close();
    else opened.open = false;
    if (opened.contains(document.activeElement)) (this.returnTo ?? opened.querySelector("summary")).focus({ preventScroll: true });
    this.returnTo = null;
  }

  onSubmit(event) {
    if (!this.ranking.isComplete) {
      event.preventDefault();
      event.stopImmediatePropagation();
      const numbers = this.ranking.unranked.join(", ");
      this.announce(fill(this.words.incomplete, { numbers }));
      this.strip.nudge();
      return;
    }
    this.form.elements.seconds.value = this.stopwatch.seconds.toFixed(1);
    this.keepDraft();
  }

  keepDraft() {
    saveDraft(this.form.dataset.draft, this.ranking.groups, this.stopwatch.seconds);
  }
}

function toggleLayout() {
  const { dataset } = document.documentElement;
  if (dataset.layout === "stacked") delete dataset.layout;
  else dataset.layout = "stacked";
  remember("layout", dataset.layout ?? "side");
  markLayout();
}

function markLayout() {
  const isStacked = document.documentElement.dataset.layout === "stacked";
  document.querySelector("[data-layout-toggle]")?.setAttribute("aria-pressed", String(isStacked));
}

customElements.define("ranking-desk", Desk);
