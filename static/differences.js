// What stands in only one of two responses? Highlighted as ranges, so that nothing in the page changes.

const NAME = "only-here"; // ::highlight(only-here) in content.css
// What the shortest way from one text to the other may cost: words taken out and put in, and, on a slow machine, time.
const LIMITS = { maxEditLength: 1_200, timeout: 150 };
const NOT_TEXT = "button, .code-language, [role=status]";

/** Whether this browser can highlight ranges and knows what a word is. */
export const canShowDifferences = Boolean(globalThis.CSS?.highlights && globalThis.Intl?.Segmenter);

/**
 * Highlights in two elements the words that only one of them has; formulas count as one word.
 *
 * Resolves to how they were compared: "in order", word after word; or, where the texts are so long and different that
 * this would take too long, "by occurrence": what is highlighted stands nowhere in the other.
 */
export async function showDifferences(first, second) {
  const { diffArrays } = await import("/static/vendor/diff/array.js");
  const sides = [wordsOf(first), wordsOf(second)];
  const texts = sides.map((words) => words.map((word) => word.text));
  const parts = fewestEdits(...texts) > LIMITS.maxEditLength ? undefined : diffArrays(...texts, LIMITS);
  const only = parts ? onlyInOrder(parts, sides) : onlyByOccurrence(sides);
  CSS.highlights.set(NAME, new Highlight(...only.flatMap(rangesOf)));
  return parts ? "in order" : "by occurrence";
}

/** Takes the highlights away. */
export function hideDifferences() {
  globalThis.CSS?.highlights?.delete(NAME);
}

function wordsOf(element) {
  const words = [];
  const segmenter = new Intl.Segmenter(element.closest("[lang]")?.lang, { granularity: "word" });
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT, (node) => {
    if (node.nodeType === Node.TEXT_NODE || node.matches(".math")) return NodeFilter.FILTER_ACCEPT;
    return node.matches(NOT_TEXT) ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_SKIP;
  });
  let node = walker.nextNode();
  while (node) {
    if (node.nodeType === Node.TEXT_NODE) {
      for (const { segment, index } of segmenter.segment(node.data)) {
        if (segment.trim()) words.push({ text: segment, node, start: index, end: index + segment.length });
      }
      node = walker.nextNode();
    } else {
      words.push({ text: node.dataset.typeset ?? node.textContent, node, start: 0, end: node.childNodes.length });
      node = after(walker, node);
    }
  }
  return words;
}

/** The next node that is not inside `formula`, whose parts are no words of their own. */
function after(walker, formula) {
  let node = walker.nextNode();
  while (node && formula.contains(node)) node = walker.nextNode();
  return node;
}

/** How many words at least must be taken out and put in: those that have no partner anywhere. */
function fewestEdits(first, second) {
  const left = new Map();
  for (const text of first) left.set(text, (left.get(text) ?? 0) + 1);
  let shared = 0;
  for (const text of second) {
    const count = left.get(text) ?? 0;
    if (count === 0) continue;
    left.set(text, count - 1);
    shared += 1;
  }
  return first.length + second.length - 2 * shared;
}

/** Words without a partner when both texts are read in order, per side. */
function onlyInOrder(parts, [first, second]) {
  const only = [[], []];
  let [atFirst, atSecond] = [0, 0];
  for (const { added, removed, count } of parts) {
    if (removed) only[0].push(...first.slice(atFirst, atFirst + count));
    if (added) only[1].push(...second.slice(atSecond, atSecond + count));
    if (!added) atFirst += count;
    if (!removed) atSecond += count;
  }
  return only;
}

function onlyByOccurrence(sides) {
  const known = sides.map((words) => new Set(words.map((word) => word.text)));
  return sides.map((words, side) => words.filter((word) => !known[1 - side].has(word.text)));
}

/** One range for neighbours in the same text node, the space between them included. */
function rangesOf(words) {
  const ranges = [];
  let last;
  for (const word of words) {
    const range = ranges.at(-1);
    const isNeighbour = last?.node === word.node && word.node.data?.slice(last.end, word.start).trim() === "";
    if (isNeighbour) range.setEnd(word.node, word.end);
    else ranges.push(newRange(word));
    last = word;
  }
  return ranges;
}

function newRange({ node, start, end }) {
  const range = new Range();
  range.setStart(node, start);
  range.setEnd(node, end);
  return range;
}
