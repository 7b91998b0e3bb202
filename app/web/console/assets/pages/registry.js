// The registry: how much it is still to be told, what the synchronisations did, and one dataset.

import { get, post } from "../api.js";
import { count, plural } from "../format.js";
import { useGet, usePoll } from "../live.js";
import { go, href } from "../router.js";
import { AdminOnly, Badge, Button, Code, Empty, Facts, Field, Form, Loading, Page, Problem, Section, Select, Table, Time, html, notify, openDialog, useState } from "../ui.js";

const MODES = [["push", "push: tell the registry"], ["pull", "pull: take over what it changed"], ["both", "both"]];
const RELATIONSHIPS = ["training_data", "evaluation_data", "validation_data", "test_data"].map((name) => [name, name]);
const STATE = { synced: "good", waiting: "warn", refused: "bad", unnamed: "" };
const SYNC = { done: "good", failed: "bad", running: "warn" };
const LINK = { linked: "good", waiting: "warn", refused: "bad" };

const Json = ({ value }) => html`<pre>${typeof value === "string" ? value : JSON.stringify(value, null, 2)}</pre>`;

const Off = () => html`<${Empty} title="There is no registry.">
  <p>Set <${Code}>VAULT_STREAM_REGISTRY__ENDPOINT<//> and restart the workers; what the vault tells of datasets is kept until then.</p>
<//>`;

// --- Actions

function Synchronise({ close, mode }) {
  const [chosen, set] = useState(mode);
  const submit = async () => close(await post("/v1/registry/sync", { mode: chosen }));
  return html`<p>What waits is tried at once, and what came of it is shown.</p>
    <${Form} submit=${submit} action="Start" extra=${html`<button type="button" onClick=${() => close()}>Cancel</button>`}>
      ${(error) => html`<${Field} label="Which way" error=${error?.at?.("/mode")}>${(tied) => html`<${Select} options=${MODES} value=${chosen} onChange=${set} ...${tied} />`}<//>`}
    <//>`;
}

async function synchronise(mode) {
  const begun = await openDialog("Synchronise with the registry?", Synchronise, { mode });
  if (begun) go(`/registry/syncs/${begun.id}`);
}

function AddLink({ close, id }) {
  const [form, set] = useState({ model: "", relationship: "training_data" });
  const submit = async () => close(await post("/v1/registry/links", { dataset_id: id, model_id: form.model.trim(), relationship: form.relationship }));
  return html`<p>The registry is told that a model uses <${Code}>${id}<//>, once it has the dataset.</p>
    <${Form} submit=${submit} action="Link" extra=${html`<button type="button" onClick=${() => close()}>Cancel</button>`}>
      ${(error) => html`
        <${Field} label="Model id" error=${error?.at?.("/model_id")}>${(tied) => html`<input type="text" spellcheck=${false} value=${form.model} onInput=${(event) => set({ ...form, model: event.target.value })} ...${tied} />`}<//>
        <${Field} label="Relationship" error=${error?.at?.("/relationship")}>${(tied) => html`<${Select} options=${RELATIONSHIPS} value=${form.relationship} onChange=${(relationship) => set({ ...form, relationship })} ...${tied} />`}<//>`}
    <//>`;
}

async function addLink(id, refresh) {
  if (!(await openDialog("Link a model?", AddLink, { id }))) return;
  notify("The link is noted; the registry is told.");
  refresh();
}

// --- The whole

const load = async (signal) => {
  const status = await get("/v1/registry/status", {}, { signal });
  const [newest] = status.syncs;
  if (!newest) return { status, last: null };
  try {
    return { status, last: await get(`/v1/registry/sync/${newest.id}`, {}, { signal }) };
  } catch (error) {
    // Its workers have ended meanwhile.
    if (error.status === 404) return { status, last: null };
    throw error;
  }
};

function Find() {
  const [id, set] = useState("");
  const [empty, setEmpty] = useState(false);
  const submit = () => {
    setEmpty(!id.trim());
    if (id.trim()) go(`/registry/datasets/${encodeURIComponent(id.trim())}`);
  };
  return html`<${Section} title="One dataset">
    <${Form} submit=${submit} action="Show">
      ${() => html`<${Field} label="Dataset id" error=${empty ? "Give the id of a dataset." : ""}>${(tied) => html`<input type="text" spellcheck=${false} value=${id} onInput=${(event) => set(event.target.value)} ...${tied} />`}<//>`}
    <//>
  <//>`;
}

function Registry() {
  const poll = usePoll(load);
  if (!poll.data) return html`<${Page} title="Registry"><${Loading} of=${poll} /><//>`;
  const { status, last } = poll.data;
  const actions = html`<${AdminOnly}><${Button} main run=${() => synchronise(status.mode)}>Synchronise<//><//>`;
  return html`<${Page} title="Registry" actions=${!status.off && actions}>
    <${Problem} error=${poll.error} />
    ${status.off && html`<${Off} />`}
    ${!status.off && html`<${Section} title="State" actions=${html`<${Badge} kind=${status.waiting ? "warn" : "good"}>${status.waiting ? "behind" : "up to date"}<//>`}>
      <${Facts} items=${[
        ["Datasets that it is still to be told of", count(status.waiting)],
        ["A synchronisation that does not say which way", status.mode],
        ["No answer for", status.missing.length ? `${plural(status.missing.length, "partition")}: ${status.missing.join(", ")}` : ""],
      ]} />
    <//>`}
    ${!status.off && html`<${Section} title="Last synchronisation" actions=${last && html`<a href=${href(`/registry/syncs/${last.id}`)}>All of it</a>`}>
      ${last ? html`<${Result} sync=${last} asked=${status.syncs[0].asked_at} />` : html`<${Empty} title="None that a worker remembers.">
        <p>Changes are exchanged on their own. To try at once what waits, and to see what comes of it, synchronise: here, or by <${Code}>vault-stream registry sync<//>.</p>
      <//>`}
    <//>`}
    ${status.syncs.length > 1 && html`<${Section} title="Before that">
      <${Table} caption="Earlier synchronisations, newest first" rows=${status.syncs.slice(1)} keyOf=${(row) => row.id} columns=${[
        { head: "Synchronisation", cell: (row) => html`<a href=${href(`/registry/syncs/${row.id}`)}><${Code}>${row.id}<//></a>` },
        { head: "Asked for", cell: (row) => html`<${Time} at=${row.asked_at} />` },
      ]} />
    <//>`}
    <${Find} />
  <//>`;
}

// --- One synchronisation

function Result({ sync, asked }) {
  const failed = sync.state === "done" && sync.failed?.length > 0;
  const parts = Object.values(sync.parts).filter(Boolean);
  const done = parts.filter((part) => part.done).length;
  const all = Object.keys(sync.parts).length + sync.missing.length;
  return html`
    <p role="status"><${Badge} kind=${failed ? "warn" : SYNC[sync.state]}>${failed ? `done, ${count(sync.failed.length)} failed` : sync.state}<//> ${sync.state === "failed" && "A part of it was lost with its worker. What was done stands: synchronise again."}</p>
    ${sync.state === "running" && html`<progress max=${Math.max(1, all)} value=${done} aria-label="Partitions that are done"></progress>`}
    <${Facts} items=${[
      ["Asked for", asked && html`<${Time} at=${asked} full=${true} />`],
      ["Which way", sync.mode],
      ["Told to the registry", count(sync.pushed)],
      ["Taken over from it", count(sync.pulled)],
      ["Conflicts", count(sync.conflicts?.length)],
      ["Failed", count(sync.failed?.length)],
      ["Not listed one by one", sync.not_named ? count(sync.not_named) : ""],
      ["Still to be told", count(sync.waiting)],
      ["No answer for", sync.missing.length ? `${plural(sync.missing.length, "partition")}: ${sync.missing.join(", ")}` : ""],
    ]} />`;
}

const dataset = (id) => html`<a href=${href(`/registry/datasets/${encodeURIComponent(id)}`)}>${id}</a>`;

function Sync({ params }) {
  const poll = useGet(`/v1/registry/sync/${encodeURIComponent(params.id)}`);
  const back = { href: href("/registry"), text: "Registry" };
  const sync = poll.data;
  if (!sync || poll.error?.status === 404) return html`<${Page} title="Synchronisation" back=${back}><${Loading} of=${poll} /><//>`;
  return html`<${Page} title="Synchronisation" lead=${sync.id} back=${back}>
    <${Problem} error=${poll.error} />
    <${Section} title="Result"><${Result} sync=${sync} /><//>
    ${sync.conflicts?.length > 0 && html`<${Section} title="Conflicts">
      <p class="muted">Both sides had changed. Who won is what both have now.</p>
      <${Table} caption="Conflicts of this synchronisation" rows=${sync.conflicts} keyOf=${(row) => row.dataset_id} columns=${[
        { head: "Dataset", cell: (row) => dataset(row.dataset_id) },
        { head: "Winner", cell: (row) => row.winner },
        { head: "The vault had", cell: (row) => html`<${Json} value=${row.vault} />` },
        { head: "The registry had", cell: (row) => html`<${Json} value=${row.registry} />` },
      ]} />
    <//>`}
    ${sync.failed?.length > 0 && html`<${Section} title="Failed">
      <p class="muted">What failed is tried again on its own.</p>
      <${Table} caption="What failed, and why" rows=${sync.failed} keyOf=${(row) => row.id} columns=${[
        { head: "What", cell: (row) => (["pull", "push"].includes(row.id) ? row.id : dataset(row.id)) },
        { head: "Why", cell: (row) => row.reason },
      ]} />
    <//>`}
  <//>`;
}

// --- One dataset

const TOLD = {
  synced: "The registry has it as it is.",
  waiting: "The registry is still to be told.",
  refused: "The registry refused this state: it waits for the next change of the dataset.",
  unnamed: "No event has told its name yet, so that the registry cannot be told.",
};

function Dataset({ params }) {
  const poll = useGet(`/v1/registry/datasets/${encodeURIComponent(params.id)}`);
  const back = { href: href("/registry"), text: "Registry" };
  const row = poll.data;
  if (poll.error?.status === 404) {
    return html`<${Page} title=${params.id} back=${back}><${Empty} title="No dataset of this id is known.">
      <p>Neither vault nor registry has told of it. Its first event makes it known; see that the id is spelt as in the event's data.</p>
    <//><//>`;
  }
  if (!row) return html`<${Page} title=${params.id} back=${back}><${Loading} of=${poll} /><//>`;
  const actions = row.status !== "deleted" && html`<${AdminOnly}><${Button} run=${() => addLink(row.id, poll.refresh)}>Link a model<//><//>`;
  return html`<${Page} title=${row.id} lead="A dataset, and how much of it the registry has." back=${back} actions=${actions}>
    <${Problem} error=${poll.error} />
    <${Section} title="State" actions=${html`<${Badge} kind=${STATE[row.state]}>${row.state}<//>`}>
      <p>${TOLD[row.state]}</p>
      <${Facts} items=${[
        ["Status", row.status],
        ["Stated last by", row.origin],
        ["Version here", count(row.state_version)],
        ["Version that the registry has", count(row.acknowledged_version)],
        ["Registration", row.registration_id && html`<${Code}>${row.registration_id}<//>`],
        ["Changed in the vault", row.vault_changed_at && html`<${Time} at=${row.vault_changed_at} full=${true} />`],
        ["Changed in the registry", row.registry_changed_at && html`<${Time} at=${row.registry_changed_at} full=${true} />`],
        ["Deleted", row.deleted_at && html`<${Time} at=${row.deleted_at} full=${true} />`],
      ]} />
    <//>
    <${Section} title="Links to models">
      ${row.links.length
        ? html`<${Table} caption="Models that use this dataset" rows=${row.links} keyOf=${(link) => `${link.model_id} ${link.relationship}`} columns=${[
            { head: "Model", cell: (link) => html`<${Code}>${link.model_id}<//>` },
            { head: "Relationship", cell: (link) => link.relationship },
            { head: "Status", cell: (link) => html`<${Badge} kind=${LINK[link.status]}>${link.status}<//>` },
            { head: "Linked", cell: (link) => html`<${Time} at=${link.linked_at} />` },
          ]} />`
        : html`<${Empty} title="No model is linked."><p>Link one here, or by <${Code}>vault-stream registry link --help<//>.</p><//>`}
    <//>
    ${row.document && html`<${Section} title="What the registry is to hold"><${Json} value=${row.document} /><//>`}
  <//>`;
}

export const routes = [
  { path: "/registry", nav: "Registry", page: Registry },
  { path: "/registry/syncs/:id", page: Sync },
  { path: "/registry/datasets/:id", page: Dataset },
];
