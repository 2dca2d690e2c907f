// What does the server say? Requests of the page's scripts, with the session's token; every request gets an answer.

const PATIENCE = 30_000; // milliseconds, after which the server counts as out of reach
const KEEPALIVE = 60_000; // bytes: browsers let at most 64 kB outlive their page

let token = tokenIn(document);
let isSignedOut = false;

/** The answer to a request: {status, ok, body}. `body` is the JSON that came, else null; status 0 means that no answer came. */
export async function ask(address, { method = "POST", body, json, signal } = {}) {
  const sent = json === undefined ? body?.toString() : JSON.stringify(json);
  const headers = { "X-CSRF-Token": token, Accept: "application/json" };
  if (sent !== undefined) headers["Content-Type"] = json === undefined ? "application/x-www-form-urlencoded" : "application/json";
  const keepalive = new Blob([sent ?? ""]).size < KEEPALIVE;
  const until = AbortSignal.timeout(PATIENCE);
  try {
    const answer = await fetch(address, { method, headers, body: sent, keepalive, signal: signal ? AbortSignal.any([signal, until]) : until });
    if (answer.ok) note(false);
    if (answer.status === 401) note(true);
    return { status: answer.status, ok: answer.ok, body: await answer.json().catch(() => null) };
  } catch {
    return { status: 0, ok: false, body: null };
  }
}

/** The member's desk at an address, not in the page yet. {desk}; {elsewhere} where the server leads to another page; else {}. */
export async function fetchDesk(address, member, signal) {
  const until = AbortSignal.timeout(PATIENCE);
  try {
    const answer = await fetch(address, { headers: { "HX-Request": "true" }, signal: signal ? AbortSignal.any([signal, until]) : until });
    if (answer.status === 401) note(true);
    if (!answer.ok) return {};
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const desk = page.querySelector("ranking-desk");
    if (!desk) return { elsewhere: true };
    // Somebody else signed in here meanwhile: what is theirs is not shown.
    note(desk.dataset.member !== member);
    if (desk.dataset.member !== member) return {};
    token = tokenIn(page) ?? token;
    return { desk: document.adoptNode(desk) };
  } catch {
    return {};
  }
}

/**
 * Whether the page at `address` is still this member's: "renewed" where it brought a token that we did not have,
 * "same" where ours is the one, "other" where somebody else or nobody is signed in, "away" without an answer.
 */
export async function renewToken(address, member) {
  const before = token;
  try {
    const answer = await fetch(address, { headers: { "HX-Request": "true" }, signal: AbortSignal.timeout(PATIENCE) });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const isOurs = page.querySelector("ranking-desk")?.dataset.member === member;
    note(!isOurs);
    if (!isOurs) return "other";
    token = tokenIn(page) ?? token;
    return token === before ? "same" : "renewed";
  } catch {
    return "away";
  }
}

/** Whether the session has ended, as far as is known. The document hears of a change: "session-change". */
export function signedOut() {
  return isSignedOut;
}

function note(ended) {
  if (isSignedOut === ended) return;
  isSignedOut = ended;
  document.dispatchEvent(new Event("session-change"));
}

function tokenIn(page) {
  return page.querySelector("input[name=csrf]")?.value;
}
