// Which answers has the server not taken yet? Kept on this device until it has, sent in order, by one tab at a time.

import { dropDraft } from "/static/drafts.js";
import { ask, renewToken } from "/static/server.js";
import { erase, names, read, watch, write } from "/static/storage.js";

const WAITS = [2, 5, 10, 20, 40, 60]; // seconds between tries, the last one again and again
const REMEMBERED = 100; // answered comparisons that other tabs need not show again
const TRY_LATER = new Set([0, 408, 429]);

const outboxes = new Map();

/** The outbox of a member on this device. */
export function outboxOf(member) {
  if (!outboxes.has(member)) outboxes.set(member, new Outbox(member));
  return outboxes.get(member);
}

/**
 * Entries {id, action, fields, at} of a label or skip: `id` is the comparison. What the server refuses stays with its
 * sentence in `refused`. Says "change" when entries came, went or got stuck, and "sent" with the server's counts.
 */
class Outbox extends EventTarget {
  constructor(member) {
    super();
    this.member = member;
    this.box = `outbox.${member}.`;
    this.unkept = new Map(); // what this browser does not let us keep lasts as long as the page
    this.tries = 0;
    watch(this.box, () => this.changed());
    addEventListener("online", () => this.flush());
    addEventListener("pageshow", () => this.flush());
    document.addEventListener("visibilitychange", () => document.hidden || this.flush());
    addEventListener("beforeunload", (event) => this.unkept.size > 0 && event.preventDefault());
  }

  /** All entries, the oldest first. */
  get entries() {
    const kept = names(this.box).map(read);
    return [...kept, ...this.unkept.values()].filter(Boolean).sort((a, b) => a.at - b.at);
  }

  get waiting() {
    return this.entries.filter((entry) => entry.refused === undefined);
  }

  get refused() {
    return this.entries.filter((entry) => entry.refused !== undefined);
  }

  /** Whether a try failed, in whichever tab: then the entries wait for more than the moment that sending takes. */
  get isStuck() {
    return this.waiting.some((entry) => entry.isTried);
  }

  find(id) {
    return this.entries.find((entry) => entry.id === id);
  }

  /** Whether a comparison was answered on this device, in whichever tab. */
  isAnswered(id) {
    return this.answered.includes(id) || this.waiting.some((entry) => entry.id === id);
  }

  get answered() {
    return read(`answered.${this.member}`) ?? [];
  }

  /** Takes an answer in place of an earlier one to the same comparison. Returns whether a closed tab would not lose it. */
  add({ id, action, fields }) {
    for (const entry of this.entries) if (entry.id === id) this.remove(entry);
    const isKept = this.write({ id, action, fields, at: Date.now() });
    this.changed();
    this.flush();
    return isKept;
  }

  /** Forgets an answer that was refused, and its draft. */
  letGo(entry) {
    this.settle(entry);
    dropDraft(this.member, entry.id);
  }

  /** An answer need not be sent any more. */
  settle(entry) {
    this.remove(entry);
    this.changed();
  }

  /** Resolves as soon as nothing waits to be sent any more. */
  emptied(signal) {
    return new Promise((resolve) => {
      const look = () => {
        if (this.waiting.length > 0) return;
        this.removeEventListener("change", look);
        resolve();
      };
      this.addEventListener("change", look, { signal });
      look();
    });
  }

  /** Sends what waits; resolves when all is sent or a try failed. */
  flush() {
    this.isAskedAgain = true;
    this.flushing ??= this.sendUntilDone();
    return this.flushing;
  }

  async sendUntilDone() {
    clearTimeout(this.timer);
    do {
      this.isAskedAgain = false;
      await alone(this.box, () => this.sendAll());
    } while (this.isAskedAgain);
    this.flushing = null;
  }

  async sendAll() {
    for (let [entry] = this.waiting; entry; [entry] = this.waiting) {
      if (!(await this.send(entry))) {
        this.timer = setTimeout(() => this.flush(), WAITS[Math.min(this.tries, WAITS.length - 1)] * 1000);
        this.tries += 1;
        this.rewrite({ ...entry, isTried: true });
        break;
      }
      this.tries = 0;
    }
    this.changed();
  }

  /** Whether the server has decided on an entry. */
  async send(entry) {
    const answer = await ask(entry.action, { body: new URLSearchParams(entry.fields) });
    // A page instead of the counts is not the server's yes: something in between answered.
    if (answer.ok && answer.body) this.taken(entry, answer.body);
    else if (answer.ok || answer.status >= 500 || TRY_LATER.has(answer.status)) return false;
    else if (answer.status === 401) return false;
    else if (answer.status === 403) return this.forbidden(entry, answer);
    else this.refuse(entry, answer);
    return true;
  }

  /** A token goes stale when one signs in anew in another tab: then the entry is sent with the new one. */
  async forbidden(entry, answer) {
    const found = await renewToken(entry.action.replace(/\/[^/]*$/, ""), this.member);
    if (found === "same") this.refuse(entry, answer);
    return found === "same" || (found === "renewed" && (await this.send(entry)));
  }

  taken(entry, body) {
    this.settle(entry);
    dropDraft(this.member, entry.id);
    write(`answered.${this.member}`, [...this.answered, entry.id].slice(-REMEMBERED));
    this.dispatchEvent(new CustomEvent("sent", { detail: { entry, body } }));
  }

  refuse(entry, answer) {
    this.rewrite({ ...entry, refused: answer.body?.error ?? "" });
    this.changed();
  }

  /** Unless it was replaced by a newer answer, or taken away, meanwhile. */
  rewrite(entry) {
    if (this.find(entry.id)?.at === entry.at) this.write(entry);
  }

  write(entry) {
    const name = this.box + entry.id;
    const isKept = write(name, entry);
    if (isKept) this.unkept.delete(name);
    else this.unkept.set(name, entry);
    return isKept;
  }

  remove(entry) {
    if (this.find(entry.id)?.at !== entry.at) return;
    this.unkept.delete(this.box + entry.id);
    erase(this.box + entry.id);
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/** Runs `work` while no other tab does, where the browser knows locks (pages without TLS have none: then twice is no harm). */
function alone(name, work) {
  return navigator.locks ? navigator.locks.request(name, work) : work();
}
