// The key lives in this tab's session storage and goes out as a header, never in an address.
import { at } from "./dom.js";

const PLACE = "stepdown-key";
let held = "";

function stored() {
  try { return sessionStorage.getItem(PLACE) || held; } catch { return held; }
}

export function keep(key) {
  held = key;
  try { if (key) sessionStorage.setItem(PLACE, key); else sessionStorage.removeItem(PLACE); } catch { /* kept in this page only */ }
}

export const hasKey = () => stored() !== "";

/** JSON of a path. Throws an Error with `status` and the server's own message. */
export async function get(path, signal) {
  const key = stored();
  const response = await fetch(path, { headers: key ? { authorization: `Bearer ${key}` } : {}, cache: "no-store", signal });
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  const error = new Error(body.error?.message || `the server answered ${response.status}`);
  error.status = response.status;
  throw error;
}

/** Ask for a key where the server wants one; `then` runs when one is given. why: what the server says of the key that was sent. */
export function ask(why, then) {
  at("ask").hidden = false;
  at("ask-error").textContent = hasKey() ? why : "";
  at("key-field").value = "";
  at("key-field").focus();
  at("ask").onsubmit = (event) => {
    event.preventDefault();
    keep(at("key-field").value.trim());
    at("ask").hidden = true;
    then();
  };
}
