// What the admin pages do beside htmx: count ticked rows, copy a secret that is shown once, ask before an end.

// --- Rows that are ticked ---

function countTicked(form) {
  const boxes = [...form.querySelectorAll('input[name="ids"]')];
  const ticked = boxes.filter((box) => box.checked).length;
  const all = form.querySelector("[data-tick-all]");
  if (all) {
    all.hidden = false;
    all.checked = ticked > 0 && ticked === boxes.length;
    all.indeterminate = ticked > 0 && ticked < boxes.length;
  }
  const output = form.querySelector("[data-ticked]");
  if (output) output.textContent = `${ticked} ${output.dataset.ticked}`;
}

document.addEventListener("change", (event) => {
  const form = event.target.closest("form[data-bulk]");
  if (!form) return;
  if (event.target.matches("[data-tick-all]")) {
    for (const box of form.querySelectorAll('input[name="ids"]')) box.checked = event.target.checked;
  }
  countTicked(form);
});

function prepare() {
  for (const form of document.querySelectorAll("form[data-bulk]")) countTicked(form);
  for (const button of document.querySelectorAll("[data-copy]")) button.hidden = !navigator.clipboard;
}
document.addEventListener("htmx:after:swap", prepare);
prepare();

// On a phone the sections scroll sideways: the one where we are should be in sight.
document.querySelector(".admin-nav [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });

// --- Secrets, ends, uploads ---

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const field = button.parentElement.querySelector("input");
  field.select();
  await navigator.clipboard.writeText(field.value);
  button.textContent = button.dataset.copy;
});

document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !window.confirm(question)) event.preventDefault();
});

document.addEventListener("change", (event) => {
  const form = event.target.closest("form[data-largest-mb]");
  if (!form || event.target.type !== "file") return;
  const file = event.target.files[0];
  const isTooLarge = Boolean(file) && file.size > Number(form.dataset.largestMb) * 1e6;
  form.querySelector("[data-too-large]").hidden = !isTooLarge;
  form.querySelector("button").disabled = isTooLarge;
});
