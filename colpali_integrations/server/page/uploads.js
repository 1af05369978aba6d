// Adding files: dropped, or chosen in a dialog; and the progress of their jobs.
import { get, upload } from "./api.js";
import { byId, counted, el, icon, say } from "./dom.js";

const EVERY = 400; // milliseconds between two looks at running jobs
const MOST_TRIES = 20; // of a server that has too much to do
const waiting = [];
const jobs = new Map(); // id of a job: its line
let sending = false;
let looking = false;
let onStored = () => {};

/** `stored` is called after pages have come into the index. */
export function startUploads(stored) {
  onStored = stored;
  const files = byId("files");
  for (const id of ["add", "choose"]) byId(id).addEventListener("click", () => files.click());
  files.addEventListener("change", () => {
    add([...files.files]);
    files.value = "";
  });
  startDrop();
}

function startDrop() {
  const cover = byId("drop");
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files") && !byId("desk").hidden && !byId("add").hidden;
  let depth = 0; // of elements that the pointer has entered
  const show = (change) => {
    depth = change === 0 ? 0 : Math.max(0, depth + change);
    cover.hidden = depth === 0;
  };
  addEventListener("dragenter", (event) => hasFiles(event) && show(1));
  addEventListener("dragleave", (event) => hasFiles(event) && show(-1));
  addEventListener("dragover", (event) => {
    event.preventDefault(); // otherwise the browser would open the file
    if (event.dataTransfer) event.dataTransfer.dropEffect = hasFiles(event) ? "copy" : "none";
  });
  addEventListener("drop", async (event) => {
    event.preventDefault();
    show(0);
    if (hasFiles(event)) add(await droppedFiles(event.dataTransfer));
  });
}

/** The files that were dropped, with those in folders. */
async function droppedFiles(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()); // now: later the list is empty
  if (!entries.some((entry) => entry?.isDirectory)) return [...transfer.files];
  const found = [];
  for (const entry of entries) if (entry) await collect(entry, found);
  return found;
}

async function collect(entry, found) {
  if (entry.name.startsWith(".")) return; // such as .DS_Store
  if (entry.isFile) {
    found.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return;
    for (const one of some) await collect(one, found);
  }
}

function add(files) {
  for (const file of files) waiting.push({ file, line: line(file.name) });
  if (files.length) say(`Adding ${counted(files.length, "file")}`);
  if (!sending) send();
}

/** Sends one file after the other; the server stores them in this order. */
async function send() {
  sending = true;
  while (waiting.length) {
    const { file, line } = waiting.shift();
    try {
      const job = await tried(file, line);
      line.job(job);
      jobs.set(job.id, line);
      look();
    } catch (error) {
      line.fail(error.message);
    }
  }
  sending = false;
}

async function tried(file, line) {
  for (let number = 1; ; number += 1) {
    try {
      return await upload(file, (part) => line.sent(part));
    } catch (error) {
      const busy = error.status === 429 || error.status === 503;
      if (!busy || number === MOST_TRIES) throw error;
      await pause(1000 * Math.min(30, error.wait || 1));
    }
  }
}

/** Shows the jobs that run, such as those of another window. */
export async function showRunning() {
  try {
    for (const job of (await get("v1/jobs")).jobs.reverse()) {
      if (["queued", "running"].includes(job.state) && !jobs.has(job.id)) {
        const shown = line(job.name);
        shown.job(job);
        jobs.set(job.id, shown);
      }
    }
  } catch {
    return; // the list of documents tells the error
  }
  if (jobs.size) look();
}

/** Looks at the jobs until all have ended. */
async function look() {
  if (looking) return;
  looking = true;
  while (jobs.size) {
    for (const [id, line] of jobs) {
      let job = null;
      try {
        job = await get(`v1/jobs/${id}`);
      } catch (error) {
        if (error.status === 401) jobs.clear();
        if (error.status !== 404) break; // it is asked again
      }
      if (job !== null && ["queued", "running"].includes(job.state)) {
        line.job(job);
        continue;
      }
      jobs.delete(id);
      if (job === null) line.remove(); // its document was deleted
      else if (job.state === "failed") line.fail(job.error ?? "The server gives no reason.");
      else if (job.state === "done") line.done(job);
      else line.remove();
      onStored();
    }
    if (jobs.size) await pause(EVERY);
  }
  looking = false;
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** A line of the list of files that are being added. */
function line(name) {
  const bar = el("progress", { max: 1, value: 0, "aria-label": `Progress of ${name}` });
  const about = el("span", { className: "state" }, "waits");
  const close = el("button", { type: "button", className: "bin", "aria-label": `Close the message about ${name}`, hidden: true }, icon("close"));
  const element = el("li", {}, el("span", { className: "name", dir: "auto", title: name }, name), about, close, bar);
  const remove = () => {
    element.remove();
    byId("uploads").hidden = !byId("upload-list").children.length;
  };
  const end = (text, kind) => {
    about.textContent = text;
    element.classList.add(kind);
    bar.remove();
    close.hidden = false;
  };
  close.addEventListener("click", remove);
  byId("upload-list").append(element);
  byId("uploads").hidden = false;
  return {
    remove,
    sent(part) {
      bar.value = part / 4; // a quarter of the bar is for the way to the server
      about.textContent = part < 1 ? "is sent" : "is checked";
    },
    job({ state, done, pages, error }) {
      bar.value = 0.25 + (0.75 * done) / Math.max(1, pages);
      about.textContent = error ? `is tried again: ${error}` : state === "queued" ? "waits" : `${done} of ${counted(pages, "page")}`;
    },
    fail(message) {
      const reason = message.startsWith(`${name} `) ? message.slice(name.length + 1) : message; // the line has the name
      end(reason, "failed");
      say(`${name} was not added: ${reason}`);
    },
    done({ pages, report }) {
      const failures = report?.failures?.length ?? 0;
      end(failures ? `${counted(pages - failures, "page")} added, ${failures} not: ${report.failures[0].error}` : `${counted(pages, "page")} added`, failures ? "failed" : "stored");
      say(`${name} was added`);
      if (!failures) setTimeout(remove, 6000);
    },
  };
}
