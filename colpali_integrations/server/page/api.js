// Requests to the server. Addresses are relative, so the page also works below a path of a proxy.

/** An answer that is no success: the server's own words, and the status. */
export class ServerError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

let onSignIn = () => {};

/** What to do when the server asks for the key. */
export function whenSignedOut(handler) {
  onSignIn = handler;
}

const UNREACHED = "The server does not answer. Is it still running?";

async function request(method, path, { body, signal } = {}) {
  const options = { method, signal, cache: "no-store", credentials: "same-origin" };
  if (body !== undefined) {
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError(UNREACHED);
  }
  const content = await response.json().catch(() => ({}));
  if (response.ok) return content;
  if (response.status === 401 && path !== "session") onSignIn();
  throw new ServerError(content.message ?? `The server answers ${response.status}.`, response.status);
}

export const get = (path, options) => request("GET", path, options);
export const post = (path, body, options) => request("POST", path, { ...options, body });
export const remove = (path) => request("DELETE", path);

/** Sends a file; `onProgress` gets the sent fraction. XMLHttpRequest tells it, and fetch does not. */
export function upload(file, onProgress) {
  return new Promise((resolve, reject) => {
    const form = new FormData();
    form.append("file", file, file.name);
    const sending = new XMLHttpRequest();
    sending.open("POST", "v1/documents");
    sending.responseType = "json";
    sending.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) onProgress(event.loaded / event.total);
    });
    sending.addEventListener("load", () => {
      const content = sending.response ?? {};
      if (sending.status === 202) resolve(content);
      else {
        if (sending.status === 401) onSignIn();
        const error = new ServerError(content.message ?? `The server answers ${sending.status}.`, sending.status);
        error.wait = Number(sending.getResponseHeader("Retry-After")) || 0;
        reject(error);
      }
    });
    sending.addEventListener("error", () => reject(new ServerError(UNREACHED)));
    sending.send(form);
  });
}

/** The address of something of a page. Ids may hold any character. */
export function pageAddress(id, what = "", query = {}) {
  const parameters = new URLSearchParams(query).toString();
  return `v1/pages/${encodeURIComponent(id)}${what && `/${what}`}${parameters && `?${parameters}`}`;
}
