// Loaded before the body so that a stored choice never flashes. No choice: as the system has it.
"use strict";
(() => {
  const ORDER = ["auto", "light", "dark"];
  const NAMES = { auto: "Theme: system", light: "Theme: light", dark: "Theme: dark" };
  const root = document.documentElement;
  const stored = () => {
    try { return ORDER.includes(localStorage.getItem("stepdown-theme")) ? localStorage.getItem("stepdown-theme") : "auto"; } catch { return "auto"; }
  };
  let theme = stored();
  const show = () => {
    if (theme === "auto") root.removeAttribute("data-theme"); else root.setAttribute("data-theme", theme);
    const button = document.getElementById("theme");
    if (button) button.textContent = NAMES[theme];
    document.dispatchEvent(new Event("themechange"));
  };
  show();
  document.addEventListener("DOMContentLoaded", () => {
    show();
    document.getElementById("theme").addEventListener("click", () => {
      theme = ORDER[(ORDER.indexOf(theme) + 1) % ORDER.length];
      try { localStorage.setItem("stepdown-theme", theme); } catch { /* a private window forgets it */ }
      show();
    });
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
})();
