// Signing in with the API key. The server keeps the session in a cookie that this script cannot read.
import { get, post, remove, whenSignedOut } from "./api.js";
import { alarm, byId } from "./dom.js";

/** Calls `ready` with the name of the chat model, or null, once the reader may use the server. */
export async function startSession(ready) {
  whenSignedOut(() => ask());
  byId("sign-in-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const field = byId("key");
    byId("sign-in-error").textContent = "";
    let state;
    try {
      state = await post("session", { key: field.value });
    } catch (error) {
      byId("sign-in-error").textContent = error.status === 401 ? "This is not the key of the server." : error.message;
      field.select();
      return;
    }
    field.value = "";
    open(state, ready);
  });
  byId("sign-out").addEventListener("click", async () => {
    try {
      await remove("session");
    } catch (error) {
      alarm(error.message);
      return;
    }
    location.replace(location.pathname); // so that nothing of the answers stays in the page
    location.reload();
  });
  let state;
  try {
    state = await get("session");
  } catch (error) {
    alarm(error.message);
    return;
  }
  if (state.needs_key && !state.signed_in) ask();
  else open(state, ready);
}

function ask() {
  for (const id of ["desk", "ask", "add", "sign-out"]) byId(id).hidden = true;
  byId("viewer").close();
  byId("sign-in").hidden = false;
  byId("key").focus();
}

function open(state, ready) {
  byId("sign-in").hidden = true;
  for (const id of ["desk", "ask"]) byId(id).hidden = false;
  byId("add").hidden = !state.may_change;
  document.body.classList.toggle("reads-only", !state.may_change); // the server refuses changes anyway
  byId("sign-out").hidden = !state.needs_key;
  ready(state.chat);
}
