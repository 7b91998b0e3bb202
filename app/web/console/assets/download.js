// Files from the API: the token is in a header, so that a link cannot fetch them; what comes is a file once it is whole.

import { ApiError, token, url } from "./api.js";

const TIMEOUT_MS = 3_600_000; // An export of a year takes its time, and says how far it is.
const DIGEST_BYTES = 256 * 1024 * 1024;

/**
 * The body of an answer as a Blob.
 *
 * onBytes: called with how many came so far.
 * Throws ApiError, also where the answer breaks off.
 */
export async function fetchFile(method, path, { query, body, signal, onBytes = () => {} } = {}) {
  const headers = token() ? { Authorization: `Bearer ${token()}` } : {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const limit = AbortSignal.timeout(TIMEOUT_MS);
  let answer;
  try {
    answer = await fetch(url(path, query), {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      credentials: "omit",
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
    });
    if (answer.ok) {
      const parts = [];
      let size = 0;
      for (const reader = answer.body.getReader(); ; ) {
        const { done, value } = await reader.read();
        if (done) break;
        parts.push(value);
        size += value.length;
        onBytes(size);
      }
      return new Blob(parts, { type: answer.headers.get("Content-Type") || "" });
    }
  } catch (error) {
    if (signal && signal.aborted) throw error;
    throw new ApiError(0, { detail: "The answer broke off before its end. Nothing was saved: try again.", code: "broken_off" });
  }
  const problem = await answer.json().catch(() => ({}));
  if (answer.status === 401) window.dispatchEvent(new CustomEvent("unauthorized"));
  throw new ApiError(answer.status, problem);
}

/** SHA-256 in hex; null where the browser has none (a page by plain http from elsewhere), or for a file that is too large. */
export async function digestOf(blob) {
  if (!window.crypto?.subtle || blob.size > DIGEST_BYTES) return null;
  const bytes = new Uint8Array(await crypto.subtle.digest("SHA-256", await blob.arrayBuffer()));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Have the browser save it. */
export function save(blob, name) {
  const address = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  // The browser has begun to read it by then.
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
