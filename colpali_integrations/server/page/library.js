// The documents of the index: choosing one limits the search to it, and each can be deleted.
import { get, remove } from "./api.js";
import { alarm, byId, counted, el, icon, say } from "./dom.js";

const state = { documents: [], chosen: null, onChoice: () => {}, onChange: () => {} };

export const chosenDocument = () => state.documents.find((one) => one.document_id === state.chosen) ?? null;

/** `onChoice` is called when another document is chosen, `onChange` when the list has changed. */
export function startLibrary({ onChoice, onChange }) {
  Object.assign(state, { onChoice, onChange });
  const narrow = matchMedia("(max-width: 1000px)");
  const fit = () => {
    byId("library").open = !narrow.matches; // beside the results there is room for the list
  };
  narrow.addEventListener("change", fit);
  fit();
}

/** All documents: the server lists them piece by piece. */
async function all() {
  const documents = [];
  for (let cursor = ""; cursor !== null; ) {
    const part = await get(`v1/documents${cursor && `?cursor=${encodeURIComponent(cursor)}`}`);
    documents.push(...part.documents);
    cursor = part.next_cursor;
  }
  return documents;
}

export async function refresh() {
  try {
    state.documents = await all();
  } catch (error) {
    if (error.status !== 401) alarm(error.message);
    return;
  }
  const lost = state.chosen !== null && !chosenDocument();
  if (lost) state.chosen = null;
  draw();
  state.onChange(state.documents);
  if (lost) state.onChoice();
}

function draw() {
  const total = state.documents.reduce((sum, one) => sum + one.pages, 0);
  byId("document-count").textContent = state.documents.length ? String(state.documents.length) : "";
  byId("library").hidden = !state.documents.length;
  const every = entry(null, "All documents", total);
  const others = [...state.documents].sort((one, other) => one.name.localeCompare(other.name)).map((one) => entry(one, one.name, one.pages));
  byId("document-list").replaceChildren(...(others.length ? [every, ...others] : []));
}

function entry(document_, name, pages) {
  const id = document_?.document_id ?? null;
  const choose = el(
    "button",
    { type: "button", className: "choose", "aria-pressed": String(state.chosen === id), title: name },
    el("span", { className: "name", dir: "auto" }, name),
    el("span", { className: "count" }, el("span", { className: "hidden" }, ", "), pages.toLocaleString("en"), el("span", { className: "hidden" }, pages === 1 ? " page" : " pages")),
  );
  choose.addEventListener("click", () => {
    state.chosen = state.chosen === id ? null : id;
    for (const one of byId("document-list").querySelectorAll(".choose")) one.setAttribute("aria-pressed", String(one === choose ? state.chosen === id : false));
    if (state.chosen === null) byId("document-list").querySelector(".choose").setAttribute("aria-pressed", "true");
    state.onChoice();
  });
  if (document_ === null) return el("li", {}, choose);
  const bin = el("button", { type: "button", className: "bin", "aria-label": `Delete ${name}`, title: "Delete" }, icon("bin"));
  bin.addEventListener("click", () => forget(document_, bin));
  return el("li", {}, choose, bin);
}

async function forget({ document_id, name, pages, uploaded }, bin) {
  const file = uploaded ? "The uploaded file is removed too." : "The file itself stays where it is.";
  if (!(await confirmed(`Delete ${name}?`, `${counted(pages, "page")} will no longer be found. ${file}`))) return;
  bin.disabled = true;
  try {
    await remove(`v1/documents/${encodeURIComponent(document_id)}`);
    say(`${name} was deleted`);
  } catch (error) {
    bin.disabled = false;
    if (error.status !== 404) {
      alarm(`${name} was not deleted: ${error.message}`);
      return;
    }
  }
  await refresh();
  byId("question").focus();
  dispatchEvent(new Event("deleted"));
}

/** Asks before something is lost. */
function confirmed(title, text) {
  const dialog = byId("confirm");
  byId("confirm-title").textContent = title;
  byId("confirm-text").textContent = text;
  return new Promise((resolve) => {
    let answer = false;
    const yes = () => {
      answer = true;
      dialog.close();
    };
    const no = () => dialog.close();
    byId("confirm-yes").addEventListener("click", yes);
    byId("confirm-no").addEventListener("click", no);
    dialog.addEventListener(
      "close",
      () => {
        byId("confirm-yes").removeEventListener("click", yes);
        byId("confirm-no").removeEventListener("click", no);
        resolve(answer);
      },
      { once: true },
    );
    dialog.showModal();
    byId("confirm-no").focus();
  });
}
