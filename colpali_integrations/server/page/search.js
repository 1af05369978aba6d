// Asking a question, and the pages that answer it.
import { post } from "./api.js";
import { alarm, byId, counted, el, say } from "./dom.js";
import { pageFigure, wordButtons, wordColours } from "./figure.js";
import { openViewer } from "./viewer.js";

const FIRST = 12; // pages of an answer; "Show more pages" doubles them
const MOST = 192;
const WIDTHS = [400, 800];
const SIZES = "(max-width: 640px) 92vw, (max-width: 1000px) 45vw, 380px";

const state = { question: "", document: null, k: FIRST, shown: [], running: null };

/** Makes the form work; `documentOf` returns the document that is chosen in the list, or null. */
export function startSearch(documentOf) {
  const field = byId("question");
  const ask = () => search(field.value, documentOf());
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    if (matchMedia("(pointer: coarse)").matches) field.blur(); // closes the keyboard of a phone
    location.hash = field.value.trim() ? `q=${encodeURIComponent(field.value.trim())}` : "";
    ask();
  });
  byId("more").addEventListener("click", () => {
    state.k = Math.min(MOST, 2 * state.k);
    run({ more: true });
  });
  addEventListener("hashchange", () => {
    const question = questionOfAddress();
    if (question === state.question) return;
    field.value = question;
    ask();
  });
  addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, textarea, select, dialog");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      field.focus();
      field.select();
    } else if (event.key === "ArrowDown" && event.target === field) {
      const first = document.querySelector(".card .open");
      if (first) {
        event.preventDefault();
        first.focus();
      }
    } else if (event.target.classList?.contains("open")) moveFocus(event);
  });
  field.value = questionOfAddress();
  return ask;
}

/** Arrow keys go from one result to the next. */
function moveFocus(event) {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!step) return;
  const cards = [...document.querySelectorAll(".card .open")];
  const next = cards[cards.indexOf(event.target) + step];
  if (!next && step > 0) return;
  event.preventDefault();
  (next ?? byId("question")).focus();
}

function questionOfAddress() {
  try {
    return new URLSearchParams(location.hash.slice(1).replaceAll("+", "%2B")).get("q") ?? "";
  } catch {
    return "";
  }
}

export function search(question, document_id) {
  state.question = question.trim();
  state.document = document_id;
  state.k = FIRST;
  return run({ more: false });
}

/** Forgets the answer, such as after the index has lost a document of it. */
export const repeat = () => (state.question ? run({ more: false }) : undefined);

/** The question, its pages so far, and the colours of its words. */
export const current = () => ({ question: state.question, hits: state.shown, colours: wordColours(state.shown) });

export const hasQuestion = () => state.question !== "";

async function run({ more }) {
  state.running?.abort();
  const found = byId("found");
  if (!state.question) {
    state.shown = [];
    found.hidden = true;
    document.title = "Page search";
    dispatchEvent(new Event("answered"));
    return;
  }
  const running = new AbortController();
  state.running = running;
  found.setAttribute("aria-busy", "true");
  const body = { query: state.question, k: state.k, regions: true, text: true, pictures: true };
  if (state.document) body.filter = { $document: state.document.document_id };
  try {
    const answer = await post("v1/search", body, { signal: running.signal });
    show(answer, more);
  } catch (error) {
    if (error.name !== "AbortError" && error.status !== 401) alarm(error.message);
  } finally {
    if (state.running === running) {
      state.running = null;
      found.removeAttribute("aria-busy");
    }
  }
}

function show({ hits, doubtful }, more) {
  // A search returns as many pages as it may, also those with nothing of the question.
  const matching = hits.filter((hit) => hit.matches);
  const kept = more ? state.shown : [];
  const ids = new Set(kept.map((hit) => hit.id));
  const added = matching.filter((hit) => !ids.has(hit.id));
  state.shown = [...kept, ...added];
  const colours = wordColours(state.shown);
  const cards = added.map((hit, index) => card(hit, kept.length + index, colours, doubtful));
  const results = byId("results");
  if (more) {
    results.append(...cards);
    cards[0]?.querySelector(".open").focus();
  } else results.replaceChildren(...cards);
  byId("more").hidden = hits.length < state.k || state.k >= MOST || matching.length < hits.length;
  const where = state.document ? ` in ${state.document.name}` : "";
  const number = state.shown.length;
  let about = number ? `${counted(number, "page")}${where}, the best first` : `No page${where} has anything of it. Try other words.`;
  if (number && doubtful) about = `No page${where} seems to answer it. These are the closest; try other words.`;
  byId("found-title").textContent = state.question;
  byId("found-about").textContent = about;
  byId("found").hidden = false;
  document.title = `${state.question} · Page search`;
  say(about);
  dispatchEvent(new Event("answered"));
}

function card(hit, index, colours, doubtful) {
  const title = el("h2", { id: `card-${index}`, dir: "auto", title: hit.source ?? hit.name }, fileName(hit));
  const relevance = Math.round(100 * Math.min(1, Math.max(0, hit.relevance)));
  const bar = el("span", { className: "bar", "aria-hidden": "true" }, el("i"));
  bar.firstChild.style.width = `${relevance}%`;
  const numbers = el(
    "p",
    { className: "numbers" },
    hit.page === null ? null : el("span", {}, `Page ${hit.page}`),
    el("span", { title: "The share of the best match that a page could have" }, `Relevance ${relevance} %`),
    // The best score is high for any question: beside a page that seems to answer nothing it would mislead.
    doubtful ? null : el("span", { title: "The number by which pages are ranked" }, `Score ${hit.score.toFixed(2)}`),
  );
  const open = el("button", { type: "button", className: "open", "aria-label": `Open ${hit.name}` });
  open.addEventListener("click", () => openViewer(state.shown, index, state.question, colours));
  let words = null;
  if (hit.picture_error) {
    open.classList.add("plain");
    open.append(el("span", { className: "text", dir: "auto" }, excerpt(hit.text)));
    words = el("p", { className: "missing" }, hit.picture_error);
  } else {
    const figure = pageFigure(hit, state.question, colours, { widths: WIDTHS, sizes: SIZES, first: index === 0 });
    open.append(figure.element);
    words = wordButtons(hit, colours, figure.show);
  }
  return el("article", { className: "card", "aria-labelledby": title.id }, open, el("div", { className: "about" }, title, numbers, bar, words));
}

const fileName = (hit) => (hit.source ? hit.source.split(/[\\/]/).pop() || hit.source : hit.name);

const excerpt = (text) => (text.length > 600 ? `${text.slice(0, 600)}…` : text);
