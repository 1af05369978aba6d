// Making elements. Texts of pages, names of files and messages become text nodes, never markup.

export const byId = (id) => document.getElementById(id);

/** An element with properties, attributes (those with a dash), listeners ("onclick") and children. */
export function el(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key.includes("-") || key === "role") element.setAttribute(key, value);
    else if (key === "dataset") Object.assign(element.dataset, value);
    else element[key] = value;
  }
  element.append(...children.filter((child) => child !== undefined && child !== null));
  return element;
}

export const icon = (name) => el("span", { className: `icon ${name}`, "aria-hidden": "true" });

/** "1 page", "1,200 pages". */
export const counted = (number, one) => `${number.toLocaleString("en")} ${one}${number === 1 ? "" : "s"}`;

/** Tells screen readers what has changed. */
export function say(text) {
  byId("status").textContent = text;
}

/** Shows an error until the reader closes it. */
export function alarm(text) {
  const close = el("button", { type: "button", onclick: () => note.remove(), "aria-label": "Close this message" }, icon("close"));
  const note = el("div", { className: "alert" }, el("p", {}, text), close);
  const alerts = byId("alerts");
  alerts.append(note);
  while (alerts.children.length > 4) alerts.firstChild.remove();
}
