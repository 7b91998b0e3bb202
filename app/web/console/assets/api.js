// The JSON API of this worker. The token lives in this tab only.

const TOKEN = "vault-stream-token";
const TIMEOUT_MS = 30_000; // A change waits up to 15 s for its effect, a forward up to 10 s.

/** A refusal: an RFC 9457 problem, or no answer at all (status 0). */
export class ApiError extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `The worker answered ${status}.`);
    this.status = status;
    this.code = problem.code || "";
    this.problem = problem;
    this.errors = problem.errors || [];
  }

  /** What is wrong with one field: a JSON pointer such as `/url`, or the name of a parameter; parts of it count. */
  at(field) {
    const found = this.errors.filter((error) => error.field === field || error.field.startsWith(`${field}/`));
    return found.map((error) => (error.field === field ? error.message : `${error.field}: ${error.message}`)).join("; ");
  }
}

export const token = () => sessionStorage.getItem(TOKEN);

export function keepToken(value) {
  if (value) sessionStorage.setItem(TOKEN, value);
  else sessionStorage.removeItem(TOKEN);
}

/** `/v1/x?a=b` of a path and parameters; empty ones are left out. */
export function url(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

/**
 * Ask the API; the JSON value of the answer, null without a body.
 *
 * accept: statuses beside 2xx whose body is an answer, such as 503 of /health. parse: for what JSON.parse would round.
 * Throws ApiError. A 401 also tells the console that it needs another token.
 */
export async function api(method, path, { query, body, headers = {}, accept = [], signal, parse = JSON.parse } = {}) {
  const sent = { Accept: "application/json", ...headers };
  if (token()) sent.Authorization = `Bearer ${token()}`;
  if (body !== undefined) sent["Content-Type"] = "application/json";
  const limit = AbortSignal.timeout(TIMEOUT_MS);
  let answer, text;
  try {
    answer = await fetch(url(path, query), {
      method,
      headers: sent,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      credentials: "omit",
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
    });
    text = await answer.text();
  } catch (error) {
    if (signal && signal.aborted) throw error;
    const perhaps = method === "GET" ? "" : " It may have done what was asked all the same.";
    throw new ApiError(0, { detail: `The worker does not answer.${perhaps}`, code: "no_answer" });
  }
  let document = null;
  try {
    document = text ? parse(text) : null;
  } catch {
    // No JSON: what is in front of the worker has answered.
  }
  if (answer.ok || accept.includes(answer.status)) return document;
  if (answer.status === 401) window.dispatchEvent(new CustomEvent("unauthorized"));
  throw new ApiError(answer.status, document || {});
}

export const get = (path, query, more = {}) => api("GET", path, { query, ...more });
export const post = (path, body, more = {}) => api("POST", path, { body, ...more });

/** The header of a change that must be for this version of a webhook. */
export const ifMatch = (version) => ({ "If-Match": `"${version}"` });
