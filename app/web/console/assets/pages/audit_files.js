// What is taken away of the audit trail: exports of it, and the dashboard's reports.

import { digestOf, fetchFile, save } from "../download.js";
import { bytes, rfc3339 } from "../format.js";
import { Button, Code, Copy, Empty, Facts, Field, Form, Section, Select, Time, TimeField, html, useEffect, useRef, useState } from "../ui.js";

const DAY_MS = 86_400_000;
const TAIL_BYTES = 65_536;
const day = (text) => text.slice(0, 10).replace(/[^0-9-]/g, "");

/** The file that was saved, and the digest by which somebody else can tell that it is the same. */
function Saved({ file }) {
  return html`<div role="status" class="stack">
    <p><strong>Saved as <${Code}>${file.name}<//></strong></p>
    <${Facts} items=${[
      ["Size", bytes(file.size)],
      ["SHA-256", file.digest ? html`<${Code}>${file.digest}<//>` : "The browser computes none for this file: take it by sha256sum."],
      ...(file.facts || []),
    ]} />
    ${file.digest && html`<div class="actions"><${Copy} text=${file.digest} label="Copy the digest" /></div>`}
  </div>`;
}

async function saved(blob, name, facts) {
  const digest = await digestOf(blob);
  save(blob, name);
  return { name, size: blob.size, digest, facts };
}

// --- Export

const FORMATS = [["jsonl", "JSON lines: to verify"], ["csv", "CSV: for spreadsheets"]];

/** Whether the last line is a trailer: without one the rest may be missing, whatever is in front of the worker says. */
async function isWhole(blob, format) {
  const tail = await blob.slice(Math.max(0, blob.size - TAIL_BYTES)).text();
  const last = tail.trimEnd().split("\n").pop();
  return last.startsWith(format === "csv" ? "trailer," : '{"trailer":');
}

export function Export() {
  const [form, set] = useState({ from: rfc3339(Date.now() - DAY_MS), to: "", resource: "", format: "jsonl" });
  const [size, setSize] = useState(null);
  const [file, setFile] = useState(null);
  const stop = useRef(null);
  useEffect(() => () => stop.current?.abort(), []);
  const choose = (name) => (value) => set((before) => ({ ...before, [name]: value }));
  const take = (name) => (event) => choose(name)(event.target.value);
  const submit = async () => {
    const query = { from: form.from, to: form.to, resource: form.resource, format: form.format };
    stop.current = new AbortController();
    setFile(null);
    setSize(0);
    try {
      const blob = await fetchFile("GET", "/v1/governance/export", { query, signal: stop.current.signal, onBytes: setSize });
      if (!(await isWhole(blob, form.format))) throw new Error("The export has no trailer at its end, so that it may not be whole. Nothing was saved: try again.");
      const range = [query.from, query.to].map((text) => day(text) || "now").join("-");
      setFile(await saved(blob, `audit-${query.from ? range : `until-${day(query.to) || "now"}`}.${form.format}`));
    } catch (error) {
      if (stop.current.signal.aborted) throw new Error("The export was stopped. Nothing was saved.");
      throw error;
    } finally {
      setSize(null);
    }
  };
  const text = (name) => (tied) => html`<input type="text" autocomplete="off" spellcheck=${false} value=${form[name]} onInput=${take(name)} ...${tied} />`;
  return html`<${Section} title="Export">
    <p class="muted">The trail with its hashes. That it was exported is itself audited; <${Code}>vault-stream audit verify FILE<//> checks the JSON lines.</p>
    <${Form} submit=${submit} action="Export" extra=${size !== null && html`<${Button} run=${() => stop.current.abort()}>Stop<//>`}>
      ${(error) => html`
        <div class="columns">
          <${TimeField} label="Recorded since" optional hint="Without it: from the beginning." error=${error?.at?.("from")} value=${form.from} onChange=${choose("from")} />
          <${TimeField} label="Recorded before" optional hint="Without it: until now." error=${error?.at?.("to")} value=${form.to} onChange=${choose("to")} />
          <${Field} label="Resource or dataset" optional hint="Only of this id." error=${error?.at?.("resource")}>${text("resource")}<//>
          <${Field} label="Export format" error=${error?.at?.("format")}>${(tied) => html`<${Select} options=${FORMATS} value=${form.format} onChange=${choose("format")} ...${tied} />`}<//>
        </div>`}
    <//>
    ${size !== null && html`<p role="status">Receiving… <span aria-hidden="true">${bytes(size)}</span></p>`}
    ${file && html`<${Saved} file=${file} />`}
  <//>`;
}

// --- Reports

const TYPES = [
  ["gdpr_article_30", "GDPR, article 30"],
  ["soc2", "SOC 2"],
  ["hipaa", "HIPAA"],
  ["access_summary", "Access summary"],
  ["data_inventory", "Data inventory"],
];
const REPORT_FORMATS = [["pdf", "PDF"], ["csv", "CSV"], ["json", "JSON"]];
const MEDIA = { pdf: "application/pdf", csv: "text/csv", json: "application/json" };

/** The bytes of a report, as the command line saves them. */
function contentOf(report, format) {
  const { content } = report;
  if (format === "json" && content !== null && typeof content === "object") return `${JSON.stringify(content, null, 2)}\n`;
  if (typeof content !== "string" || format === "json") throw new Error("The answer has no such report.");
  return format === "pdf" ? Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0)) : content;
}

export function Reports({ off }) {
  const now = Date.now();
  const [form, set] = useState({ report_type: "access_summary", start_date: rfc3339(now - 30 * DAY_MS), end_date: rfc3339(now), scope: "", format: "pdf" });
  const [file, setFile] = useState(null);
  const choose = (name) => (value) => set((before) => ({ ...before, [name]: value }));
  const take = (name) => (event) => choose(name)(event.target.value);
  const submit = async () => {
    setFile(null);
    const { scope, ...asked } = form;
    const body = { ...asked, ...(scope ? { scope } : {}) };
    // The dashboard may work on it for longer than the rest of the API does.
    const answer = await fetchFile("POST", "/v1/governance/reports", { body });
    const report = JSON.parse(await answer.text());
    const blob = new Blob([contentOf(report, form.format)], { type: MEDIA[form.format] });
    const name = `${form.report_type}-${day(body.start_date)}-${day(body.end_date)}.${form.format}`;
    setFile(await saved(blob, name, [
      ["Report", html`<${Code}>${report.id}<//>`],
      ["Made", html`<${Time} at=${report.generated_at} full=${true} />`],
      ["On the dashboard", report.download_url && html`<${Code}>${report.download_url}<//>`],
    ]));
  };
  if (off) {
    return html`<${Section} title="Reports"><${Empty} title="There is no dashboard to ask.">
      <p>Reports are made by the governance dashboard: set <${Code}>VAULT_STREAM_GOVERNANCE__ENDPOINT<//> and restart the workers.</p>
    <//><//>`;
  }
  const text = (name) => (tied) => html`<input type="text" autocomplete="off" spellcheck=${false} value=${form[name]} onInput=${take(name)} ...${tied} />`;
  const choice = (name, options) => (tied) => html`<${Select} options=${options} value=${form[name]} onChange=${choose(name)} ...${tied} />`;
  return html`<${Section} title="Reports">
    <${Form} submit=${submit} action="Make the report">
      ${(error) => html`
        <div class="columns">
          <${Field} label="Report" error=${error?.at?.("/report_type")}>${choice("report_type", TYPES)}<//>
          <${Field} label="Report format" error=${error?.at?.("/format")}>${choice("format", REPORT_FORMATS)}<//>
          <${TimeField} label="Start" error=${error?.at?.("/start_date")} value=${form.start_date} onChange=${choose("start_date")} />
          <${TimeField} label="End" error=${error?.at?.("/end_date")} value=${form.end_date} onChange=${choose("end_date")} />
          <${Field} label="Scope" optional hint="What part of the vault, in the dashboard's words." error=${error?.at?.("/scope")}>${text("scope")}<//>
        </div>`}
    <//>
    ${file && html`<${Saved} file=${file} />`}
  <//>`;
}
