// One record of a log: it does not change, so it is asked for once.

import { Code, html, useEffect, useState } from "../ui.js";

const AGAIN_MS = 2000;

/** `{data, error}` of a load that is tried again until it has an answer; a refusal is one. */
export function useOnce(load, deps) {
  const [state, set] = useState({ data: null, error: null });
  useEffect(() => {
    const stop = new AbortController();
    let timer = null;
    const ask = async () => {
      try {
        const data = await load(stop.signal);
        if (!stop.signal.aborted) set({ data, error: null });
      } catch (error) {
        if (stop.signal.aborted) return;
        set({ data: null, error });
        if (!(error.status >= 400 && error.status < 500)) timer = setTimeout(ask, AGAIN_MS);
      }
    };
    set({ data: null, error: null });
    ask();
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }, deps);
  return state;
}

/** Text as it came, which may be long: it scrolls, also by keyboard. */
export const Verbatim = ({ label, children }) => html`<pre tabindex="0" role="region" aria-label=${label}>${children}</pre>`;

/** Bytes as the API shows them: text, `{base64}`, or null. */
export const Bytes = ({ label, of }) => {
  if (of === null || of === undefined) return html`<p class="muted">None.</p>`;
  if (typeof of === "string") return of === "" ? html`<p class="muted">Empty.</p>` : html`<${Verbatim} label=${label}>${of}<//>`;
  return html`<p class="muted">No text; this is its base64:</p><${Verbatim} label=${`${label}, base64`}>${of.base64}<//>`;
};

/** The same, within a line. */
export const ShortBytes = ({ of }) => (of === null ? "none" : html`<${Code}>${typeof of === "string" ? of : `base64: ${of.base64}`}<//>`);

/** Reads JSON so that `pretty` writes the same numbers: those of an event may be more exact than those of a browser. */
export const parseExactly = (text) =>
  JSON.parse(text, (_, value, context) =>
    typeof value === "number" && context?.source && JSON.rawJSON && String(value) !== context.source ? JSON.rawJSON(context.source) : value,
  );

export const pretty = (value) => JSON.stringify(value, null, 2);
