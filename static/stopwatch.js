// How long was somebody in front of it? Time while the page is visible, without the idle stretches.

const IDLE = 60_000; // milliseconds without a sign of life that still count as reading
const SIGNS = ["keydown", "pointermove", "pointerdown", "wheel", "scroll", "touchmove"];

export class Stopwatch {
  constructor(seconds, signal) {
    this.counted = seconds * 1000;
    this.last = performance.now();
    for (const sign of SIGNS) document.addEventListener(sign, () => this.tick(), { passive: true, capture: true, signal });
    document.addEventListener("visibilitychange", () => this.tick(document.hidden), { signal });
  }

  /** Counts the time since the last sign of life, unless the page was hidden meanwhile. */
  tick(wasVisible = !document.hidden) {
    const now = performance.now();
    if (wasVisible) this.counted += Math.min(now - this.last, IDLE);
    this.last = now;
  }

  /** Milliseconds since the last sign of life. */
  get idle() {
    return performance.now() - this.last;
  }

  get seconds() {
    const running = document.hidden ? 0 : Math.min(this.idle, IDLE);
    return (this.counted + running) / 1000;
  }
}
