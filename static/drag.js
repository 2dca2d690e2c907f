// How is a response dragged into the ranking? By mouse, pen or touch, from anything with data-drag.

const THRESHOLD = 6; // pixels, below which it is a click
const EDGE = 60; // pixels from the window's edge, within which the page scrolls
const STEP = 12; // pixels a frame

/**
 * Lets `[data-drag]` inside `root` be dropped on `[data-drop]`.
 * `drop(number, target)` is called with the dragged number and the element it was dropped on.
 */
export function makeDraggable(root, drop) {
  let drag = null;

  root.addEventListener("pointerdown", (event) => {
    const handle = event.target.closest("[data-drag]");
    if (!handle || event.button !== 0 || drag) return;
    drag = { handle, number: Number(handle.dataset.drag), id: event.pointerId, x: event.clientX, y: event.clientY };
    handle.setPointerCapture(event.pointerId);
  });

  root.addEventListener("pointermove", (event) => {
    if (event.pointerId !== drag?.id) return;
    if (!drag.ghost && Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < THRESHOLD) return;
    if (!drag.ghost) begin(drag);
    [drag.x, drag.y] = [event.clientX, event.clientY];
    drag.ghost.style.translate = `${drag.x}px ${drag.y}px`;
    mark(targetAt(drag));
  });

  root.addEventListener("pointerup", (event) => {
    if (event.pointerId !== drag?.id) return;
    const { ghost, number } = drag;
    const target = ghost && targetAt(drag);
    // The click that follows a drag means nothing.
    if (ghost) root.addEventListener("click", swallow, { capture: true, once: true });
    setTimeout(() => root.removeEventListener("click", swallow, { capture: true }));
    end();
    if (target) drop(number, target);
  });

  root.addEventListener("pointercancel", end);
  root.addEventListener("lostpointercapture", () => setTimeout(end));
  const escape = (event) => {
    if (event.key !== "Escape" || !drag?.ghost) return;
    event.stopImmediatePropagation();
    end();
  };
  document.addEventListener("keydown", escape, { capture: true });

  function begin(started) {
    started.ghost = document.createElement("div");
    started.ghost.className = "ghost chip";
    started.ghost.textContent = started.number;
    document.body.append(started.ghost);
    root.classList.add("is-dragging");
    started.frame = requestAnimationFrame(function scroll() {
      if (started.y < EDGE + 50) scrollBy(0, -STEP);
      started.frame = requestAnimationFrame(scroll);
    });
  }

  function targetAt({ x, y }) {
    const target = document.elementFromPoint(x, y)?.closest("[data-drop]");
    return target && root.contains(target) ? target : null;
  }

  function mark(target) {
    for (const marked of root.querySelectorAll(".is-target")) {
      if (marked !== target) marked.classList.remove("is-target");
    }
    target?.classList.add("is-target");
  }

  function end() {
    if (!drag) return;
    cancelAnimationFrame(drag.frame);
    drag.ghost?.remove();
    drag = null;
    mark(null);
    root.classList.remove("is-dragging");
  }

  return () => {
    end();
    document.removeEventListener("keydown", escape, { capture: true });
  };
}

function swallow(event) {
  event.preventDefault();
  event.stopPropagation();
}
