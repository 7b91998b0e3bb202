// A webhook's configuration, to make one and to change it.

import { ApiError, api, get, ifMatch } from "../api.js";
import { go, href } from "../router.js";
import { AdminOnly, Button, Check, Empty, Field, Form, Page, Problem, Section, Select, html, notify, useEffect, useState } from "../ui.js";
import { showSecret } from "./webhook_actions.js";

const ORDERINGS = [["best_effort", "a retried event may be overtaken"], ["strict", "in the order of each subject"]];

const words = (text) => text.split(/[\s,]+/).filter(Boolean);
const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

/** What is wrong before the API is asked, in its own form. */
const wrong = (field, message) => new ApiError(422, { detail: "Something in the form is not understood.", code: "invalid_field", errors: [{ field, code: "invalid", message }] });

/** A webhook as the form has it: texts. */
const written = (webhook) => ({
  url: webhook.url || "",
  events: (webhook.events || []).join("\n"),
  description: webhook.description || "",
  headers: Object.entries(webhook.headers || {}).map(([name, value]) => `${name}: ${value}`).join("\n"),
  tenants: (webhook.filter?.tenant_id || []).join(", "),
  datasets: (webhook.filter?.dataset_id || []).join(", "),
  data: webhook.filter?.data && Object.keys(webhook.filter.data).length ? JSON.stringify(webhook.filter.data, null, 2) : "",
  ordering: webhook.ordering || "best_effort",
  timeout: String(webhook.timeout_s ?? ""),
  rate: String(webhook.rate_limit_per_s ?? ""),
  most: String(webhook.max_in_flight ?? ""),
  schedule: (webhook.retry_schedule_s || []).join(", "),
  ed25519: (webhook.signatures || []).includes("v1a"),
  handshake: Boolean(webhook.handshake),
  secret: "",
  enabled: true,
});

function number(text, field) {
  if (!text.trim()) return null;
  const value = Number(text);
  if (!Number.isFinite(value)) throw wrong(field, "must be a number");
  return value;
}

function headersOf(text) {
  const found = {};
  for (const line of lines(text)) {
    const at = line.indexOf(":");
    if (at < 1) throw wrong("/headers", `each line is Name: value, and this is not: ${line.slice(0, 40)}`);
    found[line.slice(0, at).trim()] = line.slice(at + 1).trim();
  }
  return found;
}

function filterOf(form) {
  const filter = {};
  const tenants = form.tenants.split(",").map((one) => one.trim()).filter(Boolean);
  const datasets = form.datasets.split(",").map((one) => one.trim()).filter(Boolean);
  if (tenants.length) filter.tenant_id = tenants;
  if (datasets.length) filter.dataset_id = datasets;
  if (form.data.trim()) {
    try {
      filter.data = JSON.parse(form.data);
    } catch {
      throw wrong("/filter/data", "is no JSON");
    }
  }
  return Object.keys(filter).length ? filter : null;
}

/** The fields of the API; null: not given. Throws ApiError. */
function fieldsOf(form) {
  const schedule = words(form.schedule).map((step) => number(step, "/retry_schedule_s"));
  return {
    url: form.url.trim(),
    events: words(form.events),
    description: form.description || null,
    headers: headersOf(form.headers),
    filter: filterOf(form),
    ordering: form.ordering,
    timeout_s: number(form.timeout, "/timeout_s"),
    rate_limit_per_s: number(form.rate, "/rate_limit_per_s"),
    max_in_flight: number(form.most, "/max_in_flight"),
    retry_schedule_s: schedule.length ? schedule : null,
    signatures: form.ed25519 ? ["v1", "v1a"] : ["v1"],
    handshake: form.handshake,
  };
}

function Fields({ form, set, error, isNew }) {
  const at = (field) => (error instanceof ApiError ? error.at(field) : "");
  const take = (name) => (event) => set({ ...form, [name]: event.target.value });
  const text = (name, more = {}) => (tied) => html`<input type="text" spellcheck=${false} autocomplete="off" value=${form[name]} onInput=${take(name)} ...${more} ...${tied} />`;
  const area = (name, rows) => (tied) => html`<textarea rows=${rows} spellcheck=${false} value=${form[name]} onInput=${take(name)} ...${tied}></textarea>`;
  return html`
    <${Section} title="What goes where">
      <div class="stack">
        <${Field} label="URL" error=${at("/url")} hint="Where deliveries are sent to, by https.">${text("url", { inputmode: "url" })}<//>
        <${Field} label="Events" error=${at("/events")} hint="Types or patterns, one a line: dataset.created, dataset.*, or * for all.">${area("events", 3)}<//>
        <${Field} label="Description" optional error=${at("/description")}>${text("description")}<//>
        ${isNew && html`<${Field} label="Secret" optional error=${at("/secret")} hint="whsec_ and base64. One is made if none is given; it is shown once.">${text("secret")}<//>
        <${Check} label="Enabled" checked=${form.enabled} onChange=${(enabled) => set({ ...form, enabled })} hint="Otherwise its events are noted as missed." />`}
      </div>
    <//>
    <${Section} title="Only some events">
      <div class="stack">
        <${Field} label="Tenants" optional error=${at("/filter/tenant_id")} hint="With commas between them; any of them.">${text("tenants")}<//>
        <${Field} label="Datasets" optional error=${at("/filter/dataset_id")} hint="With commas between them; any of them.">${text("datasets")}<//>
        <${Field} label="Values" optional error=${at("/filter/data") || (error?.errors?.some((one) => one.field === "/filter") ? at("/filter") : "")} hint=${'Of the data, by dotted path, as JSON: {"classification": ["pii"]}'}>${area("data", 3)}<//>
      </div>
    <//>
    <${Section} title="How it is delivered">
      <div class="stack">
        <${Field} label="Headers" optional error=${at("/headers")} hint="Name: value, one a line. A value that is shown as *** stays as it is.">${area("headers", 3)}<//>
        <${Field} label="Order" error=${at("/ordering")}>${(tied) => html`<${Select} options=${ORDERINGS} value=${form.ordering} onChange=${(ordering) => set({ ...form, ordering })} ...${tied} />`}<//>
        <${Field} label="Time limit in seconds" optional error=${at("/timeout_s")} hint="Of an attempt. Empty: as the deployment, 15 unless it says otherwise.">${text("timeout", { inputmode: "decimal" })}<//>
        <${Field} label="Attempts a second" optional error=${at("/rate_limit_per_s")} hint="At most. Empty: without a limit.">${text("rate", { inputmode: "decimal" })}<//>
        <${Field} label="Attempts at one time" optional error=${at("/max_in_flight")} hint="At most. Empty: as the deployment, 32 unless it says otherwise.">${text("most", { inputmode: "numeric" })}<//>
        <${Field} label="Retry schedule in seconds" optional error=${at("/retry_schedule_s")} hint="The wait before each attempt, with commas: 0, 5, 300. Empty: as the deployment, 10 attempts within 76 hours unless it says otherwise.">${text("schedule")}<//>
        <${Check} label="Sign with ed25519, too" checked=${form.ed25519} onChange=${(ed25519) => set({ ...form, ed25519 })} hint=${at("/signatures") || "v1a of Standard Webhooks, beside the secret's v1."} />
        <${Check} label="Ask the receiver for its permission" checked=${form.handshake} onChange=${(handshake) => set({ ...form, handshake })} hint=${at("/handshake") || "CloudEvents web hooks: an OPTIONS request before the first delivery."} />
      </div>
    <//>
  `;
}

const randomKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

function Create() {
  const [form, set] = useState(() => written({}));
  // The same request again has its effect once; another one needs another key.
  const [sent] = useState({ body: "", key: "" });
  const submit = async () => {
    const given = Object.fromEntries(Object.entries(fieldsOf(form)).filter(([, value]) => value !== null));
    const body = { ...given, enabled: form.enabled, ...(form.secret.trim() ? { secret: form.secret.trim() } : {}) };
    const text = JSON.stringify(body);
    if (sent.body !== text) Object.assign(sent, { body: text, key: randomKey() });
    const made = await api("POST", "/v1/webhooks", { body, headers: { "Idempotency-Key": sent.key } });
    set(written({}));
    await showSecret(made);
    go(`/webhooks/${made.id}`);
  };
  return html`<${Page} title="New webhook" back=${{ href: href("/webhooks"), text: "Webhooks" }}>
    <${AdminOnly}>
      <${Form} submit=${submit} action="Create">${(error) => html`<${Fields} form=${form} set=${set} error=${error} isNew=${true} />`}<//>
    <//>
    <${NoAdmin} />
  <//>`;
}

const NoAdmin = () => html`<${AdminOnly} not=${true}><${Empty} title="A viewer changes nothing."><p>Log in with an admin's token to do so.</p><//><//>`;

function Edit({ params }) {
  const [state, setState] = useState({ webhook: null, error: null });
  const [form, set] = useState(null);
  const load = async () => {
    try {
      const webhook = await get(`/v1/webhooks/${encodeURIComponent(params.id)}`);
      setState({ webhook, error: null });
      set(written(webhook));
    } catch (error) {
      setState({ webhook: null, error });
    }
  };
  useEffect(() => {
    load();
  }, []);
  const { webhook, error } = state;
  const back = { href: href(`/webhooks/${params.id}`), text: "The webhook" };
  if (!webhook) return html`<${Page} title="Edit" back=${back}>${error ? html`<${Problem} error=${error} />` : html`<p class="muted" role="status">Loading…</p>`}<//>`;
  const submit = async () => {
    const before = fieldsOf(written(webhook));
    const after = fieldsOf(form);
    const changed = Object.fromEntries(Object.entries(after).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(before[name])));
    if (Object.keys(changed).length) {
      await api("PATCH", `/v1/webhooks/${webhook.id}`, { body: changed, headers: ifMatch(webhook.version) });
      notify("The webhook was changed.");
    } else {
      notify("Nothing was changed.");
    }
    go(`/webhooks/${webhook.id}`);
  };
  const again = (failed) => failed instanceof ApiError && [409, 412].includes(failed.status);
  return html`<${Page} title="Edit" lead=${webhook.url} back=${back}>
    <${AdminOnly}>
      <${Form} submit=${submit} action="Save">
        ${(failed) => html`
          ${again(failed) && html`<p>Somebody else has changed it. <${Button} run=${load}>Load it again<//> What is in the form is lost by that.</p>`}
          <${Fields} form=${form} set=${set} error=${failed} isNew=${false} />`}
      <//>
    <//>
    <${NoAdmin} />
  <//>`;
}

export const routes = [
  { path: "/webhooks/new", page: Create },
  { path: "/webhooks/:id/edit", page: Edit },
];
