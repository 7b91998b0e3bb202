// A webhook by its name, where only its id is known.

import { get } from "../api.js";
import { href } from "../router.js";
import { Code, html, useEffect, useState } from "../ui.js";

const KEPT_MS = 30_000;
const known = new Map();
let last = Promise.resolve();

/** The webhook of an id, null if there is none; asked one after the other, and kept for half a minute. */
export function webhookOf(id) {
  const before = known.get(id);
  if (before && Date.now() - before.at < KEPT_MS) return before.found;
  const ask = async () => (await get("/v1/webhooks", { search: id, limit: 5 })).items.find((webhook) => webhook.id === id) || null;
  const found = last.then(ask, ask);
  last = found;
  known.set(id, { found, at: Date.now() });
  found.catch(() => known.delete(id));
  return found;
}

/** A link that says what the webhook is called, once that is known. */
export function WebhookLink({ id }) {
  const [webhook, set] = useState(undefined);
  useEffect(() => {
    let here = true;
    set(undefined);
    webhookOf(id).then(
      (found) => here && set(found),
      () => {}, // The id says enough.
    );
    return () => {
      here = false;
    };
  }, [id]);
  if (webhook === null) return html`<${Code}>${id}<//> (deleted)`;
  return html`<a href=${href(`/webhooks/${encodeURIComponent(id)}`)}>${webhook ? webhook.description || webhook.url : id}</a>`;
}
