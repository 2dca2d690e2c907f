// Long answers side by side: scrolling one scrolls the others, each by the same share of its length.

/** Ties the scroll boxes `panes` until `signal` aborts or the function that it returns is called. */
export function syncScrolling(panes, signal) {
  const ending = new AbortController();
  signal?.addEventListener("abort", () => ending.abort(), { signal: ending.signal });
  // Where we put a pane ourselves: the event that follows is an echo and moves nobody.
  const placed = new Map();

  function follow(event) {
    const led = event.currentTarget;
    if (isEcho(led)) return;
    const range = led.scrollHeight - led.clientHeight;
    if (range <= 0) return;
    const share = led.scrollTop / range;
    for (const pane of panes) if (pane !== led) place(pane, share);
  }

  function isEcho(pane) {
    const expected = placed.get(pane);
    placed.delete(pane);
    return expected !== undefined && Math.abs(pane.scrollTop - expected) < 1;
  }

  function place(pane, share) {
    const top = share * (pane.scrollHeight - pane.clientHeight);
    if (Math.abs(pane.scrollTop - top) < 1) return;
    pane.scrollTo({ top, behavior: "instant" });
    placed.set(pane, pane.scrollTop);
  }

  for (const pane of panes) pane.addEventListener("scroll", follow, { passive: true, signal: ending.signal });
  return () => ending.abort();
}
