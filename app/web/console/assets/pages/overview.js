// What waits, where, and since when.

import { get } from "../api.js";
import { Line } from "../charts.js";
import { bytes, count, duration, plural, standing, words } from "../format.js";
import { usePoll } from "../live.js";
import { href } from "../router.js";
import { Badge, Code, Empty, Facts, Loading, Page, Problem, Section, Table, html, useEffect, useRef, useState } from "../ui.js";

const KEPT = 60; // Two minutes at one answer every two seconds.
const LISTED = 50; // More would be much to read every two seconds.
const STATUS = { healthy: "good", degraded: "warn", unhealthy: "bad" };
const sum = (values) => values.reduce((total, value) => total + value, 0);

const load = async (signal) => {
  const [workers, health] = await Promise.all([
    get("/v1/workers", {}, { signal }),
    // Without a token, and 503 while it is unhealthy.
    get("/health", {}, { signal, accept: [503] }),
  ]);
  return { workers: workers.items, missing: workers.missing, health, webhooks: await standings(workers.items, signal) };
};

/** How many webhooks there are, by how they are. Which of those that count as well have taken something, the list says. */
async function standings(workers, signal) {
  const found = Object.fromEntries(together(workers, "webhooks", (a, b) => a + b).map((row) => [row.name, row.value]));
  if (!found.ok) return found;
  const { ok, ...others } = found;
  const unsure = { "ok, unknown, or failing from the start": ok, ...others };
  if (ok > LISTED) return unsure;
  try {
    const list = await get("/v1/webhooks", { health: "ok", limit: LISTED }, { signal });
    if (list.next_cursor) return unsure;
    return list.items.reduce((by, one) => ({ ...by, [standing(one)]: (by[standing(one)] || 0) + 1 }), others);
  } catch {
    return unsure;
  }
}

/** What came in and went out per second, of counters that only grow, worker by worker; a restarted one begins anew. */
function useRates(workers, at) {
  const before = useRef({});
  const [rates, set] = useState([]);
  useEffect(() => {
    if (!workers) return;
    const rate = { in: 0, out: 0, known: false };
    for (const { worker, flow } of workers) {
      if (!flow) continue;
      const last = before.current[worker];
      const now = { at, in: flow.events, out: flow.attempts };
      if (last && now.at > last.at && now.in >= last.in && now.out >= last.out) {
        const seconds = (now.at - last.at) / 1000;
        for (const name of ["in", "out"]) rate[name] += Math.max(0, now[name] - last[name]) / seconds;
        rate.known = true;
      }
      before.current[worker] = now;
    }
    if (rate.known) set((kept) => [...kept.slice(1 - KEPT), rate]);
  }, [at]);
  return rates;
}

/** Values of some workers by name, made one by `join`. */
function together(workers, section, join) {
  const found = {};
  for (const worker of workers) {
    for (const [name, value] of Object.entries(worker[section] || {})) {
      found[name] = name in found ? join(found[name], value) : value;
    }
  }
  return Object.entries(found).map(([name, value]) => ({ name, value }));
}

function Flow({ workers, rates }) {
  const last = rates[rates.length - 1];
  const side = (name, text) => {
    const values = rates.map((rate) => rate[name]);
    const told = last ? `${count(last[name])} ${text} a second now, at most ${count(Math.max(...values))} in the last ${duration(values.length * 2)}` : "Measuring";
    return html`<${Section} title=${name === "in" ? "In" : "Out"}>
      <p class="big">${last ? `${count(last[name])} /s` : "–"}</p>
      <${Line} values=${values} caption=${told} kind=${name} />
    <//>`;
  };
  const flows = workers.map((worker) => worker.flow).filter(Boolean);
  const waiting = together(flows, "waiting", (a, b) => a + b).filter((row) => row.value);
  const all = sum(waiting.map((row) => row.value));
  const inFlight = sum(flows.map((flow) => flow.in_flight));
  return html`<div class="columns">
    ${side("in", "events")}
    ${side("out", "delivery attempts")}
    <${Section} title="Waiting">
      <p class="big">${count(all)}</p>
      <p class="muted">${all === 1 ? "delivery waits" : "deliveries wait"}${waiting.length ? `: ${waiting.map((row) => `${count(row.value)} for ${words(row.name)}`).join(", ")}` : ""}; ${count(inFlight)} ${inFlight === 1 ? "is" : "are"} in flight.</p>
      <p><a href=${href("/deliveries", { status: "retrying" })}>Those that are tried again</a></p>
    <//>
  </div>`;
}

function Recovery({ workers }) {
  const busy = workers.filter((worker) => worker.recovery?.remaining_rows > 0);
  if (!busy.length) return null;
  const left = sum(busy.map((worker) => worker.recovery.remaining_rows));
  const done = sum(busy.map((worker) => worker.recovery.restored_rows));
  const seconds = busy.map((worker) => worker.recovery.left_s).filter((left_s) => left_s !== null);
  return html`<${Section} title="Recovering">
    <progress max=${left + done} value=${done} aria-label="Rows read back from the changelogs"></progress>
    <p>${plural(left, "row")} left to read${seconds.length ? `, about ${duration(Math.max(...seconds))}` : ""}. (${busy.map((worker) => worker.worker).join(", ")})</p>
  <//>`;
}

function NotReady({ workers, missing }) {
  const reasons = workers.flatMap((worker) => worker.not_ready.map((reason) => ({ worker: worker.worker, reason })));
  if (!reasons.length && !missing.length) return null;
  return html`<${Section} title="Not ready">
    <ul>
      ${reasons.map(({ worker, reason }) => html`<li key=${worker + reason}><strong>${worker}</strong>: ${reason}</li>`)}
      ${missing.length > 0 && html`<li>No answer for ${missing.length === 1 ? "partition" : "partitions"} ${missing.join(", ")}: the figures below are without ${missing.length === 1 ? "it" : "them"}.</li>`}
    </ul>
  <//>`;
}

/** What is not well although all are ready: checks, and what only an operator moves on. */
function NeedsALook({ workers, health }) {
  const flows = workers.map((worker) => worker.flow).filter(Boolean);
  const quarantined = sum(flows.map((flow) => flow.quarantined || 0));
  const givenUp = sum(flows.map((flow) => flow.deliveries?.failed || 0));
  const checks = health.checks.filter((check) => check.status !== "healthy");
  if (!checks.length && !quarantined && !givenUp) return null;
  return html`<${Section} title="Needs a look">
    <ul>
      ${checks.map((check) => html`<li key=${check.name}><strong>${check.name}</strong> <${Badge} kind=${STATUS[check.status]}>${check.status}<//> ${check.message}</li>`)}
      ${quarantined > 0 && html`<li><a href=${href("/quarantine")}>${plural(quarantined, "record")} put into quarantine</a> since the workers started</li>`}
      ${givenUp > 0 && html`<li><a href=${href("/dead-letters")}>${plural(givenUp, "delivery", "deliveries")} given up</a> since the workers started</li>`}
    </ul>
  <//>`;
}

function Behind({ workers, missing }) {
  const unread = missing.length > 0 || workers.some((worker) => worker.recovery?.remaining_rows > 0);
  const lag = together(workers, "lag", (a, b) => a + b).sort((a, b) => b.value - a.value);
  const oldest = together(workers, "oldest_unfinished_s", Math.max).sort((a, b) => b.value - a.value);
  return html`<div class="columns">
    <${Section} title="Lag by topic">
      ${lag.length
        ? html`<${Table} caption="Records that are not read yet, by topic" rows=${lag} keyOf=${(row) => row.name}
            columns=${[{ head: "Topic", cell: (row) => html`<${Code}>${row.name}<//>` }, { head: "Records", kind: "number", cell: (row) => count(row.value) }]} />`
        : unread
          ? html`<${Empty} title="Not known yet."><p>It is told once the partitions that recover, or have no owner, are open.</p><//>`
          : html`<${Empty} title="Nothing waits."><p>Every record of every topic is read. Publish an event to see it move: <${Code}>vault-stream publish --help<//></p><//>`}
    <//>
    <${Section} title="Oldest unfinished">
      <${Table} caption="Age of the oldest work that has begun and is not finished, by agent" rows=${oldest} keyOf=${(row) => row.name}
        columns=${[{ head: "Agent", cell: (row) => row.name }, { head: "Age", kind: "number", cell: (row) => duration(row.value) }]} />
    <//>
  </div>`;
}

function Partitions({ workers }) {
  const states = {};
  const owners = {};
  for (const worker of workers) {
    Object.assign(owners, worker.owners);
    for (const [number, state] of Object.entries(worker.numbers)) states[number] = { state, worker: worker.worker };
  }
  const numbers = [...new Set([...Object.keys(owners), ...Object.keys(states)])].sort((a, b) => a - b);
  return html`<${Section} title="Partitions">
    ${numbers.length
      ? html`<${Table} caption="Each partition, its owner and its state" rows=${numbers} keyOf=${(number) => number}
          columns=${[
            { head: "Partition", cell: (number) => number },
            { head: "Owner", cell: (number) => owners[number] || states[number]?.worker || "nobody" },
            { head: "State", cell: (number) => html`<${Badge} kind=${states[number]?.state === "open" ? "good" : "warn"}>${states[number]?.state || "unknown"}<//>` },
          ]} />`
      : html`<${Empty} title="Nobody owns a partition yet."><p>A worker joins the group within seconds of reaching the brokers; its health below says what it waits for.</p><//>`}
  <//>`;
}

/** Values of any shape: what a check tells differs from check to check. */
function Detail({ name, value }) {
  if (value === null) return "–";
  if (typeof value === "object") {
    const items = Object.entries(value);
    return items.length ? items.map(([key, one]) => html`<div class="nested" key=${key}>${words(key)}: <${Detail} name=${Array.isArray(value) ? name : key} value=${one} /></div>`) : "none";
  }
  if (typeof value !== "number") return String(value);
  if (/_s$/.test(name)) return duration(value);
  return /(_bytes|^bytes)$/.test(name) ? bytes(value) : count(value);
}

// Ages by agent, and the like: the unit is in the name of what they stand in.
const details = (check) =>
  Object.entries(check.details || {}).map(([name, value]) => {
    const parts = value && typeof value === "object" && !Array.isArray(value) && /_s$/.test(name);
    return html`<div key=${name}>${words(name)}: ${parts
      ? Object.entries(value).map(([key, one]) => html`<div class="nested" key=${key}>${key}: ${duration(one)}</div>`)
      : html`<${Detail} name=${name} value=${value} />`}</div>`;
  });

function Health({ health, worker }) {
  return html`<${Section} title=${worker ? `Health of ${worker}` : "Health"} actions=${html`<${Badge} kind=${STATUS[health.status]}>${health.status}<//>`}>
    <${Table} caption="The checks of the worker that answers here" rows=${health.checks} keyOf=${(check) => check.name}
      columns=${[
        { head: "Check", cell: (check) => html`<span class="name">${check.name}</span>` },
        { head: "Status", cell: (check) => html`<${Badge} kind=${STATUS[check.status]}>${check.status}<//>` },
        { head: "Says", cell: (check) => check.message || "–" },
        { head: "Details", kind: "details", cell: (check) => (check.details ? details(check) : "–") },
        { head: "Took", kind: "number", cell: (check) => `${count(check.latency_ms)} ms` },
      ]} />
  <//>`;
}

function Overview() {
  const poll = usePoll(load);
  const rates = useRates(poll.data?.workers, poll.at);
  const title = "Overview";
  if (!poll.data) return html`<${Page} title=${title}><${Loading} of=${poll} /><//>`;
  const { workers, missing, health, webhooks } = poll.data;
  const here = workers[0];
  return html`<${Page} title=${title}>
    <${Problem} error=${poll.error} />
    <${NotReady} workers=${workers} missing=${missing} />
    <${NeedsALook} workers=${workers} health=${health} />
    <${Recovery} workers=${workers} />
    <${Flow} workers=${workers} rates=${rates} />
    <${Behind} workers=${workers} missing=${missing} />
    <${Partitions} workers=${workers} />
    <${Health} health=${health} worker=${here?.worker} />
    <${Section} title="Deployment">
      <${Facts} items=${[
        ["Workers", workers.map((worker) => worker.worker).join(", ")],
        ["Version", [...new Set(workers.map((worker) => worker.version))].join(", ")],
        ["Webhooks", Object.entries(webhooks).filter(([, value]) => value).map(([name, value]) => `${count(value)} ${name}`).join(", ") || "none"],
        ["Off, for want of an endpoint", here?.off?.join(", ")],
      ]} />
    <//>
  <//>`;
}

export const routes = [{ path: "/", nav: "Overview", page: Overview }];
