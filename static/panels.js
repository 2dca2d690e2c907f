// What opens beside the work and closes again? Guidelines, the sheet of keys, menus, the reasons to skip.

import { recall, remember } from "/static/storage.js";

const OPENED = "dialog[open], details.menu[open], details.skip[open]";

export class Panels {
  constructor(desk, signal) {
    this.desk = desk;
    this.returnTo = null;
    const text = desk.querySelector("#guidelines [data-panel-text]");
    text?.addEventListener("scroll", () => remember("guidelines", text.scrollTop), { passive: true, signal });
    // A menu closes when one clicks beside it.
    desk.addEventListener("click", (event) => {
      for (const menu of desk.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
    }, { signal });
  }

  /** What Escape closes: the innermost that is open. */
  get opened() {
    return document.activeElement.closest(OPENED) ?? this.desk.querySelector(OPENED);
  }

  get isModal() {
    return this.desk.querySelector("dialog:modal") !== null;
  }

  toggle(id) {
    const dialog = this.desk.querySelector(`#${id}`);
    if (!dialog) return;
    if (dialog.open) this.close(dialog);
    else if (id === "keys") dialog.showModal();
    else this.openGuidelines(dialog);
  }

  openGuidelines(dialog) {
    this.returnTo = document.activeElement;
    dialog.show();
    const text = dialog.querySelector("[data-panel-text]");
    text.scrollTop = Number(recall("guidelines"));
    // Not the button that closes it: Enter shall go on submitting.
    text.focus({ preventScroll: true });
  }

  /** Opens a menu or the reasons to skip, and puts the focus on `first` in it. */
  unfold(details, first) {
    this.returnTo = document.activeElement;
    details.open = true;
    details.querySelector(first).focus({ preventScroll: true });
  }

  close(opened) {
    const hadFocus = opened.contains(document.activeElement);
    if (opened.matches("dialog")) opened.close();
    else opened.open = false;
    if (!hadFocus) return;
    const back = this.returnTo?.isConnected && this.returnTo !== document.body ? this.returnTo : opened.closest(".response");
    (back ?? this.desk.querySelector("[data-start]")).focus({ preventScroll: true });
    this.returnTo = null;
  }
}
