// Live by asking again, and a clear sign when what is shown is old.

import { useCallback, useEffect, useLayoutEffect, useRef, useState } from "./vendor/htm-preact.js";
import { get } from "./api.js";

export const EVERY_MS = 2000;
export const OLD_MS = 10_000;

// Of each question that is asked again and again: when it was answered last.
const answered = new Map();
let counter = 0;

/** Since when the oldest answer on the page is the last one, if that is too long ago; else null. */
export function oldSince(now = Date.now()) {
  const oldest = Math.min(...answered.values());
  return Number.isFinite(oldest) && now - oldest > OLD_MS ? oldest : null;
}

/**
 * What `load(signal)` promises, asked again every 2 s while the tab is seen.
 *
 * deps: another question when one of them changes; what was shown of the last one goes.
 * Returns `{data, error, at, refresh}`: `data` stays the last answer while errors come; `at` is when it came.
 */
export function usePoll(load, deps = [], { every = EVERY_MS } = {}) {
  const [state, set] = useState({ data: null, error: null, at: null });
  const again = useRef(() => {});
  // Before the page is painted for the first time: the answer comes a frame earlier.
  useLayoutEffect(() => {
    const id = ++counter;
    const stop = new AbortController();
    let timer = null;
    let asking = false;
    answered.set(id, Date.now());
    set({ data: null, error: null, at: null });
    const ask = async () => {
      clearTimeout(timer);
      if (asking || stop.signal.aborted) return;
      asking = true;
      try {
        const data = await load(stop.signal);
        if (stop.signal.aborted) return;
        answered.set(id, Date.now());
        set({ data, error: null, at: Date.now() });
      } catch (error) {
        if (stop.signal.aborted) return;
        // A refusal is an answer, too; that nobody could answer is none.
        if (error.status >= 400 && error.status < 500) answered.set(id, Date.now());
        set((before) => ({ ...before, error }));
      } finally {
        asking = false;
        if (!stop.signal.aborted && !document.hidden) timer = setTimeout(ask, every);
      }
    };
    const seen = () => (document.hidden ? clearTimeout(timer) : ask());
    document.addEventListener("visibilitychange", seen);
    again.current = ask;
    ask();
    return () => {
      stop.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", seen);
      answered.delete(id);
    };
  }, deps);
  return { ...state, refresh: useCallback(() => again.current(), []) };
}

/** `usePoll` of one GET. */
export const useGet = (path, query = {}, more = {}) =>
  usePoll((signal) => get(path, query, { signal, accept: more.accept }), [path, JSON.stringify(query)], more);

/** The time, once a second: for ages. */
export function useNow() {
  const [now, set] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => set(Date.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  return now;
}
