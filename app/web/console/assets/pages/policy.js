// The policy engine, asked by hand: may this principal do this, and where does the answer come from?

import { get, post } from "../api.js";
import { duration } from "../format.js";
import { useGet } from "../live.js";
import { AdminOnly, Badge, Button, Code, Empty, Facts, Field, Form, Page, Problem, Section, Select, Table, Time, confirm, html, notify, openDialog, useState } from "../ui.js";

const NO_DECISION = "There is no decision, and no decision is a denial: nothing below says that access is allowed.";
const Json = ({ value }) => html`<pre>${JSON.stringify(value, null, 2)}</pre>`;

/** What is wrong with a field before it is sent, as the API would say it. */
class Wrong extends Error {
  constructor(field, message) {
    super(message);
    this.field = field;
  }

  at(field) {
    return field === this.field ? this.message : "";
  }
}

function parsed(text) {
  if (!text.trim()) return undefined;
  let value;
  try {
    value = JSON.parse(text, (name, one) => {
      // It would be asked about another number, and whose answer it is nobody saw.
      if (typeof one === "number" && Math.abs(one) > Number.MAX_SAFE_INTEGER) throw new RangeError("a number that large loses digits in a browser");
      return one;
    });
  } catch (error) {
    throw new Wrong("/context", error instanceof RangeError ? `Ask by the API: ${error.message}.` : `Not JSON: ${error.message}`);
  }
  if (value === null || typeof value !== "object" || Array.isArray(value)) throw new Wrong("/context", 'Not a JSON object, such as {"purpose": "audit"}.');
  return value;
}

const isOff = (workers) => workers.data?.items[0]?.off?.includes("policy");

const Off = () => html`<${Empty} title="There is no policy engine.">
  <p>Set <${Code}>VAULT_STREAM_POLICY__ENDPOINT<//> and restart the workers. Until then every question is answered by 503, which denies.</p>
<//>`;

// --- One question

function Answer({ answer }) {
  const { asked, decision, at } = answer;
  const age = (at - Date.parse(decision.decided_at)) / 1000;
  const kept = Date.parse(decision.expires_at) > Date.parse(decision.decided_at);
  return html`<div role="status" class="stack">
    <p class="big"><${Badge} kind=${decision.allowed === true ? "good" : "bad"}>${decision.allowed === true ? "Allowed" : "Denied"}<//></p>
    <p><${Code}>${asked.principal_id}<//> ${decision.allowed === true ? "may" : "may not"} <${Code}>${asked.action}<//> <${Code}>${asked.resource_id}<//>.</p>
    <${Facts} items=${[
      ["Reason", decision.reason || "The engine gives none."],
      ["Answered by", decision.source === "cache" ? `the cache: decided ${duration(Math.max(0, age))} before it was asked` : "the engine: it was asked for this answer"],
      ["Decided", html`<${Time} at=${decision.decided_at} full=${true} />`],
      ["Kept until", kept ? html`<${Time} at=${decision.expires_at} full=${true} />` : "It is not kept."],
      ["Policies", decision.matched_policies.length ? decision.matched_policies.map((id) => html`<div key=${id}><${Code}>${id}<//></div>`) : "none named"],
      ["Decision", html`<${Code}>${decision.decision_id}<//>`],
    ]} />
    ${decision.obligations.length > 0 && html`<div><h3>Obligations</h3><${Json} value=${decision.obligations} /></div>`}
  </div>`;
}

const Unavailable = ({ error }) => html`<div role="status" class="stack">
  <p class="big"><${Badge} kind="bad">No decision<//></p>
  <p>${NO_DECISION}</p>
  <${Problem} error=${error} />
</div>`;

function Ask() {
  const [form, set] = useState({ principal_id: "", action: "read", resource_id: "", context: "" });
  const [answer, setAnswer] = useState(null);
  const take = (name) => (event) => {
    set({ ...form, [name]: event.target.value });
    // It was the answer to another question.
    setAnswer(null);
  };
  const submit = async () => {
    setAnswer(null);
    const context = parsed(form.context);
    const asked = { principal_id: form.principal_id, action: form.action, resource_id: form.resource_id, ...(context ? { context } : {}) };
    try {
      const decision = await post("/v1/policy/evaluate", asked);
      // What is no decision, from whatever is in front of the worker, allows nothing either.
      if (typeof decision?.allowed !== "boolean") throw Object.assign(new Error("What answered is no decision."), { status: 503 });
      setAnswer({ asked, decision, at: Date.now() });
    } catch (error) {
      if (error.status >= 500 || error.status === 0) setAnswer({ error });
      else throw error;
    }
  };
  const text = (name) => (tied) => html`<input type="text" autocomplete="off" spellcheck=${false} value=${form[name]} onInput=${take(name)} ...${tied} />`;
  return html`<${Section} title="Ask">
    <${Form} submit=${submit} action="Ask">
      ${(error) => html`
        <${Field} label="Principal" hint="The user or service, as the vault names it." error=${error?.at?.("/principal_id")}>${text("principal_id")}<//>
        <${Field} label="Action" error=${error?.at?.("/action")}>${text("action")}<//>
        <${Field} label="Resource" error=${error?.at?.("/resource_id")}>${text("resource_id")}<//>
        <${Field} label="Context" optional hint="A JSON object of what else is known." error=${error?.at?.("/context")}>
          ${(tied) => html`<textarea rows="4" spellcheck=${false} placeholder='{"purpose": "audit"}' value=${form.context} onInput=${take("context")} ...${tied}></textarea>`}
        <//>`}
    <//>
    ${answer && html`<h3>The answer</h3>`}
    ${answer && (answer.error ? html`<${Unavailable} error=${answer.error} />` : html`<${Answer} answer=${answer} />`)}
  <//>`;
}

// --- What applies to a resource

function Applicable() {
  const [resource, set] = useState("");
  const [found, setFound] = useState(null);
  const submit = async () => {
    setFound(null);
    if (!resource) throw new Wrong("resource", "Give the id of a resource.");
    setFound({ resource, items: (await get("/v1/policy/applicable", { resource })).items });
  };
  return html`<${Section} title="Policies that apply to a resource">
    <${Form} submit=${submit} action="List">
      ${(error) => html`<${Field} label="Resource id" error=${error?.at?.("resource")}>
        ${(tied) => html`<input type="text" autocomplete="off" spellcheck=${false} value=${resource} onInput=${(event) => set(event.target.value)} ...${tied} />`}
      <//>`}
    <//>
    <div role="status">
      ${found && (found.items.length
        ? html`<${Table} showCaption caption=${`As the engine lists them for ${found.resource}`} rows=${found.items.map((policy, at) => ({ policy, at }))} keyOf=${(row) => row.at} columns=${[
            { head: "Policy", cell: ({ policy, at }) => html`<${Code}>${String(policy?.id ?? policy?.name ?? at + 1)}<//>` },
            { head: "As the engine describes it", cell: ({ policy }) => html`<${Json} value=${policy} />` },
          ]} />`
        : html`<${Empty} title="No policy applies."><p>The engine lists none for <${Code}>${found.resource}<//>; what it answers then is its default.</p><//>`)}
    </div>
  <//>`;
}

// --- Invalidate

const SCOPES = [["principal_id", "of one principal"], ["resource_id", "of one resource"], ["all", "all of them"]];

function Invalidate({ close }) {
  const [form, set] = useState({ scope: "principal_id", id: "" });
  const all = form.scope === "all";
  const submit = () => {
    if (!all && !form.id) throw new Wrong(`/${form.scope}`, "Give an id.");
    close(all ? { all: true } : { [form.scope]: form.id });
  };
  return html`<p>What is kept of the engine's answers is forgotten, and the engine is asked anew.</p>
    <${Form} submit=${submit} action="Go on" extra=${html`<button type="button" onClick=${() => close()}>Cancel</button>`}>
      ${(error) => html`
        <${Field} label="Decisions">${(tied) => html`<${Select} options=${SCOPES} value=${form.scope} onChange=${(scope) => set({ ...form, scope })} ...${tied} />`}<//>
        ${!all && html`<${Field} label="Id" error=${error?.at?.(`/${form.scope}`)}>${(tied) => html`<input type="text" spellcheck=${false} value=${form.id} onInput=${(event) => set({ ...form, id: event.target.value })} ...${tied} />`}<//>`}`}
    <//>`;
}

async function invalidate() {
  const scope = await openDialog("Invalidate decisions", Invalidate);
  if (!scope) return;
  const named = scope.all ? html`<strong>every decision</strong> of every principal` : html`the decisions of the ${scope.principal_id ? "principal" : "resource"} <${Code}>${scope.principal_id || scope.resource_id}<//>`;
  const done = await confirm({
    title: "Invalidate them?",
    body: html`<p>This forgets ${named}, at every worker within a second. Until the engine has been asked again its load and the time of an answer grow${scope.all ? ", for everything at once" : ""}.</p>`,
    action: "Invalidate",
    danger: true,
    run: () => post("/v1/policy/invalidate", scope),
  });
  if (done) notify("Invalidated: the engine is asked anew.");
}

function Policy() {
  const workers = useGet("/v1/workers", {}, { every: 10_000 });
  const actions = html`<${AdminOnly}><${Button} danger run=${invalidate}>Invalidate decisions<//><//>`;
  return html`<${Page} title="Policy" lead="May this principal do this? As the workers would answer the vault." actions=${actions}>
    <${Problem} error=${workers.error} />
    ${isOff(workers) ? html`<${Off} />` : html`<${Ask} /><${Applicable} />`}
  <//>`;
}

export const routes = [{ path: "/policy", nav: "Policy", page: Policy }];
