// Deliveries: searched, and one of them with its attempts.

import { post } from "../api.js";
import { count, duration } from "../format.js";
import { useGet } from "../live.js";
import { href } from "../router.js";
import { AdminOnly, Badge, Button, Code, Empty, Facts, Loading, Page, Problem, Section, Table, Time, confirm, html, notify } from "../ui.js";
import { Filters, Listing } from "./filters.js";
import { Verbatim } from "./record.js";
import { requestKey } from "./redrive.js";
import { WebhookLink, webhookOf } from "./webhook_link.js";

const KIND = { delivered: "good", failed: "bad", missed: "bad", retrying: "warn" };
const STATUSES = ["pending", "retrying", "delivered", "failed", "missed", "cancelled"];
const WHY = {
  slot: "all slots of its webhook are in use",
  rate: "the rate limit of its webhook",
  pace: "its webhook fails, so attempts go one by one",
  hold: "its webhook is held",
  order: "an earlier event of its subject comes first",
  no_key: "a key that its webhook needs is missing: of WEBHOOKS__ENCRYPTION_KEYS or, for v1a, of WEBHOOKS__SIGNING_KEYS",
  retry: "the last attempt failed, and the next one is due later",
  resend: "it was asked for again",
  exhausted: "all attempts of its schedule failed",
  rejected: "its receiver refused it for good",
  gone: "its receiver is gone: it answered 410",
  expired: "it waited for too long",
};
const GIVEN_UP = ["exhausted", "rejected", "expired"];
const OUTCOME = { delivered: "good", failed: "bad", retry: "warn" };
const milliseconds = (ms) => (ms === undefined ? "" : duration(ms / 1000));

const FIELDS = [
  { name: "webhook_id", label: "Webhook", placeholder: "wh_…" },
  { name: "status", label: "Status", options: [["", "any"], ...STATUSES.map((status) => [status, status])] },
  { name: "event_id", label: "Event id" },
  { name: "since", label: "Made since", kind: "time" },
];

const Status = ({ of }) => html`<${Badge} kind=${KIND[of.status]}>${of.in_flight ? "in flight" : of.status}<//>`;

function Deliveries({ location }) {
  const { webhook_id, status, event_id, since, cursor, limit } = location.query;
  const poll = useGet("/v1/deliveries", { webhook_id, status, event_id, since, cursor, limit });
  const none = html`<${Empty} title="No delivery yet.">
    <p>One is made for each event and each webhook that wants it. <a href="#/webhooks">Ping a webhook</a> to see one.</p>
  <//>`;
  return html`<${Page} title="Deliveries">
    <${Filters} location=${location} fields=${FIELDS} error=${poll.error} />
    <${Listing} location=${location} poll=${poll} fields=${FIELDS} caption="Deliveries, newest first" none=${none} noneLike="No delivery is like that." columns=${[
      { head: "Event", cell: (row) => html`<a href=${href(`/deliveries/${row.id}`)}>${row.event_type}</a><div class="muted">${row.event_id}</div>` },
      { head: "Webhook", cell: (row) => html`<${WebhookLink} id=${row.webhook_id} />` },
      { head: "Status", cell: (row) => html`<${Status} of=${row} />` },
      { head: "Attempts", kind: "number", cell: (row) => count(row.attempts) },
      { head: "Answer", cell: (row) => row.last_error || row.response_code || "–" },
      { head: "Made", cell: (row) => html`<${Time} at=${row.created_at} />` },
    ]} />
  <//>`;
}

// --- One of them

async function resend(delivery) {
  const webhook = await webhookOf(delivery.webhook_id);
  const key = requestKey();
  const body = html`<p><strong>${delivery.event_type}</strong> (${delivery.event_id})</p>
    <p>to <strong>${webhook ? webhook.description || webhook.url : "a webhook that was deleted"}</strong> (${delivery.webhook_id})</p>
    <p>The same bytes are sent under the same id once more, with a schedule of their own. ${delivery.status === "delivered" && "Its receiver has them already."}</p>`;
  const run = () => post(`/v1/deliveries/${delivery.id}/resend`, {}, { headers: { "Idempotency-Key": key } });
  if (await confirm({ title: "Send it again?", body, action: "Send it again", run })) notify("It is on its way.");
}

const Attempts = ({ delivery }) => html`<${Section} title="Attempts">
  ${delivery.attempt_log.length
    ? html`<${Table} caption="The last attempts of this delivery, at most 20" rows=${delivery.attempt_log} keyOf=${(row) => `${row.attempt}-${row.started_at}`} columns=${[
        { head: "Attempt", cell: (row) => count(row.attempt) },
        { head: "Started", cell: (row) => html`<${Time} at=${row.started_at} full=${true} />` },
        { head: "Outcome", cell: (row) => html`<${Badge} kind=${OUTCOME[row.outcome]}>${row.outcome}<//>` },
        { head: "Status code", kind: "number", cell: (row) => row.status_code ?? "–" },
        { head: "Error", cell: (row) => row.error || "–" },
        { head: "Took", kind: "number", cell: (row) => milliseconds(row.duration_ms) },
        { head: "Next attempt", cell: (row) => (row.next_at ? html`<${Time} at=${row.next_at} />` : "–") },
      ]} />`
    : html`<${Empty} title="No attempt yet."><p>${WHY[delivery.reason] ? `It waits: ${WHY[delivery.reason]}.` : "It is not the turn of this one."}</p><//>`}
<//>`;

function Answer({ delivery }) {
  const told = delivery.response_code !== undefined || delivery.last_error;
  return html`<${Section} title="Answer"><div class="stack">
    ${told
      ? html`<${Facts} items=${[
          ["Status code", delivery.response_code],
          ["Error", delivery.last_error && html`<${Code}>${delivery.last_error}<//>`],
          ["Took", milliseconds(delivery.duration_ms)],
        ]} />`
      : html`<p class="muted">None yet.</p>`}
    ${delivery.response_body && html`<h3>Body</h3><${Verbatim} label="Body of the answer">${delivery.response_body}<//>`}
  </div><//>`;
}

function Delivery({ params }) {
  const poll = useGet(`/v1/deliveries/${encodeURIComponent(params.id)}`);
  const back = { href: href("/deliveries"), text: "Deliveries" };
  const delivery = poll.data;
  if (!delivery || poll.error?.status === 404) return html`<${Page} title="Delivery" back=${back}><${Loading} of=${poll} /><//>`;
  const act = async () => {
    await resend(delivery);
    poll.refresh();
  };
  const letters = GIVEN_UP.includes(delivery.reason) && delivery.status === "failed";
  return html`<${Page} title=${`Delivery of ${delivery.event_type}`} back=${back} actions=${html`<${AdminOnly}><${Button} run=${act}>Send it again<//><//>`}>
    <${Problem} error=${poll.error} />
    <${Section} title="State" actions=${html`<${Status} of=${delivery} />`}>
      <${Facts} items=${[
        ["Why", WHY[delivery.reason]],
        ["Attempts", count(delivery.attempts)],
        ["Next attempt", delivery.next_attempt_at && html`<${Time} at=${delivery.next_attempt_at} full=${true} />`],
        ["Delivered", delivery.delivered_at && html`<${Time} at=${delivery.delivered_at} full=${true} />`],
        ["Made", html`<${Time} at=${delivery.created_at} full=${true} />`],
        ["Given up", letters && html`<a href=${href("/dead-letters", { webhook_id: delivery.webhook_id, event_type: delivery.event_type })}>Its dead letter is among these</a>`],
      ]} />
    <//>
    <${Section} title="Request" actions=${html`<a href=${href("/deliveries", { event_id: delivery.event_id })}>All deliveries of this event</a>`}>
      <${Facts} items=${[
        ["Webhook", html`<${WebhookLink} id=${delivery.webhook_id} />`],
        ["Event type", html`<${Code}>${delivery.event_type}<//>`],
        ["Event id", html`<${Code}>${delivery.event_id}<//>`],
        ["Event source", html`<${Code}>${delivery.event_source}<//>`],
        ["Sent as webhook-id", html`<${Code}>${delivery.id}<//>`],
        ["Read at (topic/partition/offset)", delivery.origin && html`<${Code}>${delivery.origin}<//>`],
      ]} />
    <//>
    <${Answer} delivery=${delivery} />
    <${Attempts} delivery=${delivery} />
  <//>`;
}

export const routes = [
  { path: "/deliveries", nav: "Deliveries", page: Deliveries },
  { path: "/deliveries/:id", page: Delivery },
];
