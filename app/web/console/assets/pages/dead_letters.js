// Dead letters: deliveries that were given up, and sending them again.

import { get, post } from "../api.js";
import { count, plural } from "../format.js";
import { useGet } from "../live.js";
import { href } from "../router.js";
import { AdminOnly, Badge, Button, Code, Empty, Facts, Loading, Page, Section, Table, Time, confirm, html, notify } from "../ui.js";
import { Filters, Listing, Meant, filterOf } from "./filters.js";
import { Verbatim, parseExactly, pretty, useOnce } from "./record.js";
import { openRedrive, requestKey } from "./redrive.js";
import { WebhookLink, webhookOf } from "./webhook_link.js";

const EVERY_MS = 5000; // Each answer reads the topic.
const WHY = { exhausted: "all attempts failed", rejected: "the receiver refused it for good", expired: "it waited for too long" };
const REFUSED = { webhook_gone: "the webhook was deleted", disabled: "the webhook is disabled: enable it first", expired: "its event is past its expirytime", body_gone: "its event is kept no longer" };

const FIELDS = [
  { name: "webhook_id", label: "Webhook", placeholder: "wh_…" },
  { name: "reason", label: "Reason", options: [["", "any"], ...Object.keys(WHY).map((reason) => [reason, reason])] },
  { name: "event_type", label: "Event type", placeholder: "dataset.created" },
  { name: "since", label: "Given up since", kind: "time" },
  { name: "until", label: "Until", kind: "time" },
];

// --- All that a filter means

const PAGE = 200;
const PAGES_AT_MOST = 25;

/** How many there are for each webhook, and which of them would be refused. */
async function look(filter, signal) {
  const of = new Map();
  let [cursor, records, pages] = ["", 0, 0];
  do {
    const page = await get("/v1/dead-letters", { ...filter, limit: PAGE, cursor }, { signal });
    for (const letter of page.items) of.set(letter.webhook_id, (of.get(letter.webhook_id) || 0) + 1);
    records += page.items.length;
    cursor = page.next_cursor;
  } while (cursor && ++pages < PAGES_AT_MOST);
  const rows = [];
  for (const [id, meant] of of) {
    const webhook = await webhookOf(id);
    rows.push({ id, records: meant, refused: webhook ? !webhook.enabled && REFUSED.disabled : REFUSED.webhook_gone });
  }
  return { records, rows, more: Boolean(cursor), chosen: Object.keys(filter).length ? filter : { all: true }, key: requestKey() };
}

function Plan({ plan }) {
  if (!plan.records) return html`<${Empty} title="Nothing is meant by this."><p>There is no dead letter like that.</p><//>`;
  return html`<p>${plan.more ? "More than " : ""}${plural(plan.records, "dead letter")} of ${plural(plan.rows.length, "webhook")}. What is given up until you go on is sent, too.</p>
    <${Table} caption="What would happen" rows=${plan.rows} keyOf=${(row) => row.id} columns=${[
      { head: "Webhook", cell: (row) => html`<${WebhookLink} id=${row.id} />` },
      { head: "Dead letters", kind: "number", cell: (row) => `${count(row.records)}${plan.more ? " or more" : ""}` },
      { head: "What happens", cell: (row) => (row.refused ? html`<${Badge} kind="bad">refused<//> ${row.refused}` : "sent again") },
    ]} />`;
}

async function sendAll(plan, tell, signal) {
  const result = { resent: 0, refused: {} };
  let cursor = null;
  do {
    const sent = await post("/v1/dead-letters/resend", { ...plan.chosen, cursor }, { headers: { "Idempotency-Key": plan.key } });
    result.resent += sent.resent.length;
    for (const { code } of sent.refused) result.refused[code] = (result.refused[code] || 0) + 1;
    cursor = sent.next_cursor;
    tell(`${plural(result.resent, "dead letter")} sent again so far…`);
  } while (cursor && !signal.aborted);
  return result;
}

const told = ({ resent, refused }) =>
  [`${plural(resent, "dead letter")} sent again.`, ...Object.entries(refused).map(([code, number]) => `${count(number)} refused: ${REFUSED[code] || code}.`)].join(" ");

const resendAll = (filter) =>
  openRedrive("Send dead letters again?", {
    lead: html`<${Meant} filter=${filter} fields=${FIELDS} all=${html`<strong>All dead letters</strong>, of all webhooks.`} />
      <p>Each is sent with the same bytes under the same id, to the receiver as it is now.</p>`,
    look: (signal) => look(filter, signal),
    plan: Plan,
    nothing: (plan) => plan.rows.every((row) => row.refused),
    action: () => "Send them again",
    run: sendAll,
    done: told,
  });

function DeadLetters({ location }) {
  const filter = filterOf(location, FIELDS);
  const { cursor, limit } = location.query;
  const poll = useGet("/v1/dead-letters", { ...filter, cursor, limit }, { every: EVERY_MS });
  const some = poll.data?.items.length > 0;
  const act = async () => {
    await resendAll(filter);
    poll.refresh();
  };
  const actions = html`<${AdminOnly}>${some && html`<${Button} run=${act}>${Object.keys(filter).length ? "Send these again" : "Send all again"}<//>`}<//>`;
  const none = html`<${Empty} title="No dead letter.">
    <p>Nothing was given up. What is tried still is among the <a href=${href("/deliveries", { status: "retrying" })}>deliveries that are retried</a>.</p>
  <//>`;
  return html`<${Page} title="Dead letters" lead="Deliveries that were given up, each the last time that it was." actions=${actions}>
    <${Filters} location=${location} fields=${FIELDS} error=${poll.error} />
    <${Listing} location=${location} poll=${poll} fields=${FIELDS} caption="Dead letters, newest first" none=${none} noneLike="No dead letter is like that." columns=${[
      { head: "Event", cell: (row) => html`<a href=${href(`/dead-letters/${row.id}`)}>${row.event_type || row.delivery_id}</a><div class="muted">${row.event_id}</div>` },
      { head: "Webhook", cell: (row) => html`<${WebhookLink} id=${row.webhook_id} />` },
      { head: "Reason", cell: (row) => html`<${Badge} kind="bad">${row.reason}<//>` },
      { head: "Attempts", kind: "number", cell: (row) => count(row.attempts) },
      { head: "Last answer", cell: (row) => row.last_error || row.last_code || "–" },
      { head: "Given up", cell: (row) => html`<${Time} at=${row.given_up_at} />` },
    ]} />
  <//>`;
}

// --- One of them

async function resend(letter) {
  const webhook = await webhookOf(letter.webhook_id);
  const key = requestKey();
  const body = html`<p><strong>${letter.event_type}</strong> (${letter.event_id})</p>
    <p>to <strong>${webhook ? webhook.description || webhook.url : "a webhook that was deleted"}</strong> (${letter.webhook_id})</p>
    <p>The same bytes are sent under the same id, ${letter.delivery_id}, with a schedule of their own.</p>`;
  const run = () => post(`/v1/dead-letters/${letter.id}/resend`, {}, { headers: { "Idempotency-Key": key } });
  if (await confirm({ title: "Send it again?", body, action: "Send it again", run })) {
    notify("It is on its way.", "good", { href: href(`/deliveries/${letter.delivery_id}`), text: "What became of it" });
  }
}

function DeadLetter({ params }) {
  const record = useOnce((signal) => get(`/v1/dead-letters/${encodeURIComponent(params.id)}`, {}, { signal, parse: parseExactly }), [params.id]);
  const back = { href: href("/dead-letters"), text: "Dead letters" };
  const letter = record.data;
  if (!letter) return html`<${Page} title="Dead letter" back=${back}><${Loading} of=${record} /><//>`;
  const actions = html`<${AdminOnly}>${letter.event && html`<${Button} run=${() => resend(letter)}>Send it again<//>`}<//>`;
  return html`<${Page} title=${`Dead letter of ${letter.event_type || letter.delivery_id}`} back=${back} actions=${actions}>
    <${Section} title="Why it was given up" actions=${html`<${Badge} kind="bad">${letter.reason}<//>`}>
      <${Facts} items=${[
        ["Why", WHY[letter.reason]],
        ["Last status code", letter.last_code],
        ["Last error", letter.last_error && html`<${Code}>${letter.last_error}<//>`],
        ["Attempts", count(letter.attempts)],
        ["First attempt", html`<${Time} at=${letter.first_at} full=${true} />`],
        ["Last attempt", html`<${Time} at=${letter.last_at} full=${true} />`],
        ["Given up", html`<${Time} at=${letter.given_up_at} full=${true} />`],
        ["Delivery", html`<a href=${href(`/deliveries/${letter.delivery_id}`)}>${letter.delivery_id}</a>`],
        ["Webhook", html`<${WebhookLink} id=${letter.webhook_id} />`],
      ]} />
    <//>
    <${Section} title="Event"><div class="stack">
      <${Facts} items=${[
        ["Type", letter.event_type && html`<${Code}>${letter.event_type}<//>`],
        ["Id", letter.event_id && html`<${Code}>${letter.event_id}<//>`],
        ["Source", letter.event_source && html`<${Code}>${letter.event_source}<//>`],
        ["Read at (topic/partition/offset)", html`<${Code}>${letter.origin}<//>`],
      ]} />
      ${letter.event ? html`<h3>As it was sent</h3><${Verbatim} label="The event">${pretty(letter.event)}<//>` : html`<p>This dead letter does not have its event, so that it cannot be sent again from here.</p>`}
    </div><//>
  <//>`;
}

export const routes = [
  { path: "/dead-letters", nav: "Dead letters", page: DeadLetters },
  { path: "/dead-letters/:id", page: DeadLetter },
];
