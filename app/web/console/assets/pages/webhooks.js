// Webhooks: which there are, and how one of them is.

import { Bars } from "../charts.js";
import { count, duration, standing } from "../format.js";
import { useGet } from "../live.js";
import { go, href } from "../router.js";
import { AdminOnly, Badge, Code, Empty, Facts, Field, Loading, Page, Pager, Problem, Section, Select, Table, Time, html, useEffect, useState } from "../ui.js";
import { Actions } from "./webhook_actions.js";
import { routes as forms } from "./webhook_form.js";

const HEALTH = { ok: "good", failing: "warn", disabled: "bad", "failing from the start": "warn" };
const HEALTHS = [["", "any"], ["ok", "ok, unknown, or failing from the start"], ["failing", "failing"], ["disabled", "disabled"]];
const STATUS = { delivered: "good", failed: "bad", missed: "bad", retrying: "warn" };
const BLOCKED = {
  slot: "all of its slots are in use",
  rate: "its rate limit",
  pace: "it fails, so attempts go one by one, with a growing gap between them",
  hold: "it is held",
  no_key: "a key that it needs is missing: of WEBHOOKS__ENCRYPTION_KEYS or, for v1a, of WEBHOOKS__SIGNING_KEYS",
};

function HealthBadge({ webhook }) {
  const told = standing(webhook);
  return html`<${Badge} kind=${HEALTH[told]}>${told}<//>`;
}

/** In words, where there was none. */
const firstSuccess = ({ first_success_at: at, failing_since: failing }) =>
  at ? html`<${Time} at=${at} full=${true} />` : `none yet, at this URL${failing ? "" : "; a ping tells whether it takes what is sent"}`;

// --- The list

/** Types a search into the address, a moment after the last letter. */
function Filters({ location }) {
  const { search = "", health = "" } = location.query;
  const [typed, setTyped] = useState(search);
  // A link may change it, too, and says what is searched even where that was not what was typed since.
  useEffect(() => setTyped(search), [location]);
  useEffect(() => {
    if (typed === search) return undefined;
    const timer = setTimeout(() => go(location.path, { search: typed, health }, { replace: true }), 300);
    return () => clearTimeout(timer);
  }, [typed, location]);
  return html`<div class="filters" role="search">
    <${Field} label="Search">${(tied) => html`<input type="search" value=${typed} onInput=${(event) => setTyped(event.target.value)} placeholder="URL, description, event, id" ...${tied} />`}<//>
    <${Field} label="Health">${(tied) => html`<${Select} options=${HEALTHS} value=${health} onChange=${(value) => go(location.path, { search: typed, health: value }, { replace: true })} ...${tied} />`}<//>
  </div>`;
}

function Webhooks({ location }) {
  const { search, health, cursor, limit } = location.query;
  const poll = useGet("/v1/webhooks", { search, health, cursor, limit });
  const make = html`<${AdminOnly}><a class="button main" href="#/webhooks/new">New webhook</a><//>`;
  const filtered = search || health;
  const shown = () => {
    if (!poll.data) return html`<${Loading} of=${poll} />`;
    if (poll.data.items.length) {
      return html`<${Problem} error=${poll.error} />
        <${Table} caption="Webhooks, oldest first" rows=${poll.data.items} keyOf=${(row) => row.id} columns=${[
          { head: "Webhook", cell: (row) => html`<a href=${href(`/webhooks/${row.id}`)}>${row.description || row.url}</a>${row.description && html`<div class="muted">${row.url}</div>`}` },
          { head: "Events", cell: (row) => row.events.join(", ") },
          { head: "Health", cell: (row) => html`<${HealthBadge} webhook=${row} />` },
          { head: "Changed", cell: (row) => html`<${Time} at=${row.updated_at} />` },
        ]} />
        <${Pager} location=${location} next=${poll.data.next_cursor} />`;
    }
    if (filtered) return html`<${Empty} title="No webhook is like that."><p><a href="#/webhooks">Show all of them</a></p><//>`;
    return html`<${Empty} title="No webhook yet.">
      <${AdminOnly}><p><a href="#/webhooks/new">Make one</a>: a URL and the events that it wants.</p><//>
      <p>On the command line: <${Code}>vault-stream webhooks create --help<//></p>
    <//>`;
  };
  return html`<${Page} title="Webhooks" actions=${make}>
    <${Filters} location=${location} />
    ${shown()}
  <//>`;
}

// --- One of them

function LastHour({ activity, webhook }) {
  const total = (name) => activity.buckets.reduce((sum, bucket) => sum + bucket[name], 0);
  const since = Date.parse(activity.since);
  // Of one that was made later there was nothing before.
  const young = Date.now() - since < 3_600_000 && Date.parse(webhook.created_at) < since;
  const bars = activity.buckets.map((bucket) => ({ label: `${bucket.at.slice(11, 16)} UTC, delivered / failed`, parts: [bucket.delivered, bucket.failed] }));
  const caption = `Attempts of the last hour, five minutes each: ${count(total("delivered"))} delivered, ${count(total("failed"))} failed.`;
  return html`<${Section} title="The last hour">
    <${Bars} bars=${bars} kinds=${["good", "bad"]} caption=${caption} />
    ${young && html`<p class="muted">Its owner took it over <${Time} at=${activity.since} />; what was before is in the deliveries.</p>`}
    <${Facts} items=${[
      ["In flight", count(activity.in_flight)],
      ["Failed attempts since the last success", activity.failures ? count(activity.failures) : ""],
      ["Why no attempt starts now", activity.blocked && BLOCKED[activity.blocked]],
      ["Pace", activity.paced ? "slow: one attempt at a time" : "full"],
    ]} />
  <//>`;
}

function Latest({ id }) {
  const poll = useGet("/v1/deliveries", { webhook_id: id, limit: 5 });
  const all = html`<a href=${href("/deliveries", { webhook_id: id })}>All of them</a>`;
  return html`<${Section} title="Latest deliveries" actions=${all}>
    ${!poll.data ? html`<${Loading} of=${poll} />` : poll.data.items.length
      ? html`<${Table} caption="The latest deliveries of this webhook" rows=${poll.data.items} keyOf=${(row) => row.id} columns=${[
          { head: "Event", cell: (row) => html`<a href=${href(`/deliveries/${row.id}`)}>${row.event_type}</a>` },
          { head: "Status", cell: (row) => html`<${Badge} kind=${STATUS[row.status]}>${row.in_flight ? "in flight" : row.status}<//>` },
          { head: "Attempts", kind: "number", cell: (row) => count(row.attempts) },
          { head: "Answer", cell: (row) => row.last_error || row.response_code || "–" },
          { head: "Made", cell: (row) => html`<${Time} at=${row.created_at} />` },
        ]} />`
      : html`<${Empty} title="No delivery yet."><p>A ping sends it an event that is made up; or publish one that it wants.</p><//>`}
  <//>`;
}

const Values = ({ of }) => Object.entries(of).map(([name, value]) => html`<div key=${name}><${Code}>${name}<//>: <${Code}>${typeof value === "string" ? value : JSON.stringify(value)}<//></div>`);

function Configuration({ webhook }) {
  const filter = webhook.filter || {};
  const wanted = { ...(filter.tenant_id?.length ? { tenant_id: filter.tenant_id } : {}), ...(filter.dataset_id?.length ? { dataset_id: filter.dataset_id } : {}), ...filter.data };
  return html`<${Section} title="Configuration">
    <${Facts} items=${[
      ["URL", html`<${Code}>${webhook.url}<//>`],
      ["Events", webhook.events.map((event) => html`<div key=${event}><${Code}>${event}<//></div>`)],
      ["Only where", Object.keys(wanted).length ? html`<${Values} of=${wanted} />` : ""],
      ["Headers", Object.keys(webhook.headers).length ? html`<${Values} of=${webhook.headers} />` : ""],
      ["Order", webhook.ordering === "strict" ? "in the order of each subject" : "a retried event may be overtaken"],
      ["Time limit", webhook.timeout_s ? duration(webhook.timeout_s) : "as the deployment"],
      ["Attempts a second", webhook.rate_limit_per_s ? `${count(webhook.rate_limit_per_s)} at most` : "without a limit"],
      ["Attempts at one time", webhook.max_in_flight ? count(webhook.max_in_flight) : "as the deployment"],
      ["Retry schedule", webhook.retry_schedule_s ? webhook.retry_schedule_s.map(duration).join(", ") : "as the deployment"],
      ["Signatures", webhook.signatures.join(", ")],
      ["Handshake", webhook.handshake ? "asked for" : ""],
      ["Id", html`<${Code}>${webhook.id}<//>`],
      ["Version", count(webhook.version)],
      ["Made", html`<${Time} at=${webhook.created_at} full=${true} />`],
      ["Changed", html`<${Time} at=${webhook.updated_at} full=${true} />`],
    ]} />
  <//>`;
}

function Webhook({ params }) {
  const path = `/v1/webhooks/${encodeURIComponent(params.id)}`;
  const poll = useGet(path);
  const activity = useGet(`${path}/activity`);
  const back = { href: href("/webhooks"), text: "Webhooks" };
  const webhook = poll.data;
  if (!webhook || poll.error?.status === 404) return html`<${Page} title="Webhook" back=${back}><${Loading} of=${poll} /><//>`;
  return html`<${Page} title=${webhook.description || webhook.url} back=${back}
    actions=${html`<${AdminOnly}><${Actions} webhook=${webhook} refresh=${poll.refresh} /><//>`}>
    <${Problem} error=${poll.error} />
    <${Section} title="Health" actions=${html`<${HealthBadge} webhook=${webhook} />`}>
      <${Facts} items=${[
        ["First success", firstSuccess(webhook)],
        ["Failing since", webhook.failing_since && html`<${Time} at=${webhook.failing_since} full=${true} />`],
        ["Disabled", webhook.disabled_at && html`<${Time} at=${webhook.disabled_at} full=${true} />`],
        ["Why", webhook.disabled_reason],
        ["Held until", webhook.hold_until && html`<${Time} at=${webhook.hold_until} full=${true} />`],
        ["Enabled", webhook.enabled ? "yes" : "no: its events are noted as missed"],
      ]} />
    <//>
    ${activity.data ? html`<${LastHour} activity=${activity.data} webhook=${webhook} />` : html`<${Loading} of=${activity} what="Asking its owner" />`}
    <${Latest} id=${webhook.id} />
    <${Configuration} webhook=${webhook} />
  <//>`;
}

export const routes = [
  { path: "/webhooks", nav: "Webhooks", page: Webhooks },
  ...forms,
  { path: "/webhooks/:id", page: Webhook },
];
