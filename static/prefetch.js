// Which comparisons come next? They are fetched while the one before them is judged, so that they can be shown at once.

import { enliven, idle } from "/static/content.js";
import { fetchDesk } from "/static/server.js";

const AHEAD = 2; // comparisons at hand: one alone would not have come when somebody is quick
const RETRY = 5_000; // milliseconds

let prefetch = null;

/** What is fetched ahead for the desk of this page. It goes on from one comparison to the next. */
export function prefetchFor(desk, outbox, words) {
  prefetch ??= new Prefetch(desk.dataset.desk, outbox, words);
  return prefetch;
}

class Prefetch {
  constructor(address, outbox, words) {
    Object.assign(this, { address, outbox, words });
    this.ready = []; // {desk, end}, the one that comes first in front
    outbox.addEventListener("sent", () => this.start());
    addEventListener("online", () => this.start());
  }

  /** `desk` is in front of the member now. */
  follow(desk, signal) {
    this.shown = desk.dataset.assignment;
    this.ready = this.ready.filter((next) => next.desk.dataset.assignment !== this.shown);
    desk.addEventListener("lease-extended", ({ detail }) => this.extend(detail.end), { signal });
    this.start();
  }

  /** Fetches what is still missing; `coming` resolves when nothing more comes for now. */
  start() {
    this.coming ??= this.fill().finally(() => (this.coming = null));
  }

  async fill() {
    while (this.ready.length < AHEAD) {
      const { desk } = await fetchDesk(`${this.address}?${this.atHand()}`, this.outbox.member);
      // That nothing comes can change with the next answer: then the server is asked again.
      if (!desk || "empty" in desk.dataset || this.isKnown(desk)) return;
      const next = { desk, end: Date.now() + secondsLeft(desk) * 1000 };
      this.ready.push(next);
      this.arrived?.();
      this.prepare(next);
    }
  }

  /** Resolves when the next comparison is here, or none comes for now. */
  first() {
    const isHere = new Promise((resolve) => (this.arrived = resolve));
    return this.ready.length > 0 ? undefined : Promise.race([isHere, this.coming]);
  }

  /** The query that names what the page has: the comparison in front, those ahead, and those whose answers wait. */
  atHand() {
    const ahead = this.ready.map(({ desk }) => desk.dataset.assignment);
    const answered = this.outbox.waiting.map(({ action }) => /assignments\/(\d+)/.exec(action)[1]);
    return new URLSearchParams([...new Set([this.shown, ...ahead, ...answered])].map((id) => ["after", id]));
  }

  isKnown({ dataset: { assignment, comparison } }) {
    const isAhead = this.ready.some(({ desk }) => desk.dataset.assignment === assignment);
    return isAhead || assignment === this.shown || this.outbox.isAnswered(comparison);
  }

  /** Typesets the math before it is shown, bit by bit: that takes longest of all. */
  async prepare(next) {
    for (const part of next.desk.querySelectorAll(".prose")) {
      await idle();
      if (!this.ready.includes(next)) return;
      await enliven(part, this.words, true);
    }
  }

  /** The next desk, if it is here and still to be done; it is given out once. */
  take() {
    for (let next = this.ready.shift(); next; next = this.ready.shift()) {
      if (next.end < Date.now() || this.outbox.isAnswered(next.desk.dataset.comparison)) continue;
      const lease = next.desk.querySelector("[data-lease]");
      if (lease) lease.dataset.secondsLeft = Math.round((next.end - Date.now()) / 1000);
      return next.desk;
    }
    return null;
  }

  /** The desk as the server would show it now, however long that takes; undefined when the page is left meanwhile. */
  async ask(signal) {
    while (!signal.aborted) {
      const { desk, elsewhere } = await fetchDesk(this.address, this.outbox.member, signal);
      if (desk) return desk;
      if (elsewhere) location.assign(this.address);
      await new Promise((resolve) => setTimeout(resolve, RETRY));
    }
  }

  /** A heartbeat begins all of the member's leases anew. */
  extend(end) {
    for (const next of this.ready) next.end = end;
  }
}

function secondsLeft(desk) {
  return Number(desk.querySelector("[data-lease]")?.dataset.secondsLeft ?? Infinity);
}
