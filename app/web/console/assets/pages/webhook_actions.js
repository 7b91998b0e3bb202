// What is done to a webhook by name.

import { api, ifMatch, post } from "../api.js";
import { exactly, rfc3339 } from "../format.js";
import { go, href } from "../router.js";
import { Button, Code, Copy, Field, Form, Select, TimeField, confirm, html, notify, openDialog, useState } from "../ui.js";

const at = (webhook, action = "") => `/v1/webhooks/${webhook.id}${action}`;
const change = (webhook, action, body) => post(at(webhook, action), body, { headers: ifMatch(webhook.version) });

/** A sentence that names what is touched. */
const Named = ({ webhook, children }) => html`<p><strong>${webhook.description || webhook.url}</strong></p><p><${Code}>${webhook.url}<//> (${webhook.id})</p><p>${children}</p>`;

// --- The secret: shown once, and kept nowhere by the console

export const showSecret = (webhook) => openDialog("The secret of this webhook", Secret, { secret: webhook.secret, url: webhook.url, mustAnswer: true });

function Secret({ close, secret, url }) {
  return html`<div class="stack">
    <p>Its receiver (<${Code}>${url}<//>) verifies deliveries by it. <strong>It is shown this once</strong>: keep it now.</p>
    <p class="secret"><${Code}>${secret}<//></p>
    <div class="actions end"><${Copy} text=${secret} label="Copy the secret" /><${Button} main run=${() => close()}>I have kept it<//></div>
  </div>`;
}

function Rotate({ close, webhook }) {
  const [hours, set] = useState("24");
  const submit = async () => close(await change(webhook, "/rotate-secret", { overlap_s: Math.round(Number(hours) * 3600) }));
  return html`<${Named} webhook=${webhook}>A new secret is made. For the time of the overlap deliveries are signed with both, so that the receiver can change over.<//>
    <${Form} submit=${submit} action="Rotate" extra=${html`<button type="button" onClick=${() => close()}>Cancel</button>`}>
      ${(error) => html`<${Field} label="Overlap in hours" error=${error?.at?.("/overlap_s")} hint="0 if the old secret is known to somebody: it ends at once.">
        ${(tied) => html`<input type="text" inputmode="decimal" value=${hours} onInput=${(event) => set(event.target.value)} ...${tied} />`}
      <//>`}
    <//>`;
}

async function rotate(webhook) {
  const changed = await openDialog("Rotate the secret?", Rotate, { webhook });
  if (changed) await showSecret(changed);
}

// --- On, off, and for a while

const enable = async (webhook) => {
  await change(webhook, "/enable", {});
  notify("The webhook is enabled.");
};

const disable = async (webhook) => {
  const body = html`<${Named} webhook=${webhook}>Nothing is delivered to it until it is enabled again. What waits is cancelled, and its events are noted as missed: a replay brings them back.<//>`;
  const done = await confirm({ title: "Disable the webhook?", body, action: "Disable", danger: true, run: () => change(webhook, "/disable", {}) });
  if (done) notify("The webhook is disabled.");
};

const LAST_MS = 8.64e15; // What a browser can tell the date of.

function Hold({ close, webhook }) {
  const [minutes, set] = useState("60");
  const submit = async () => {
    const until = Date.now() + Number(minutes) * 60_000;
    close(await change(webhook, "/hold", { until: Math.abs(until) < LAST_MS ? exactly(until) : minutes }));
  };
  return html`<${Named} webhook=${webhook}>No attempt starts for so long. Its events wait, and nothing is lost.<//>
    <${Form} submit=${submit} action="Hold" extra=${html`<button type="button" onClick=${() => close()}>Cancel</button>`}>
      ${(error) => html`<${Field} label="Minutes" error=${error?.at?.("/until")}>
        ${(tied) => html`<input type="text" inputmode="decimal" value=${minutes} onInput=${(event) => set(event.target.value)} ...${tied} />`}
      <//>`}
    <//>`;
}

const hold = async (webhook) => {
  if (await openDialog("Hold the webhook?", Hold, { webhook })) notify("The webhook is held.");
};

const lift = async (webhook) => {
  await change(webhook, "/hold", { until: null });
  notify("The webhook is held no longer.");
};

// --- One event, or those of the past

const ping = async (webhook) => {
  const sent = await post(at(webhook, "/ping"), {});
  notify("A ping is on its way.", "good", { href: href(`/deliveries/${sent.delivery_id}`), text: "What became of it" });
};

const ONLY = [["", "all of them"], ["missed", "missed: while it was disabled"], ["failed", "failed: given up"]];

function Replay({ close, webhook }) {
  const [form, set] = useState({ start: webhook.disabled_at ? "disabled" : "since", since: rfc3339(Date.now() - 3_600_000), until: "", types: "", only: "", rate: "" });
  const choose = (name) => (value) => set((before) => ({ ...before, [name]: value }));
  const take = (name) => (event) => choose(name)(event.target.value);
  const submit = async () => {
    const types = form.types.split(/[\s,]+/).filter(Boolean);
    close(
      await post(at(webhook, "/replay"), {
        ...(form.start === "disabled" ? { since_disabled: true } : { since: form.since }),
        ...(form.until ? { until: form.until } : {}),
        ...(types.length ? { event_types: types } : {}),
        ...(form.only ? { only: form.only } : {}),
        ...(form.rate.trim() ? { rate_per_s: Number(form.rate) } : {}),
      }),
    );
  };
  const text = (name) => (tied) => html`<input type="text" spellcheck=${false} value=${form[name]} onInput=${take(name)} ...${tied} />`;
  return html`<${Named} webhook=${webhook}>Events of the past that match it are delivered once more. Its receiver may get again what it has.<//>
    <${Form} submit=${submit} action="Start the replay" extra=${html`<button type="button" onClick=${() => close()}>Cancel</button>`}>
      ${(error) => html`
        <${Field} label="From" error=${error?.at?.("/since_disabled")}>${(tied) => html`<${Select} options=${[["since", "a time"], ["disabled", "when it was disabled last"]]} value=${form.start} onChange=${choose("start")} ...${tied} />`}<//>
        ${form.start === "since" && html`<${TimeField} label="Since" error=${error?.at?.("/since")} value=${form.since} onChange=${choose("since")} />`}
        <${TimeField} label="Until" optional error=${error?.at?.("/until")} value=${form.until} onChange=${choose("until")} />
        <${Field} label="Event types" optional error=${error?.at?.("/event_types")} hint="Types or patterns, with commas.">${text("types")}<//>
        <${Field} label="Which" error=${error?.at?.("/only")}>${(tied) => html`<${Select} options=${ONLY} value=${form.only} onChange=${choose("only")} ...${tied} />`}<//>
        <${Field} label="Events a second" optional error=${error?.at?.("/rate_per_s")}>${text("rate")}<//>
      `}
    <//>`;
}

const replay = async (webhook) => {
  const begun = await openDialog("Replay events?", Replay, { webhook });
  if (begun) notify("The replay has begun.", "good", { href: href(`/replays/${begun.id}`), text: "How far it is" });
};

// --- The end

const remove = async (webhook) => {
  const body = html`<${Named} webhook=${webhook}>It is gone for good, and what waits for it is cancelled. Its secret works no more.<//>`;
  const run = () => api("DELETE", at(webhook), { headers: ifMatch(webhook.version) });
  if (await confirm({ title: "Delete the webhook?", body, action: "Delete", danger: true, run })) {
    notify("The webhook is deleted.");
    go("/webhooks");
  }
};

/** All of them, for an admin; `refresh` shows what came of it. */
export function Actions({ webhook, refresh }) {
  const button = (name, act, more = {}) => html`<${Button} key=${name} run=${async () => {
    await act(webhook);
    refresh();
  }} ...${more}>${name}<//>`;
  const held = webhook.hold_until && Date.parse(webhook.hold_until) > Date.now();
  return html`<a class="button" href=${href(`/webhooks/${webhook.id}/edit`)}>Edit</a>
    ${webhook.enabled ? button("Ping", ping) : button("Enable", enable, { main: true })}
    ${webhook.enabled && button("Replay", replay)}
    ${webhook.enabled && (held ? button("Lift the hold", lift) : button("Hold", hold))}
    ${button("Rotate the secret", rotate)}
    ${webhook.enabled && button("Disable", disable)}
    ${button("Delete", remove, { danger: true })}`;
}
