// Where one is: `#/webhooks/wh_1?search=x`. It survives a reload, and Back works.

import { useEffect, useState } from "./vendor/htm-preact.js";

const parse = () => {
  const [path, query = ""] = window.location.hash.slice(1).split("?");
  return { path: path || "/", query: Object.fromEntries(new URLSearchParams(query)) };
};

/** The address of a page; empty parameters are left out. */
export function href(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return `#${path}${given.length ? `?${new URLSearchParams(given)}` : ""}`;
}

/** Go there; `replace`: without a step in the history, as for each letter of a search. */
export function go(path, query, { replace = false } = {}) {
  const to = href(path, query);
  if (replace) {
    window.history.replaceState(null, "", to);
    window.dispatchEvent(new HashChangeEvent("hashchange"));
  } else {
    window.location.hash = to.slice(1);
  }
}

/** `{path, query}` of the address bar. */
export function useLocation() {
  const [location, set] = useState(parse);
  useEffect(() => {
    const changed = () => set(parse());
    window.addEventListener("hashchange", changed);
    return () => window.removeEventListener("hashchange", changed);
  }, []);
  return location;
}

/** The first route whose `path` (`/webhooks/:id`) fits, with `params`; null if none does. */
export function match(routes, path) {
  const given = path.split("/");
  for (const route of routes) {
    const wanted = route.path.split("/");
    if (wanted.length !== given.length) continue;
    const params = {};
    const fits = wanted.every((part, at) => {
      if (!part.startsWith(":")) return part === given[at];
      try {
        params[part.slice(1)] = decodeURIComponent(given[at]);
      } catch {
        return false;
      }
      return given[at] !== "";
    });
    if (fits) return { route, params };
  }
  return null;
}
