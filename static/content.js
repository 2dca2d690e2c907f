// What people and models wrote: typesets its math, and lets its code be copied.

const KATEX = "/static/vendor/katex/katex.min";
const SETTINGS = { errorColor: "var(--on-error)", trust: false, strict: "ignore", maxExpand: 1000, maxSize: 10 };
const LONGEST_TEX = 10_000; // characters; a longer formula stays source
const SLICE = 40; // milliseconds of typesetting between two paints
const SLICE_AHEAD = 6; // milliseconds, where nobody waits for it: a key pressed meanwhile comes first

/** Resolves when there is nothing better to do. */
export function idle() {
  return new Promise((resolve) => (globalThis.requestIdleCallback ?? setTimeout)(resolve, { timeout: 1000 }));
}

/**
 * Call once for every piece of page that came in. `words` has `copy` and `copied`. Resolves when all math is typeset,
 * bit by bit in idle moments where the piece `isAhead` of being shown.
 */
export async function enliven(root, words, isAhead = false) {
  for (const block of root.querySelectorAll(".prose .code")) addCopyButton(block, words);
  const math = [...root.querySelectorAll(".math:not([data-typeset])")];
  if (math.length === 0) return;
  // Without a pause where KaTeX is there already, so that the first paint has the final heights.
  if (globalThis.katex || (await loadKatex())) await typeset(math, isAhead);
}

// --- Math ---

let loading = null;

/**
 * KaTeX, its style sheet and the two fonts that nearly every formula needs: with them lines do not move twice.
 * Resolves to whether it came; where it did not, the source stays in sight, and the next comparison tries again.
 */
function loadKatex() {
  loading ??= Promise.all([import(`${KATEX}.js`), loadStyle(import.meta.resolve(`${KATEX}.css`)).then(loadFonts)]).then(
    () => true,
    () => {
      loading = null;
      return false;
    },
  );
  return loading;
}

function loadStyle(address) {
  const link = Object.assign(document.createElement("link"), { rel: "stylesheet", href: address });
  return new Promise((resolve, reject) => {
    link.addEventListener("load", resolve);
    link.addEventListener("error", () => reject(new Error(`${address} did not load`)));
    document.head.append(link);
  });
}

function loadFonts() {
  return Promise.allSettled(["1em KaTeX_Main", "italic 1em KaTeX_Math"].map((font) => document.fonts.load(font)));
}

async function typeset(elements, isAhead) {
  const slice = isAhead ? SLICE_AHEAD : SLICE;
  let pause = performance.now() + slice;
  for (const element of elements) {
    if (performance.now() > pause) {
      await (isAhead ? idle() : new Promise(requestAnimationFrame));
      pause = performance.now() + slice;
    }
    typesetOne(element);
  }
  watchWidths(elements);
}

function typesetOne(element) {
  // A comparison that is shown while it is still being typeset ahead of time is enlivened twice.
  if ("typeset" in element.dataset) return;
  const tex = element.textContent;
  element.dataset.typeset = tex;
  if (tex.length > LONGEST_TEX) return;
  Element.prototype.setAttribute = setStyleOrAttribute;
  try {
    globalThis.katex.render(tex, element, { ...SETTINGS, displayMode: element.dataset.texMode === "display" });
  } catch (error) {
    element.textContent = tex; // what KaTeX cannot read is shown as it was written
    element.classList.add("is-wrong");
    element.title = error.message;
  } finally {
    Element.prototype.setAttribute = setAttribute;
  }
}

const { setAttribute } = Element.prototype;

/** KaTeX gives arrows and boxes their style as an attribute, which our pages forbid; by way of the style object it may. */
function setStyleOrAttribute(name, value) {
  if (name === "style") this.style.cssText = value;
  else setAttribute.call(this, name, value);
}

/**
 * Formulas wider than their column scroll by themselves, also by keyboard. They are measured when they come near the
 * window, after they were painted, and again when their column changes its width: a long text is never laid out whole.
 */
function watchWidths(elements) {
  for (const element of elements) {
    // What is not measured yet may be wide: keys reach it all the same.
    if (element.dataset.texMode === "display") element.tabIndex = 0;
    near.observe(element);
  }
  for (const column of new Set(elements.map((element) => element.closest(".prose")))) {
    if (column) resized.observe(column);
  }
}

const near = new IntersectionObserver(
  (entries) => fit(entries.filter(({ isIntersecting }) => isIntersecting).map(({ target }) => target)),
  { rootMargin: "50%" },
);

const widths = new WeakMap();

const resized = new ResizeObserver((entries) => {
  for (const { target: column, contentRect } of entries) {
    const before = widths.get(column);
    widths.set(column, contentRect.width);
    if (before === undefined || before === contentRect.width) continue;
    for (const element of column.querySelectorAll(".math")) {
      // What is observed anew is told of anew.
      near.unobserve(element);
      near.observe(element);
    }
  }
});

/** All is read before all is written, so that the page is laid out once. */
function fit(elements) {
  for (const element of elements) element.classList.remove("is-wide");
  const areWide = elements.map(isWide);
  for (const [index, element] of elements.entries()) {
    element.classList.toggle("is-wide", areWide[index]);
    if (areWide[index]) element.tabIndex = 0;
    else element.removeAttribute("tabindex");
  }
}

function isWide(element) {
  const column = element.parentElement.closest("p, li, td, th, blockquote, h1, h2, h3, h4, h5, h6, .prose");
  if (!column) return false;
  const { left, right } = column.getBoundingClientRect();
  const boxes = [...element.querySelectorAll(".katex-base")].map((box) => box.getBoundingClientRect());
  return boxes.some((box) => box.left < left - 1 || box.right > right + 1);
}

// --- Code ---

function addCopyButton(block, words) {
  if (block.querySelector("button")) return;
  const button = Object.assign(document.createElement("button"), { type: "button", className: "copy-button", textContent: words.copy });
  const status = Object.assign(document.createElement("span"), { className: "visually-hidden" });
  status.setAttribute("role", "status");
  button.addEventListener("click", async () => {
    await copy(block.querySelector("pre"));
    button.textContent = status.textContent = words.copied;
    setTimeout(() => {
      button.textContent = words.copy;
      status.textContent = "";
    }, 2000);
  });
  block.append(button, status);
}

/** The clipboard is there over HTTPS and on this machine; elsewhere the selection does it. */
async function copy(code) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(code.textContent);
    return;
  }
  getSelection().selectAllChildren(code);
  document.execCommand("copy");
}
