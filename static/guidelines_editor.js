// The guidelines' editor: typesets what the preview shows, and puts a worked example into the text.

import { enliven } from "/static/content.js";

const pane = document.querySelector(".preview-pane");
const words = { copy: pane.dataset.copyWord, copied: pane.dataset.copiedWord };
const text = document.querySelector("textarea[name=guidelines]");

enliven(pane, words);
document.addEventListener("htmx:after:swap", () => enliven(pane, words));

document.querySelector("[data-insert]").addEventListener("click", () => {
  const example = document.querySelector("[data-example]").textContent;
  const before = text.value.trimEnd();
  text.value = `${before}${before && "\n\n"}${example}\n`;
  text.dispatchEvent(new Event("input", { bubbles: true }));
  text.focus();
  text.scrollTop = text.scrollHeight;
});
