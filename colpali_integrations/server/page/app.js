// The search page: puts its parts together.
import { offer, startAnswers } from "./answers.js";
import { byId, counted } from "./dom.js";
import { chosenDocument, refresh, startLibrary } from "./library.js";
import { hasQuestion, repeat, startSearch } from "./search.js";
import { startSession } from "./session.js";
import { showRunning, startUploads } from "./uploads.js";
import { startViewer } from "./viewer.js";

let documents = null; // until the server has listed them

/** What the page shows while there is no question: how to begin. */
function showStart() {
  if (documents === null) return;
  const empty = documents.length === 0;
  byId("start").hidden = hasQuestion() && !empty;
  byId("start").classList.toggle("empty", empty);
  const mayAdd = !byId("add").hidden;
  byId("choose").hidden = !empty || !mayAdd;
  if (empty) byId("found").hidden = true;
  if (empty && !mayAdd) {
    byId("start-title").textContent = "There are no documents yet";
    byId("start-text").textContent = "Your key searches and reads. Another key of this server adds files.";
  } else if (empty) {
    byId("start-title").textContent = "Drop PDFs, images or Office files here";
    byId("start-text").textContent = "They are read and indexed on this server. Then ask, and see the page that answers.";
  } else {
    const pages = documents.reduce((sum, one) => sum + one.pages, 0);
    byId("start-title").textContent = "What are you looking for?";
    byId("start-text").textContent = `Ask in your own words. ${counted(pages, "page")} of ${counted(documents.length, "document")} will be searched.`;
  }
}

const ask = startSearch(chosenDocument);
startViewer();
startLibrary({
  onChoice: () => ask(),
  onChange: (changed) => {
    documents = changed;
    showStart();
  },
});
startUploads(async () => {
  await refresh();
  repeat();
});
addEventListener("answered", () => {
  showStart();
  offer();
});
addEventListener("deleted", repeat);
startSession(async (chat) => {
  startAnswers(chat);
  byId("question").focus();
  ask();
  await refresh();
  showRunning();
});
