// Sets the theme before anything is drawn, so it is a script of its own and no module.
"use strict";
(() => {
  const names = { system: "as the system", light: "light", dark: "dark" };
  const order = Object.keys(names);
  let theme = "system";
  try {
    theme = localStorage.getItem("theme") ?? "system";
  } catch {
    // Storage may be forbidden; the choice lasts until the page is closed.
  }
  const show = () => {
    if (!order.includes(theme)) theme = "system";
    document.documentElement.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (button) {
      button.setAttribute("aria-label", `Theme: ${names[theme]}`);
      button.title = `Theme: ${names[theme]}`;
    }
  };
  show();
  addEventListener("DOMContentLoaded", () => {
    show();
    document.getElementById("theme").addEventListener("click", () => {
      theme = order[(order.indexOf(theme) + 1) % order.length];
      show();
      try {
        localStorage.setItem("theme", theme);
      } catch {
        // See above.
      }
    });
  });
})();
