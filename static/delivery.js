// What became of the answers that are on their way? Lines on the desk: what waits, what was refused, who is signed out.

import { fill } from "/static/page.js";
import { signedOut } from "/static/server.js";

export function showDelivery(desk, outbox, words, signal) {
  const place = document.createElement("div");
  const waiting = add(place, "p", { className: "quiet", role: "status" });
  const others = add(place, "div", { role: "alert" });
  const status = desk.querySelector(".desk-status");
  if (status) status.after(place);
  else desk.prepend(place);
  const show = () => {
    desk.dataset.unsent = outbox.waiting.length;
    waiting.textContent = outbox.isStuck ? inNumbers(words.waiting, outbox.waiting.length) : "";
    if (outbox.unkept.size > 0) waiting.textContent += ` ${words.unkept}`;
    const lines = outbox.refused.map((entry) => refusedLine(outbox, entry, words));
    if (signedOut()) lines.push(signedOutLine(desk, words));
    // Said again only where something is new.
    if (lines.map((line) => line.textContent).join() !== others.textContent || lines.length === 0) others.replaceChildren(...lines);
  };
  outbox.addEventListener("change", show, { signal });
  document.addEventListener("session-change", show, { signal });
  document.addEventListener("submit", (event) => beforeSignOut(event, outbox, words), { signal });
  show();
}

function refusedLine(outbox, entry, words) {
  const line = Object.assign(document.createElement("p"), { className: "notice notice-error" });
  line.append(fill(words.refused, { reason: entry.refused || words.no_reason }), " ");
  const open = add(line, "a", { href: entry.action.replace(/\/[^/]*$/, ""), textContent: words.refused_open });
  open.after(" ");
  const letGo = add(line, "button", { type: "button", className: "link-button", textContent: words.refused_drop });
  letGo.addEventListener("click", () => outbox.letGo(entry));
  return line;
}

function signedOutLine(desk, words) {
  const line = Object.assign(document.createElement("p"), { className: "notice notice-warning" });
  line.append(words.signed_out, " ");
  const href = `/sign-in?next=${encodeURIComponent(desk.dataset.desk)}`;
  add(line, "a", { href, target: "_blank", textContent: words.sign_in });
  return line;
}

/** What waits is sent before the session ends; where that fails, one is asked. */
async function beforeSignOut(event, outbox, words) {
  const form = event.target;
  if (form.getAttribute("action") !== "/sign-out" || outbox.waiting.length === 0) return;
  event.preventDefault();
  await outbox.flush();
  const { length } = outbox.waiting;
  if (length === 0 || confirm(inNumbers(words.sign_out, length))) form.submit();
}

function inNumbers(forms, count) {
  const form = new Intl.PluralRules(document.documentElement.lang).select(count);
  return fill(forms[form] ?? forms.other, { count });
}

function add(parent, tag, properties) {
  return parent.appendChild(Object.assign(document.createElement(tag), properties));
}
