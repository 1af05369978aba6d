// The picture of a page with boxes around the words of the question, and the heatmap of a word over it.
import { pageAddress } from "./api.js";
import { el } from "./dom.js";

const COLOURS = 8; // classes c0 to c7 of the style

/** The words that the pages have, each with a number for its colour. */
export function wordColours(hits) {
  const words = new Map();
  for (const hit of hits) {
    for (const region of hit.regions ?? []) {
      if (region.token !== null && !words.has(region.token)) words.set(region.token, words.size % COLOURS);
    }
  }
  return words;
}

/** The words of one page with their best score, the best first. */
export function wordsOf(hit) {
  const best = new Map();
  for (const { token, score } of hit.regions ?? []) {
    if (token !== null) best.set(token, Math.max(score, best.get(token) ?? score));
  }
  return [...best].sort((one, other) => other[1] - one[1]);
}

const picture = (hit, width) => pageAddress(hit.id, "image", { width, format: "jpeg" });

/**
 * A figure, with `show(word)` for the heatmap of a word ("" for all words, null for none).
 * `widths` are those of the pictures that the browser may choose from, and `sizes` says how large it is shown.
 */
export function pageFigure(hit, question, colours, { widths, sizes, first = false }) {
  const { width, height } = hit.metadata;
  const figure = el("div", { className: "page" });
  if (width > 0 && height > 0) {
    figure.style.aspectRatio = `${width} / ${height}`; // nothing moves when the picture comes
    figure.style.setProperty("--ratio", width / height);
  }
  const image = el("img", { className: "sheet", alt: hit.name, decoding: "async", draggable: false });
  image.loading = first ? "eager" : "lazy";
  image.fetchPriority = first ? "high" : "auto";
  image.addEventListener("load", () => figure.classList.add("loaded"));
  image.addEventListener("error", () => figure.replaceChildren(el("p", { className: "missing" }, "The picture cannot be drawn: the file has been moved or changed since it was indexed.")));
  image.sizes = sizes;
  image.srcset = widths.map((one) => `${picture(hit, one)} ${one}w`).join(", ");
  image.src = picture(hit, widths[0]);
  figure.append(image);
  const boxes = (hit.regions ?? []).map((region) => box(region, colours, show));
  figure.append(...boxes);

  const heats = new Map();
  function show(word) {
    for (const one of boxes) one.classList.toggle("dim", Boolean(word) && one.dataset.word !== word);
    for (const [key, layer] of heats) layer.classList.toggle("shown", key === word);
    if (word === null || heats.has(word)) return;
    const query = word === "" ? { query: question } : { query: question, word };
    const layer = el("img", { className: "heat", alt: "", "aria-hidden": "true", draggable: false });
    layer.addEventListener("error", () => layer.remove());
    layer.src = pageAddress(hit.id, "heatmap", query);
    layer.classList.add("shown");
    heats.set(word, layer);
    image.after(layer);
  }
  return { element: figure, show };
}

function box({ token, box: [left, top, right, bottom], score }, colours, show) {
  const label = el("span", { className: "tip", dir: "auto" }, (token ?? "match").trim());
  const element = el("span", { className: "box", "aria-hidden": "true", dataset: { word: token ?? "", score: score.toFixed(2) } }, label);
  element.classList.add(`c${colours.get(token) ?? 0}`);
  if (top < 0.08) element.classList.add("below");
  if (left > 0.6) element.classList.add("leftward");
  Object.assign(element.style, {
    left: `${100 * left}%`,
    top: `${100 * top}%`,
    width: `${100 * (right - left)}%`,
    height: `${100 * (bottom - top)}%`,
  });
  element.addEventListener("pointerenter", () => show(token ?? ""));
  element.addEventListener("pointerleave", () => show(null));
  return element;
}

/** Buttons for the words of a page: hovering or focusing one shows its heatmap, pressing one keeps it. */
export function wordButtons(hit, colours, show) {
  const words = wordsOf(hit);
  if (!words.length) return null;
  let kept = null;
  const buttons = [];
  const button = (word, name, colour) => {
    const dot = colour === undefined ? null : el("i", { className: `dot c${colour}` });
    const one = el("button", { type: "button", className: "word", "aria-pressed": "false" }, dot, el("bdi", {}, name));
    one.addEventListener("pointerenter", () => show(word));
    one.addEventListener("pointerleave", () => show(kept));
    one.addEventListener("focus", () => show(word));
    one.addEventListener("blur", () => show(kept));
    one.addEventListener("click", () => {
      kept = kept === word ? null : word;
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === one && kept !== null));
      show(kept);
    });
    buttons.push(one);
  };
  for (const [word, score] of words) {
    button(word, word.trim(), colours.get(word));
    buttons.at(-1).title = `Match ${score.toFixed(2)}`;
  }
  if (words.length > 1) button("", "all words");
  return el("div", { className: "words", role: "group", "aria-label": "Where the words match" }, ...buttons);
}
