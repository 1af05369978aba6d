// One page, large: arrow keys go to the other results, Escape closes.
import { byId, el, say } from "./dom.js";
import { pageFigure, wordButtons } from "./figure.js";

const WIDTHS = [800, 1200, 1800];
const view = { hits: [], index: 0, question: "", colours: new Map() };

export function openViewer(hits, index, question, colours) {
  Object.assign(view, { hits, index, question, colours });
  zoom(false);
  draw();
  const dialog = byId("viewer");
  if (!dialog.open) dialog.showModal();
  byId("viewer-page").focus();
}

export function startViewer() {
  const dialog = byId("viewer");
  byId("viewer-close").addEventListener("click", () => dialog.close());
  byId("viewer-back").addEventListener("click", () => go(-1));
  byId("viewer-next").addEventListener("click", () => go(1));
  byId("viewer-zoom").addEventListener("click", () => zoom(byId("viewer-zoom").getAttribute("aria-pressed") !== "true"));
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside the page
  });
  dialog.addEventListener("close", () => {
    byId("viewer-page").replaceChildren();
    byId("viewer-foot").replaceChildren();
    document.querySelectorAll(".card .open")[view.index]?.focus();
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowLeft") go(-1);
    else if (event.key === "ArrowRight") go(1);
    else if (event.key === "z") byId("viewer-zoom").click();
    else return;
    event.preventDefault();
  });
}

function go(step) {
  const next = view.index + step;
  if (next < 0 || next >= view.hits.length) return;
  view.index = next;
  draw();
}

function zoom(on) {
  byId("viewer-zoom").setAttribute("aria-pressed", String(on));
  byId("viewer").classList.toggle("filled", on);
}

function draw() {
  const hit = view.hits[view.index];
  const place = `${view.index + 1} of ${view.hits.length}`;
  byId("viewer-title").textContent = hit.name;
  byId("viewer-place").textContent = place;
  byId("viewer-back").disabled = view.index === 0;
  byId("viewer-next").disabled = view.index === view.hits.length - 1;
  const page = byId("viewer-page");
  const foot = [];
  if (hit.picture_error) page.replaceChildren(el("p", { className: "missing" }, hit.picture_error), text(hit.text));
  else {
    const sizes = "(max-width: 1240px) 100vw, 1200px";
    const figure = pageFigure(hit, view.question, view.colours, { widths: WIDTHS, sizes, first: true });
    page.replaceChildren(figure.element);
    const words = wordButtons(hit, view.colours, figure.show);
    if (words) foot.push(words);
    if (hit.text && hit.text !== hit.name) foot.push(el("details", {}, el("summary", {}, "Text of the page"), text(hit.text)));
  }
  page.scrollTo(0, 0);
  page.setAttribute("aria-label", hit.name);
  byId("viewer-foot").replaceChildren(...foot);
  say(`${hit.name}, result ${place}`);
}

const text = (content) => el("p", { className: "text", dir: "auto" }, content);
