// Which comparison comes next? It is fetched while the one before it is judged, so that it can be shown at once.

import { enliven } from "/static/content.js";
import { fetchDesk } from "/static/server.js";

const RETRY = 5_000; // milliseconds

/** The comparison after the one on `desk`. */
export class Prefetch {
  constructor(desk, outbox, words, signal) {
    this.address = desk.dataset.desk;
    this.after = desk.dataset.assignment;
    Object.assign(this, { outbox, words, signal });
    desk.addEventListener("lease-extended", ({ detail }) => this.extend(detail.end), { signal });
    addEventListener("online", () => this.start(), { signal });
  }

  /** Begins fetching once the server knows of all answers: before that it would give no further lease. */
  start() {
    if (this.next || this.isComing) return;
    this.isComing = true;
    this.coming = this.fetch().finally(() => (this.isComing = false));
  }

  async fetch() {
    await this.outbox.emptied(this.signal);
    const { desk } = await fetchDesk(`${this.address}?after=${this.after}`, this.signal);
    // That nothing comes after it can change until it is answered: then the server is asked again.
    if (!desk || "empty" in desk.dataset) return;
    this.next = { desk, end: Date.now() + secondsLeft(desk) * 1000 };
    this.prepare(desk);
  }

  /** Typesets the math before it is shown, bit by bit: that takes longest of all. */
  async prepare(desk) {
    for (const part of desk.querySelectorAll(".prose")) {
      await idle();
      if (this.signal.aborted) return;
      await enliven(part, this.words);
    }
  }

  /** The next desk, if it is here and still to be done; it is given out once. */
  take() {
    const { next } = this;
    this.next = null;
    if (!next || next.end < Date.now() || this.outbox.isAnswered(next.desk.dataset.comparison)) return null;
    const lease = next.desk.querySelector("[data-lease]");
    if (lease) lease.dataset.secondsLeft = Math.round((next.end - Date.now()) / 1000);
    return next.desk;
  }

  /** The desk as the server would show it now, however long that takes; undefined when the page is left meanwhile. */
  async ask() {
    while (!this.signal.aborted) {
      const { desk, elsewhere } = await fetchDesk(this.address, this.signal);
      if (desk) return desk;
      if (elsewhere) location.assign(this.address);
      await new Promise((resolve) => setTimeout(resolve, RETRY));
    }
  }

  /** A heartbeat begins all of the member's leases anew. */
  extend(end) {
    if (this.next) this.next.end = end;
  }
}

function secondsLeft(desk) {
  return Number(desk.querySelector("[data-lease]")?.dataset.secondsLeft ?? Infinity);
}

function idle() {
  return new Promise((resolve) => (globalThis.requestIdleCallback ?? setTimeout)(resolve, { timeout: 1000 }));
}
