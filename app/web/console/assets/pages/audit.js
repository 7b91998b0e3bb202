// The audit trail: how far each chain is, whether it is as it was sealed, and what of it can be taken away.

import { api, post } from "../api.js";
import { count, duration, plural } from "../format.js";
import { useGet } from "../live.js";
import { AdminOnly, Badge, Button, Code, Empty, Facts, Loading, Page, Problem, Section, Table, Time, confirm, html, notify } from "../ui.js";
import { Export, Reports } from "./audit_files.js";

const isOff = (workers) => workers.data?.items[0]?.off?.includes("governance");

// --- The chains

/** In halves where it does not fit into a line, so that no single character stands alone. */
const Hash = ({ of }) => html`<${Code}>${of.slice(0, 32)}<wbr />${of.slice(32)}<//>`;

const Head = ({ row }) => (row.head_hash ? html`${count(row.head_sequence)}<div class="muted"><${Hash} of=${row.head_hash} /></div>` : "none yet");

function Chains({ off }) {
  const poll = useGet("/v1/governance/status");
  const body = () => {
    if (!poll.data) return html`<${Loading} of=${poll} />`;
    const { partitions, missing } = poll.data;
    return html`<${Problem} error=${poll.error} />
      ${missing.length > 0 && html`<p class="problem" role="alert">No answer for ${plural(missing.length, "partition")} (${missing.join(", ")}): a worker is being replaced, or is away.</p>`}
      ${off && html`<${Empty} title="Governance is off: nothing is sealed.">
        <p>What happens is recorded in the audit topic all the same. Set <${Code}>VAULT_STREAM_GOVERNANCE__ENDPOINT<//> and restart the workers: then it is chained, sealed and sent to the dashboard.</p>
      <//>`}
      ${partitions.length > 0 && html`<${Table} caption="The chain of each partition of the audit topic" rows=${partitions} keyOf=${(row) => row.partition} columns=${[
        { head: "Partition", cell: (row) => row.partition },
        { head: "Head: sequence and hash", cell: (row) => html`<${Head} row=${row} />` },
        { head: "Not sealed", kind: "number", cell: (row) => count(row.unsealed) },
        { head: "Sealed, not accepted", kind: "number", cell: (row) => count(row.sealed) },
        { head: "Oldest not accepted", kind: "number", cell: (row) => duration(row.oldest_unaccepted_s) },
      ]} />`}
      ${!partitions.length && !missing.length && html`<${Empty} title="No partition yet."><p>The audit topic is made when the first worker is ready.</p><//>`}`;
  };
  return html`<${Section} title="Chains">${body()}<//>`;
}

// --- Is it as it was sealed?

const KIND = { edited: "edited", removed: "removed", inserted: "inserted", swapped: "exchanged", truncated: "cut off", unreadable: "unreadable" };

const start = async () => {
  await post("/v1/governance/verifications", {});
};

const cancel = (run, refresh) =>
  confirm({
    title: "Cancel the verification?",
    body: html`<p>The verification <${Code}>${run.id}<//> at ${run.worker} ends without a result. The trail is not touched.</p>`,
    action: "End it",
    danger: true,
    run: async () => {
      await api("DELETE", `/v1/governance/verifications/${run.id}`);
      refresh();
      notify("The verification is cancelled.");
    },
  });

function verdict(run) {
  if (run.state === "running") return run.ok === false ? ["bad", "broken"] : ["", "running"];
  if (run.state !== "done") return ["warn", run.state];
  return run.ok ? ["good", "as it was sealed"] : ["bad", "broken"];
}

function Broken({ found }) {
  return html`<div class="problem" role="alert">
    <p><strong>First broken: ${found.batch ? html`batch <${Code}>${found.batch}<//>` : "no sealed batch can be named"}</strong>, partition ${found.partition}${found.sequence === null ? "" : `, at record ${found.sequence}`}: ${KIND[found.kind] || found.kind}.</p>
    <p>${found.detail}</p>
    <p>Keep the topic and the dashboard's copy as they are, and compare by <${Code}>vault-stream audit verify --topic<//>.</p>
  </div>`;
}

const STEP = { batches: "Reading what was sealed", records: "Comparing the topic with it" };

function Run({ run, refresh }) {
  const [kind, text] = verdict(run);
  const running = run.state === "running";
  const findings = run.partitions.flatMap((row) => row.findings.map((found, at) => ({ ...found, partition: row.partition, key: `${row.partition} ${at}` })));
  const unnamed = run.partitions.reduce((sum, row) => sum + row.not_named, 0);
  return html`<div class="stack">
    <p role="status"><${Badge} kind=${kind}>${text}<//> ${running ? `${STEP[run.step]}.` : ""} ${run.state === "failed" ? `It says nothing about the trail: ${run.error}.` : ""} ${run.state === "cancelled" ? "It says nothing about what it did not reach." : ""}</p>
    ${running && html`<progress max=${run.total ?? 1} value=${run.total === null ? undefined : run.read} aria-label="Records read of the verification"></progress>
      <div class="actions"><span class="muted">${count(run.read)}${run.total === null ? "" : ` of ${count(run.total)}`} records</span><${AdminOnly}><${Button} run=${() => cancel(run, refresh)}>Cancel<//><//></div>`}
    ${run.first_broken && html`<${Broken} found=${run.first_broken} />`}
    <${Facts} items=${[
      ["Started", html`<${Time} at=${run.started_at} full=${true} />`],
      ["Ended", run.ended_at && html`<${Time} at=${run.ended_at} full=${true} />`],
      ["At", run.worker],
    ]} />
    ${run.partitions.length > 0 && html`<${Table} caption="What was compared" rows=${run.partitions} keyOf=${(row) => row.partition} columns=${[
      { head: "Partition", cell: (row) => row.partition },
      { head: "Result", cell: (row) => (row.first === null && row.ok ? html`<${Badge}>nothing sealed<//>` : html`<${Badge} kind=${row.ok ? "good" : "bad"}>${row.ok ? "as it was sealed" : "broken"}<//>`) },
      { head: "From", cell: (row) => (row.first === null ? "–" : `${count(row.first)} (${row.from_start ? "the beginning" : "trusting what came before"})`) },
      { head: "Entries", kind: "number", cell: (row) => count(row.checked) },
      { head: "Sealed batches", kind: "number", cell: (row) => count(row.batches) },
      { head: "Not sealed yet", kind: "number", cell: (row) => count(row.unsealed) },
    ]} />`}
    ${findings.length > 0 && html`<${Table} showCaption caption=${`What is not as it was sealed${unnamed ? `, and ${count(unnamed)} more` : ""}`} rows=${findings} keyOf=${(row) => row.key} columns=${[
      { head: "Partition", cell: (row) => row.partition },
      { head: "What", cell: (row) => KIND[row.kind] || row.kind },
      { head: "Detail", cell: (row) => row.detail },
    ]} />`}
  </div>`;
}

function Verify() {
  const poll = useGet("/v1/governance/verifications");
  const latest = poll.data?.items[0];
  const begin = async () => {
    await start();
    poll.refresh();
  };
  const action = html`<${AdminOnly}><${Button} main disabled=${latest?.state === "running"} run=${begin}>Verify<//><//>`;
  const body = () => {
    if (!poll.data) return html`<${Loading} of=${poll} />`;
    return html`<${Problem} error=${poll.error} />
      ${latest ? html`<${Run} run=${latest} refresh=${poll.refresh} />` : html`<${Empty} title="No worker remembers a verification.">
        <p>One reads the whole audit topic and compares it with what was sealed. Start it here as an admin, or by <${Code}>vault-stream audit verify --topic<//>, which takes a time range and heads that you noted.</p>
      <//>`}`;
  };
  return html`<${Section} title="Verification" actions=${action}>${body()}<//>`;
}

function Audit() {
  const workers = useGet("/v1/workers", {}, { every: 10_000 });
  const off = isOff(workers);
  return html`<${Page} title="Audit" lead="Everything that happened, chained so that a change shows.">
    <${Problem} error=${workers.error} />
    <${Chains} off=${off} />
    <${Verify} />
    <${Export} />
    <${Reports} off=${off} />
  <//>`;
}

export const routes = [{ path: "/audit", nav: "Audit", page: Audit }];
