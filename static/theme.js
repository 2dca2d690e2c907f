// Runs before the first paint: what was chosen on this device, so that nothing flickers.
(() => {
  const root = document.documentElement;
  root.classList.add("has-script");
  try {
    const theme = localStorage.getItem("prefloop.theme");
    if (theme === "dark" || theme === "light") root.dataset.theme = theme;
    if (localStorage.getItem("prefloop.layout") === "stacked") root.dataset.layout = "stacked";
    if (localStorage.getItem("prefloop.panes") === "on") root.dataset.panes = "on";
    if (localStorage.getItem("prefloop.more") === "on") root.dataset.more = "on";
  } catch {
    // Storage is closed: the defaults hold.
  }
})();
