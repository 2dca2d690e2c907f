// Whose is this comparison, and until when? Counts the lease down, extends it while somebody works, says when it ended.

import { fill, say } from "/static/page.js";
import { ask } from "/static/server.js";

const AWAY = 5 * 60_000; // milliseconds without a sign of life, after which the lease is left to run out
const ENDING = 120; // seconds

/**
 * `shown` says where the lease stands: data-seconds-left, and data-heartbeat to extend it. Each time that worked,
 * "lease-extended" tells when it ends, which holds for every comparison that the annotator has.
 */
export function watchLease(shown, words, stopwatch, signal) {
  const given = Number(shown.dataset.secondsLeft);
  const every = Math.min(60, Math.max(5, given / 3)) * 1000;
  let end = Date.now() + given * 1000;
  let asked = Date.now();
  let told = null;

  const timer = setInterval(() => {
    const left = (end - Date.now()) / 1000;
    show(left);
    if (left > 0 && Date.now() - asked > every && !document.hidden && stopwatch.idle < AWAY) extend();
  }, 1000);
  signal.addEventListener("abort", () => clearInterval(timer));
  show((end - Date.now()) / 1000);

  function show(left) {
    shown.textContent = left > 0 ? fill(words.minutes, { minutes: Math.ceil(left / 60) }) : "";
    shown.classList.toggle("is-ending", left < ENDING);
    if (left <= 0) tell("expired");
    else if (left < ENDING && stopwatch.idle > AWAY) tell("ending");
  }

  function tell(what) {
    if (told === what) return;
    told = what;
    say("warning", words[what]);
  }

  async function extend() {
    asked = Date.now();
    // Without an answer the next beat tries again, and the countdown goes on.
    const answer = await ask(shown.dataset.heartbeat, { signal });
    if (answer.status === 409) end = Date.now();
    if (!answer.ok || !answer.body) return;
    end = Date.now() + answer.body.seconds_left * 1000;
    shown.dispatchEvent(new CustomEvent("lease-extended", { bubbles: true, detail: { end } }));
  }
}
