// What every page does: the theme's button, messages that close, words for a server that cannot be reached.

import { remember } from "/static/storage.js";

const root = document.documentElement;
const messages = document.getElementById("messages");
const place = document.getElementById("message");

/** Fills the {names} of a text. */
export function fill(text, values) {
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

/** Shows a message above the page, which screen readers announce: `text`, or that the server is out of reach. */
export function say(kind, text) {
  const message = messages.querySelector("template").content.firstElementChild.cloneNode(true);
  message.classList.add(`message-${kind}`);
  if (text) message.querySelector("p").textContent = text;
  place.replaceChildren(message);
}

function toggleTheme() {
  const isDark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
  remember("theme", root.dataset.theme);
}

document.addEventListener("click", (event) => {
  if (event.target.closest("[data-theme-toggle]")) toggleTheme();
  event.target.closest("[data-close]")?.closest(".message")?.remove();
});

document.addEventListener("htmx:error", () => say("error"));
