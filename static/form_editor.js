// The judgement form's editor: the preview in the frame follows what is chosen.

import { say } from "/static/page.js";

const PAUSE = 300; // milliseconds without a change before the preview is asked for
const frame = document.querySelector("iframe[name=preview]");
let waiting;
let asking;

/** Asks for the desk as the form stands and puts it into the frame, whose own page stays: so Back goes where one came from. */
async function show() {
  asking?.abort();
  asking = new AbortController();
  const { signal } = asking;
  try {
    const body = new FormData(document.getElementById("editor"));
    const answer = await fetch(frame.dataset.address, { method: "POST", body, headers: { "HX-Request": "true" }, signal });
    if (!answer.ok && answer.status !== 422) throw new Error(answer.statusText);
    const html = await answer.text();
    if (!signal.aborted) swap(html);
  } catch (error) {
    if (error.name !== "AbortError") say("error");
  }
}

function swap(html) {
  const { contentDocument: page, contentWindow: inside } = frame;
  const old = page.getElementById("preview");
  const at = inside.scrollY;
  old.outerHTML = html;
  inside.htmx.process(page.getElementById("preview"));
  inside.scrollTo(0, at);
}

function later() {
  clearTimeout(waiting);
  waiting = setTimeout(show, PAUSE);
}

document.addEventListener("input", (event) => {
  if (event.target.form?.id === "editor") later();
});
document.addEventListener("htmx:after:swap", later);
document.querySelector("[data-phone]").addEventListener("change", (event) => {
  frame.classList.toggle("is-phone", event.target.checked);
});

// A browser that comes back to this page fills in what was typed: the preview shall show the same.
if (frame.contentDocument.readyState === "complete" && frame.contentDocument.getElementById("preview")) later();
else frame.addEventListener("load", later, { once: true });

// The theme's button is outside the frame.
new MutationObserver(() => {
  const { theme } = document.documentElement.dataset;
  if (theme) frame.contentDocument.documentElement.dataset.theme = theme;
}).observe(document.documentElement, { attributeFilter: ["data-theme"] });
