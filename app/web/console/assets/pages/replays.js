// Replays: the log read again for one webhook; how far each is, and starting one.

import { ApiError, api, get, post } from "../api.js";
import { count, duration, plural, rfc3339 } from "../format.js";
import { useGet } from "../live.js";
import { go, href } from "../router.js";
import { AdminOnly, Badge, Button, Code, Empty, Facts, Field, Form, Loading, Page, Problem, Section, Select, Time, TimeField, confirm, html, notify, useEffect, useState } from "../ui.js";
import { Listing } from "./filters.js";
import { requestKey } from "./redrive.js";
import { WebhookLink, webhookOf } from "./webhook_link.js";

const KIND = { done: "good", failed: "bad", running: "warn" };
const ONLY = [["", "all of them"], ["missed", "missed: while it was disabled"], ["failed", "failed: given up"]];
const STARTS = [["since", "a time"], ["disabled", "when it was disabled last"], ["offsets", "offsets"]];
const runs = (replay) => ["queued", "running"].includes(replay.state);

const from = (replay) => {
  if (replay.since) return html`<${Time} at=${replay.since} full=${true} />`;
  if (replay.since_disabled) return "when it was disabled last";
  return Object.entries(replay.from_offset).map(([place, offset]) => html`<div key=${place}><${Code}>${place}: ${count(offset)}<//></div>`);
};

/** How much of the log is read; until that is known, or when nothing is to be read, it says so in words. */
function Progress({ of }) {
  if (of.total === 0) return html`<div>There was nothing to read</div>`;
  const text = of.total === undefined ? `${plural(of.scanned, "record")} read` : `${count(of.scanned)} of ${plural(of.total, "record")} read`;
  return html`<div>
    ${of.total && html`<progress max=${of.total} value=${Math.min(of.scanned, of.total)} aria-label="How much is read"></progress>`}
    <div>${text}, ${count(of.sent)} sent${of.skipped > 0 && `, ${count(of.skipped)} left out`}</div>
  </div>`;
}

function Replays({ location }) {
  const { cursor, limit } = location.query;
  const poll = useGet("/v1/replays", { cursor, limit });
  const make = html`<${AdminOnly}><a class="button main" href="#/replays/new">New replay</a><//>`;
  const none = html`<${Empty} title="No replay.">
    <${AdminOnly}><p><a href="#/replays/new">Start one</a>, when a receiver has lost something or was away.</p><//>
    <p>A worker remembers its last hundred until it ends.</p>
  <//>`;
  return html`<${Page} title="Replays" lead="Events of the past, delivered to one webhook once more." actions=${make}>
    <${Listing} location=${location} poll=${poll} fields=${[]} caption="Replays, newest first" none=${none} columns=${[
      { head: "Replay", cell: (row) => html`<a href=${href(`/replays/${encodeURIComponent(row.id)}`)}>from ${row.since ? html`<${Time} at=${row.since} />` : row.since_disabled ? "when it was disabled" : "offsets"}</a><div class="muted">by ${row.actor}</div>` },
      { head: "Webhook", cell: (row) => html`<${WebhookLink} id=${row.webhook_id} />` },
      { head: "State", cell: (row) => html`<${Badge} kind=${KIND[row.state]}>${row.state}<//>` },
      { head: "Progress", cell: (row) => html`<${Progress} of=${row} />` },
      { head: "Asked for", cell: (row) => html`<${Time} at=${row.created_at} />` },
    ]} />
  <//>`;
}

// --- One of them

async function cancel(replay) {
  const webhook = await webhookOf(replay.webhook_id);
  const body = html`<p>The replay for <strong>${webhook ? webhook.description || webhook.url : "a webhook that was deleted"}</strong> (${replay.webhook_id}), which has sent ${plural(replay.sent, "event")}.</p>
    <p>What was sent stays sent; nothing more is read.</p>`;
  const run = () => api("DELETE", `/v1/replays/${encodeURIComponent(replay.id)}`);
  const done = await confirm({ title: "Cancel the replay?", body, action: "Cancel the replay", danger: true, run });
  if (done) notify(done.state === "cancelled" ? "The replay is cancelled." : `The replay had ended before: ${done.state}.`);
}

function Replay({ params }) {
  const poll = useGet(`/v1/replays/${encodeURIComponent(params.id)}`);
  const back = { href: href("/replays"), text: "Replays" };
  const replay = poll.data;
  if (!replay || poll.error?.status === 404) return html`<${Page} title="Replay" back=${back}><${Loading} of=${poll} /><//>`;
  const act = async () => {
    await cancel(replay);
    poll.refresh();
  };
  const took = replay.started_at && replay.ended_at && (Date.parse(replay.ended_at) - Date.parse(replay.started_at)) / 1000;
  return html`<${Page} title="Replay" back=${back} actions=${html`<${AdminOnly}>${runs(replay) && html`<${Button} danger run=${act}>Cancel the replay<//>`}<//>`}>
    <${Problem} error=${poll.error} />
    <${Section} title="Progress" actions=${html`<${Badge} kind=${KIND[replay.state]}>${replay.state}<//>`}>
      <div class="stack">
      ${replay.error && html`<${Problem} error=${{ message: replay.error }} />`}
      <${Progress} of=${replay} />
      <${Facts} items=${[
        ["Waits for", replay.waits_for],
        ["For this webhook", count(replay.matched)],
        ["Sent", count(replay.sent)],
        ["Left out: sent before under this request id, not of the kind, or too large", count(replay.skipped)],
        ["Unreadable", count(replay.malformed)],
        ["No longer kept", count(replay.gone)],
        ["Started", replay.started_at && html`<${Time} at=${replay.started_at} full=${true} />`],
        ["Ended", replay.ended_at && html`<${Time} at=${replay.ended_at} full=${true} />`],
        ["Took", took !== undefined && took !== "" && duration(took)],
      ]} />
      </div>
    <//>
    <${Section} title="What was asked for" actions=${html`<a href=${href("/deliveries", { webhook_id: replay.webhook_id })}>Deliveries of this webhook</a>`}>
      <${Facts} items=${[
        ["Webhook", html`<${WebhookLink} id=${replay.webhook_id} />`],
        ["From", from(replay)],
        ["Until", replay.until && html`<${Time} at=${replay.until} full=${true} />`],
        ["Event types", replay.event_types && replay.event_types.join(", ")],
        ["Which", replay.only && (ONLY.find(([only]) => only === replay.only)?.[1] || "all of them")],
        ["Events a second", `${replay.rate_per_s} at most`],
        ["By", replay.actor],
        ["Asked for", html`<${Time} at=${replay.created_at} full=${true} />`],
        ["Request id", html`<${Code}>${replay.request_id}<//>`],
        ["Id", html`<${Code}>${replay.id}<//>`],
      ]} />
    <//>
  <//>`;
}

// --- Starting one

const wrong = (field, message) => new ApiError(422, { detail: "Something in the form is not understood.", code: "invalid_field", errors: [{ field, code: "invalid", message }] });

/** `{"topic/partition": offset}` of lines; throws ApiError. */
function offsetsOf(text) {
  const found = {};
  for (const line of text.split("\n").map((one) => one.trim()).filter(Boolean)) {
    const parts = /^(\S+\/\d+)[:\s]\s*(\d+)$/.exec(line);
    if (!parts) throw wrong("/from_offset", `each line is topic/partition: offset, and this is not: ${line.slice(0, 60)}`);
    found[parts[1]] = Number(parts[2]);
  }
  if (!Object.keys(found).length) throw wrong("/from_offset", "give one at least");
  return found;
}

/** A webhook by its id, found by whatever is known of it. */
function WebhookChoice({ value, onChange, ...tied }) {
  const [found, set] = useState([]);
  useEffect(() => {
    const stop = new AbortController();
    const timer = setTimeout(() => {
      get("/v1/webhooks", { search: value.trim(), limit: 20 }, { signal: stop.signal }).then(
        (page) => stop.signal.aborted || set(page.items),
        () => {}, // It can be typed.
      );
    }, 300);
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  }, [value]);
  const id = `${tied.id}-found`;
  return html`<input type="text" spellcheck=${false} autocomplete="off" list=${id} value=${value} onInput=${(event) => onChange(event.target.value)} ...${tied} />
    <datalist id=${id}>${found.map((webhook) => html`<option key=${webhook.id} value=${webhook.id}>${webhook.description || webhook.url}</option>`)}</datalist>`;
}

function Create({ location }) {
  const [form, set] = useState({ webhook: location.query.webhook_id || "", start: "since", since: rfc3339(Date.now() - 3_600_000), offsets: "", until: "", types: "", only: "", rate: "" });
  // The same request again has its effect once; another one needs another id.
  const [sent] = useState({ text: "", id: "" });
  const take = (name) => (value) => set((before) => ({ ...before, [name]: value }));
  const submit = async () => {
    const webhook = form.webhook.trim();
    if (!webhook) throw wrong("webhook", "say which one");
    const types = form.types.split(/[\s,]+/).filter(Boolean);
    const start = { since: () => ({ since: form.since }), disabled: () => ({ since_disabled: true }), offsets: () => ({ from_offset: offsetsOf(form.offsets) }) }[form.start];
    const body = {
      ...start(),
      ...(form.until ? { until: form.until } : {}),
      ...(types.length ? { event_types: types } : {}),
      ...(form.only ? { only: form.only } : {}),
      ...(form.rate.trim() ? { rate_per_s: Number(form.rate) } : {}),
    };
    const text = JSON.stringify([webhook, body]);
    if (sent.text !== text) Object.assign(sent, { text, id: requestKey() });
    const begun = await post(`/v1/webhooks/${encodeURIComponent(webhook)}/replay`, { ...body, request_id: sent.id });
    notify("The replay has begun.");
    go(`/replays/${encodeURIComponent(begun.id)}`);
  };
  const input = (name, more = {}) => (tied) => html`<input type="text" spellcheck=${false} autocomplete="off" value=${form[name]} onInput=${(event) => take(name)(event.target.value)} ...${more} ...${tied} />`;
  const fields = (error) => {
    const at = (field) => error?.at?.(field);
    return html`
      <${Field} label="Webhook" hint="Its id; or type a part of its URL or description, and choose." error=${at("webhook") || (error?.status === 404 ? error.message : "")}>${(tied) => html`<${WebhookChoice} value=${form.webhook} onChange=${take("webhook")} ...${tied} />`}<//>
      <${Field} label="From" error=${at("/since_disabled")}>${(tied) => html`<${Select} options=${STARTS} value=${form.start} onChange=${take("start")} ...${tied} />`}<//>
      ${form.start === "since" && html`<${TimeField} label="Since" error=${at("/since")} value=${form.since} onChange=${take("since")} />`}
      ${form.start === "offsets" && html`<${Field} label="Offsets" error=${at("/from_offset")} hint="topic/partition: offset, one a line; no other partition is read.">${(tied) => html`<textarea rows="3" spellcheck=${false} value=${form.offsets} onInput=${(event) => take("offsets")(event.target.value)} ...${tied}></textarea>`}<//>`}
      <${TimeField} label="Until" optional error=${at("/until")} value=${form.until} onChange=${take("until")} />
      <${Field} label="Event types" optional error=${at("/event_types")} hint="Types or patterns, with commas.">${input("types")}<//>
      <${Field} label="Which" error=${at("/only")}>${(tied) => html`<${Select} options=${ONLY} value=${form.only} onChange=${take("only")} ...${tied} />`}<//>
      <${Field} label="Events a second" optional error=${at("/rate_per_s")} hint="1,000 unless said.">${input("rate", { inputmode: "decimal" })}<//>
    `;
  };
  return html`<${Page} title="New replay" back=${{ href: href("/replays"), text: "Replays" }} lead="Events of the past that match a webhook are delivered to it once more. Its receiver may get again what it has.">
    <${AdminOnly}><${Form} submit=${submit} action="Start the replay">${fields}<//><//>
    <${AdminOnly} not=${true}><${Empty} title="A viewer changes nothing."><p>Log in with an admin's token to do so.</p><//><//>
  <//>`;
}

export const routes = [
  { path: "/replays", nav: "Replays", page: Replays },
  { path: "/replays/new", page: Create },
  { path: "/replays/:id", page: Replay },
];
