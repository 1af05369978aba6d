// An answer in words by the chat model of the server, whose numbers open the pages that they cite.
import { post } from "./api.js";
import { alarm, byId, counted, el } from "./dom.js";
import { current } from "./search.js";
import { openViewer } from "./viewer.js";

const MOST = 4; // pages that are sent

let chat = null;
let asked = 0; // questions to the model; the answer to an earlier one is passed over

/** Offers answers if the server has a chat model; its name tells readers where the pages go. */
export function startAnswers(name) {
  chat = name;
  offer();
}

/** Shows the button below a new question. */
export function offer() {
  const { hits } = current();
  asked += 1;
  byId("answer").hidden = !chat || !hits.length;
  byId("answer-ask").hidden = false;
  byId("answer-ask").disabled = false;
  byId("answer-text").replaceChildren();
  byId("answer-about").textContent = `Sends the first ${counted(Math.min(MOST, hits.length), "page")} to ${chat}`;
}

byId("answer-ask").addEventListener("click", async () => {
  const { question, hits, colours } = current();
  const number = asked;
  const button = byId("answer-ask");
  button.disabled = true;
  byId("answer-about").textContent = `${chat} reads …`;
  try {
    const pages = hits.slice(0, MOST).map((hit) => hit.id);
    const { answer } = await post("v1/answers", { query: question, pages });
    if (number !== asked) return;
    button.hidden = true;
    byId("answer-about").textContent = `By ${chat}. Check it on the pages.`;
    byId("answer-text").replaceChildren(...withCitations(answer, hits.slice(0, MOST), (index) => openViewer(hits, index, question, colours)));
  } catch (error) {
    if (number !== asked) return;
    offer();
    if (error.status !== 401) alarm(error.message);
  }
});

/** The text, in which "[1]" is a button that opens the first page. */
function withCitations(text, pages, open) {
  return text.split(/(\[\d{1,3}\])/).map((part, place) => {
    const hit = place % 2 ? pages[Number(part.slice(1, -1)) - 1] : undefined;
    if (!hit) return part;
    const index = pages.indexOf(hit);
    return el("button", { type: "button", className: "cite", title: hit.name, "aria-label": `Open ${hit.name}`, onclick: () => open(index) }, String(index + 1));
  });
}
