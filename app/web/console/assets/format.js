// Numbers, durations and times as texts.

const NUMBER = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

export const count = (value) => (value === null || value === undefined ? "–" : NUMBER.format(value));

export const plural = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;

/** `3.2 s`, `12 min`, `5 h`, `3 d`. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.95) return seconds === 0 ? "0 s" : `${Math.max(1, Math.round(seconds * 1000))} ms`;
  if (seconds < 120) return `${NUMBER.format(seconds < 10 ? seconds : Math.round(seconds))} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}

/** `3 min ago`, `in 3 min`. */
export function relative(at, now = Date.now()) {
  const seconds = (now - Date.parse(at)) / 1000;
  if (Math.abs(seconds) < 1) return "now";
  return seconds > 0 ? `${duration(seconds)} ago` : `in ${duration(-seconds)}`;
}

/** `2026-01-31 12:00:00 UTC`. */
export const moment = (at) => `${new Date(at).toISOString().slice(0, 19).replace("T", " ")} UTC`;

/** RFC 3339 in UTC, to the millisecond. */
export const exactly = (at) => new Date(at).toISOString();

/** RFC 3339 in UTC, in whole seconds: as times are entered and asked for. */
export const rfc3339 = (at) => `${new Date(at).toISOString().slice(0, 19)}Z`;

export const bytes = (value) => {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  for (; value >= 1024 && at < units.length - 1; at++) value /= 1024;
  return `${NUMBER.format(value)} ${units[at]}`;
};

/** `oldest_unfinished_s` → `oldest unfinished`. */
export const words = (name) => name.replace(/_(s|ms|bytes)$/, "").replaceAll("_", " ");

/** How a webhook is; its health, where a worker of another version does not say it. */
export const standing = (webhook) => words(webhook.standing ?? webhook.health);
