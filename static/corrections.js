// What would have been better? Corrections below the responses, and a response written from nothing.

export class Corrections {
  constructor(desk) {
    this.all = [...desk.querySelectorAll("[data-correction]")];
    this.written = desk.querySelector("[data-written]");
    for (const correction of this.all) show(correction);
    // A draft may have come into the field after the page had been written.
    for (const correction of this.all.filter(isChanged)) correction.open = true;
    if (this.written?.querySelector("textarea").value.trim()) this.written.open = true;
  }

  /** Whether a correction must be made, and none is. */
  get isMissing() {
    if (this.written?.dataset.correctionAsked !== "required") return false;
    return !this.all.some(isChanged) && !this.written.querySelector("textarea").value.trim();
  }

  /** Notes that a field has changed. Returns whether its correction came or went. */
  changed(field) {
    const correction = field.closest("[data-correction]");
    return correction ? show(correction) : false;
  }

  restore(correction) {
    const field = correction.querySelector("textarea");
    field.value = original(field);
    show(correction);
    field.focus();
  }
}

/** Where the field came with a correction, its own text stands beside it. */
function original(field) {
  return field.dataset.original ?? field.defaultValue;
}

export function isChanged(correction) {
  const field = correction.querySelector("textarea");
  const text = field.value.trim();
  return text !== "" && text !== original(field).replaceAll("\r\n", "\n").trim();
}

function show(correction) {
  const mark = correction.querySelector("[data-changed]");
  const was = !mark.hidden;
  mark.hidden = !isChanged(correction);
  correction.querySelector("[data-restore]").hidden = mark.hidden;
  return was === mark.hidden;
}
