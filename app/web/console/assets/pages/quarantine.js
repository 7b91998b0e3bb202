// Quarantine: records that could not be processed, and putting them back where they came from.

import { get, post } from "../api.js";
import { bytes, count, plural, exactly } from "../format.js";
import { useGet } from "../live.js";
import { href } from "../router.js";
import { AdminOnly, Badge, Button, Code, Empty, Facts, Loading, Page, Section, Table, Time, confirm, html, notify } from "../ui.js";
import { Filters, Listing, Meant, filterOf } from "./filters.js";
import { Bytes, ShortBytes, useOnce } from "./record.js";
import { openRedrive } from "./redrive.js";

const EVERY_MS = 5000; // Each answer reads the topic.
const REASONS = ["invalid_envelope", "invalid_data", "unknown_type", "too_large", "handler_error", "rejected_upstream"];
const ANEW = "Publish it anew, mended, under a new id: put back as it is, it fails again.";
const HELP = {
  invalid_envelope: ANEW,
  invalid_data: ANEW,
  unknown_type: "Put it back once the workers know its type; if the type is wrong, publish it anew under a new id.",
  too_large: "Publish it anew, smaller, under a new id: put back as it is, it fails again.",
  handler_error: "Put it back once what the agent failed at is mended.",
  rejected_upstream: "Put it back once that service would take it.",
};
const SHOWN_AT_MOST = 20;

const FIELDS = [
  { name: "reason", label: "Reason", options: [["", "any"], ...REASONS.map((reason) => [reason, reason])] },
  { name: "agent", label: "Agent", placeholder: "router" },
  { name: "type", label: "Event type", placeholder: "dataset.created" },
  { name: "origin", label: "Origin", placeholder: "topic/partition/offset" },
  { name: "since", label: "Since", kind: "time" },
  { name: "until", label: "Until", kind: "time" },
];

/** A record may be here for its impossible timestamp: then it is a number. */
const When = ({ at, full }) => (typeof at === "string" ? html`<${Time} at=${at} full=${full} />` : html`${count(at)} ms`);

const cut = (entry) => `only a part of its ${bytes(entry.truncated)} is here`;

// --- All that a filter means

const PAGES_AT_MOST = 10;

/** The earlier one of two times, where one may not be given. */
const earlier = (one, other) => (!one || (other && Date.parse(other) < Date.parse(one)) ? other : one);

/** Just after a time: what comes later is not among what was looked at. */
const after = (at) => exactly(Date.parse(at) + 1);

/** What the API would put back, and what it would refuse, of what is there by now, as far as the first pages tell. */
async function look(filter, signal) {
  let [cursor, newest, pages] = ["", "", 0];
  do {
    const page = await get("/v1/quarantine", { ...filter, limit: 200, cursor }, { signal });
    for (const entry of page.items) {
      if (typeof entry.quarantined_at === "string" && (!newest || Date.parse(entry.quarantined_at) > Date.parse(newest))) newest = entry.quarantined_at;
    }
    cursor = page.next_cursor;
  } while (cursor && ++pages < PAGES_AT_MOST);
  const until = newest ? earlier(filter.until, after(newest)) : filter.until;
  const chosen = until || Object.keys(filter).length ? { ...filter, until } : { all: true };
  const plan = await post("/v1/quarantine/republish", { ...chosen, dry_run: true }, { signal });
  return { ...plan, chosen };
}

function Plan({ plan }) {
  const refused = Object.keys(plan.refused).length;
  if (!plan.would_republish && !refused) return html`<${Empty} title="Nothing is meant by this."><p>Nothing in quarantine is like that.</p><//>`;
  return html`<p>${plural(plan.would_republish, "record")}; what comes here from now on is not among them.</p>
    <${Table} caption="What would be put back" rows=${plan.of} keyOf=${(row) => `${row.topic} ${row.reason} ${row.agent}`} columns=${[
      { head: "Topic", cell: (row) => row.topic },
      { head: "Reason", cell: (row) => html`<${Badge}>${row.reason}<//>` },
      { head: "Agent", cell: (row) => html`<${Badge}>${row.agent}<//>` },
      { head: "Records", kind: "number", cell: (row) => count(row.records) },
    ]} />
    ${refused > 0 && html`<p><${Badge} kind="bad">refused<//> ${plural(refused, "more is", "more are")} refused: only a part of each is here.</p>`}`;
}

const Refused = ({ result }) => {
  const rows = Object.entries(result.refused);
  return rows.length > 0 && html`<${Table} caption=${rows.length > SHOWN_AT_MOST ? `Refused, the first ${SHOWN_AT_MOST} of ${count(rows.length)}` : "Refused"} showCaption=${true}
    rows=${rows.slice(0, SHOWN_AT_MOST)} keyOf=${([id]) => id} columns=${[
      { head: "Record", cell: ([id]) => html`<a href=${href(`/quarantine/${id}`)}>${id}</a>` },
      { head: "Why", cell: ([, reason]) => reason },
    ]} />`;
};

const told = ({ republished, refused }) =>
  [`${plural(Object.keys(republished).length, "record")} put back.`, Object.keys(refused).length ? `${count(Object.keys(refused).length)} refused.` : ""].join(" ").trim();

const republishAll = (filter) =>
  openRedrive("Put records back?", {
    lead: html`<${Meant} filter=${filter} fields=${FIELDS} all=${html`<strong>Everything in quarantine</strong>.`} />
      <p>Each goes back to the topic that it came from, and is processed as if it were new. What fails again comes back here.</p>`,
    look: (signal) => look(filter, signal),
    plan: Plan,
    nothing: (plan) => !plan.would_republish,
    action: (plan) => `Put ${count(plan.would_republish)} back`,
    run: (plan) => post("/v1/quarantine/republish", plan.chosen),
    done: told,
    more: Refused,
  });

function Quarantine({ location }) {
  const filter = filterOf(location, FIELDS);
  const { cursor, limit } = location.query;
  const poll = useGet("/v1/quarantine", { ...filter, cursor, limit }, { every: EVERY_MS });
  const some = poll.data?.items.length > 0;
  const act = async () => {
    await republishAll(filter);
    poll.refresh();
  };
  const actions = html`<${AdminOnly}>${some && html`<${Button} run=${act}>${Object.keys(filter).length ? "Put these back" : "Put all back"}<//>`}<//>`;
  const none = html`<${Empty} title="Nothing is in quarantine."><p>Every record could be processed. There is nothing to do.</p><//>`;
  return html`<${Page} title="Quarantine" lead="Records that could not be processed, each once." actions=${actions}>
    <${Filters} location=${location} fields=${FIELDS} error=${poll.error} />
    <${Listing} location=${location} poll=${poll} fields=${FIELDS} caption="Records in quarantine, newest first" none=${none} noneLike="Nothing in quarantine is like that." columns=${[
      { head: "Record", cell: (row) => html`<a href=${href(`/quarantine/${row.id}`)}>${row.type || row.first_origin}</a>${row.type && html`<div class="muted">${row.first_origin}</div>`}` },
      { head: "Reason", cell: (row) => html`<${Badge} kind="bad">${row.reason}<//> ${row.truncated !== null && html`<${Badge} kind="warn">cut<//>`}` },
      { head: "What is wrong", cell: (row) => row.detail },
      { head: "Agent", cell: (row) => html`<${Badge}>${row.agent}<//>` },
      { head: "Since", cell: (row) => html`<${When} at=${row.quarantined_at} />` },
    ]} />
  <//>`;
}

// --- One of them

async function republish(entry) {
  const body = html`<p><strong>${entry.type || "A record without a type"}</strong></p>
    <p>to the topic of <${Code}>${entry.first_origin}<//>, where <${Code}>${entry.agent}<//> reads it again.</p>
    <p>It is processed as if it were new. If it fails again, it comes back here.</p>`;
  const run = () => post(`/v1/quarantine/${entry.id}/republish`, {});
  const done = await confirm({ title: "Put it back?", body, action: "Put it back", run });
  if (done) notify(`It was put back, and stands at ${done.to} now.`);
}

function Entry({ params }) {
  const record = useOnce((signal) => get(`/v1/quarantine/${encodeURIComponent(params.id)}`, {}, { signal }), [params.id]);
  const back = { href: href("/quarantine"), text: "Quarantine" };
  const entry = record.data;
  if (!entry) return html`<${Page} title="Record in quarantine" back=${back}><${Loading} of=${record} /><//>`;
  const whole = entry.truncated === null;
  return html`<${Page} title=${entry.type || entry.first_origin} back=${back} actions=${html`<${AdminOnly}>${whole && html`<${Button} run=${() => republish(entry)}>Put it back<//>`}<//>`}>
    ${!whole && html`<div class="problem"><p>It cannot be put back: ${cut(entry)}. Publish it again from where it was made.</p></div>`}
    <${Section} title="Why it is here" actions=${html`<${Badge} kind="bad">${entry.reason}<//>`}>
      <${Facts} items=${[
        ["What is wrong", entry.detail],
        ["What helps", HELP[entry.reason]],
        ["Agent", html`<${Code}>${entry.agent}<//>`],
        ["Since", html`<${When} at=${entry.quarantined_at} full=${true} />`],
        ["Event type", entry.type && html`<${Code}>${entry.type}<//>`],
        ["Read at (topic/partition/offset)", html`<${Code}>${entry.origin}<//>`],
        ["Put back before, from", entry.first_origin !== entry.origin && html`<${Code}>${entry.first_origin}<//>`],
        ["Its own time", html`<${When} at=${entry.timestamp} full=${true} />`],
      ]} />
    <//>
    <${Section} title="Record"><div class="stack">
      <${Facts} items=${[["Key", html`<${ShortBytes} of=${entry.key} />`]]} />
      <h3>Headers</h3>
      ${entry.headers.length
        ? html`<${Table} caption="Headers of the record" rows=${entry.headers.map((header, at) => ({ ...header, at }))} keyOf=${(row) => row.at} columns=${[
            { head: "Header", cell: (row) => html`<${Code}>${row.name}<//>` },
            { head: "Value", cell: (row) => html`<${ShortBytes} of=${row.value} />` },
          ]} />`
        : html`<p class="muted">None.</p>`}
      <h3>Value</h3>
      <${Bytes} label="Value of the record" of=${entry.value} />
    </div><//>
  <//>`;
}

export const routes = [
  { path: "/quarantine", nav: "Quarantine", page: Quarantine },
  { path: "/quarantine/:id", page: Entry },
];
