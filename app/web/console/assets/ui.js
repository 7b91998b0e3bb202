// What pages are made of. Data becomes text nodes and attributes only; nothing here, and nothing of a page, sets HTML.

import { html, render, useEffect, useLayoutEffect, useRef, useState } from "./vendor/htm-preact.js";
import { moment, relative, rfc3339 } from "./format.js";
import { useNow } from "./live.js";
import { href } from "./router.js";
import { mayWrite } from "./session.js";

export { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";

let ids = 0;
const useId = () => useState(() => `f${++ids}`)[0];

// --- Pages

/** A page: its title is what a navigation puts the focus on. `actions` stands beside the title. */
export function Page({ title, lead, actions, back, children }) {
  useEffect(() => {
    document.title = `${title} | vault-stream`;
  }, [title]);
  return html`
    ${back && html`<p class="back"><a href=${back.href}>← ${back.text}</a></p>`}
    <div class="title">
      <h1 id="title" tabindex="-1">${title}</h1>
      ${actions && html`<div class="actions">${actions}</div>`}
    </div>
    ${lead && html`<p class="lead">${lead}</p>`}
    ${children}
  `;
}

export function Section({ title, actions, children }) {
  const id = useId();
  return html`<section aria-labelledby=${id}>
    <div class="title">
      <h2 id=${id}>${title}</h2>
      ${actions && html`<div class="actions">${actions}</div>`}
    </div>
    ${children}
  </section>`;
}

/** What is shown of a `usePoll` before there is data: that it loads, or why there is none. */
export function Loading({ of, what = "Loading" }) {
  if (of.error) return html`<${Problem} error=${of.error} />`;
  return html`<p class="muted" role="status">${what}…</p>`;
}

/** There is nothing, and this is what to do next. */
export const Empty = ({ title, children }) => html`<div class="empty"><p><strong>${title}</strong></p>${children}</div>`;

/** Children for an admin alone: what a viewer may not do, he does not see. `not`: for a viewer alone. */
export const AdminOnly = ({ not = false, children }) => (mayWrite() !== not ? children : null);

/** `kind`: good, warn, bad, or none. */
export const Badge = ({ kind = "", children }) => html`<span class=${`badge ${kind}`}>${children}</span>`;

export const Code = ({ children }) => html`<code>${children}</code>`;

/**
 * A moment, on every page alike: how long ago, with the exact one in UTC for the pointer and for machines.
 *
 * full: the exact one, and how long ago; for a page about one thing.
 */
export function Time({ at, full = false }) {
  const now = useNow();
  if (!at) return "–";
  return html`<time datetime=${at} title=${moment(at)}>${full ? html`${moment(at)} <span class="name">(${relative(at, now)})</span>` : relative(at, now)}</time>`;
}

/** A number alone says nothing where the head of its column is not seen. */
const named = (value, head) => (/^\d+$/.test(value) ? head : undefined);

/** Name and value, one line each: `items` is a list of pairs; those without a value are left out. */
export const Facts = ({ items }) => html`<dl class="facts">
  ${items
    .filter(([, value]) => value !== undefined && value !== null && value !== "" && value !== false)
    .map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}
</dl>`;

/**
 * A table, which becomes a list of cards where the screen is narrow.
 *
 * columns: `{head, cell(row), kind?: "number" | "details"}`; the first one names the row.
 */
export function Table({ caption, columns, rows, keyOf, showCaption = false }) {
  return html`<table role="table">
    <caption class=${showCaption ? "" : "hidden"}>${caption}</caption>
    <thead role="rowgroup">
      <tr role="row">${columns.map((column) => html`<th role="columnheader" scope="col" key=${column.head} class=${column.kind}>${column.head}</th>`)}</tr>
    </thead>
    <tbody role="rowgroup">
      ${rows.map(
        (row) => html`<tr role="row" key=${keyOf(row)}>
          ${columns.map((column, at) =>
            at === 0
              ? html`<th role="rowheader" scope="row" key=${column.head} data-label=${named(column.cell(row), column.head)}>${column.cell(row)}</th>`
              : html`<td role="cell" key=${column.head} data-label=${column.head} class=${column.kind}>${column.cell(row)}</td>`,
          )}
        </tr>`,
      )}
    </tbody>
  </table>`;
}

/** Links to the first and the next page of a list, whose place is `cursor` of the address. */
export function Pager({ location, next }) {
  const { cursor, ...rest } = location.query;
  if (!cursor && !next) return null;
  return html`<nav class="pager" aria-label="Pages">
    ${cursor && html`<a href=${href(location.path, rest)}>First page</a>`}
    ${next && html`<a href=${href(location.path, { ...rest, cursor: next })}>Next page</a>`}
  </nav>`;
}

// --- Doing something

/** A button that does `run`; busy meanwhile, and an error becomes a notice. `danger` for what destroys. */
export function Button({ run, danger = false, main = false, type = "button", busy = false, disabled = false, children, ...rest }) {
  const [running, setRunning] = useState(false);
  const press = async () => {
    setRunning(true);
    try {
      await run();
    } catch (error) {
      notify(error.message, "bad");
    } finally {
      setRunning(false);
    }
  };
  const waits = busy || running;
  return html`<button type=${type} class=${`${danger ? "danger" : ""} ${main ? "main" : ""}`} disabled=${disabled || waits}
    aria-busy=${waits ? "true" : undefined} onClick=${run && press} ...${rest}>${children}</button>`;
}

export function Copy({ text, label = "Copy" }) {
  return html`<${Button} run=${async () => {
    // Browsers have no clipboard for pages that came by plain http from elsewhere.
    if (!navigator.clipboard) throw new Error("The browser lets no page copy here: select the text and press Ctrl+C.");
    await navigator.clipboard.writeText(text);
    notify("Copied.");
  }}>${label}<//>`;
}

/** Why the API refused. */
export const Problem = ({ error }) =>
  error && html`<div class="problem" role="alert"><p>${error.message}</p>${error.code && html`<p class="muted">${error.code}${error.status ? ` (${error.status})` : ""}</p>`}</div>`;

/**
 * A labelled control; the child is a function of the attributes that tie it to its label, hint and error:
 * `<${Field} label="URL" error=${error?.at("/url")}>${(tied) => html`<input ...${tied} />`}<//>`
 */
export function Field({ label, hint, error, optional = false, children }) {
  const id = useId();
  const told = [hint && `${id}-hint`, error && `${id}-error`].filter(Boolean).join(" ");
  const tied = { id, "aria-describedby": told || undefined, "aria-invalid": error ? "true" : undefined };
  const child = Array.isArray(children) ? children[0] : children;
  return html`<div class="field">
    <label for=${id}>${label}${optional && html` <span class="muted">(optional)</span>`}</label>
    ${hint && html`<p class="muted" id=${`${id}-hint`}>${hint}</p>`}
    ${child(tied)}
    ${error && html`<p class="error" id=${`${id}-error`}>${error}</p>`}
  </div>`;
}

const written = (at) => (Number.isNaN(Date.parse(at)) ? "" : rfc3339(Date.parse(at)).slice(0, 19));
const read = (text) => (text ? `${text.length === 16 ? `${text}:00` : text}Z` : "");

/**
 * Where a moment is entered, on every page alike: date and time in UTC; `value` and what `onChange` gets are RFC 3339.
 *
 * More: as `Field`.
 */
export const TimeField = ({ label, value, onChange, ...more }) => html`<${Field} label=${`${label} (UTC)`} ...${more}>
  ${(tied) => html`<input type="datetime-local" step="1" value=${value ? written(value) : ""} onInput=${(event) => onChange(read(event.target.value))} ...${tied} />`}
<//>`;

/** The control that holds a part of a time, which is no time: what is sent would be as if it were empty. */
const halfEntered = (form) => [...form.elements].find((control) => control.validity?.badInput);

export function Check({ label, checked, onChange, hint }) {
  const id = useId();
  return html`<div class="field check">
    <input type="checkbox" id=${id} checked=${checked} aria-describedby=${hint ? `${id}-hint` : undefined} onChange=${(event) => onChange(event.target.checked)} />
    <label for=${id}>${label}</label>
    ${hint && html`<p class="muted" id=${`${id}-hint`}>${hint}</p>`}
  </div>`;
}

export const Select = ({ options, value, onChange, ...tied }) => html`<select value=${value} onChange=${(event) => onChange(event.target.value)} ...${tied}>
  ${options.map(([option, text]) => html`<option key=${option} value=${option} selected=${option === value}>${text}</option>`)}
</select>`;

// --- Notices: one line of what has happened, read aloud

let notices = [];
let showNotices = () => {};

/** Say something; `bad` stays until it is closed. `link`: `{href, text}`, where to look further. */
export function notify(text, kind = "good", link = null) {
  const notice = { text, kind, link, key: ++ids };
  notices = [...notices.slice(-3), notice];
  showNotices(notices);
  if (kind !== "bad") setTimeout(() => dismiss(notice), 6000);
}

function dismiss(notice) {
  notices = notices.filter((one) => one !== notice);
  showNotices(notices);
}

export function Notices() {
  const [shown, set] = useState(notices);
  showNotices = set;
  return html`<div class="notices" role="status" aria-live="polite">
    ${shown.map(
      (notice) => html`<div key=${notice.key} class=${`notice ${notice.kind}`}>
        <span>${notice.text}${notice.link && html` <a href=${notice.link.href}>${notice.link.text}</a>`}</span>
        <button type="button" class="plain" aria-label=${`Close: ${notice.text}`} onClick=${() => dismiss(notice)}>×</button>
      </div>`,
    )}
  </div>`;
}

// --- Dialogs

let dialogs = [];
let showDialogs = () => {};

/**
 * Open a dialog; resolves to what it is closed with, undefined when it is left.
 *
 * body: a component that gets `close(value)`.
 */
export function openDialog(title, body, props = {}) {
  const before = document.activeElement;
  return new Promise((resolve) => {
    const dialog = { key: ++ids, title, body, props };
    dialog.close = (value) => {
      if (!dialogs.includes(dialog)) return;
      dialogs = dialogs.filter((one) => one !== dialog);
      showDialogs(dialogs);
      const back = before && before.isConnected && before !== document.body ? before : document.getElementById("title");
      requestAnimationFrame(() => back?.isConnected && back.focus());
      resolve(value);
    };
    dialogs = [...dialogs, dialog];
    showDialogs(dialogs);
  });
}

/** The page under the dialogs is gone. What is shown once stays, unless nobody may see it any more (`all`). */
export const closeDialogs = ({ all = false } = {}) => dialogs.filter((dialog) => all || !dialog.props.mustAnswer).forEach((dialog) => dialog.close());

export function Dialogs() {
  const [shown, set] = useState(dialogs);
  showDialogs = set;
  return shown.map((dialog) => html`<${Dialog} key=${dialog.key} dialog=${dialog} />`);
}

function Dialog({ dialog }) {
  const ref = useRef();
  const id = useId();
  useLayoutEffect(() => {
    const element = ref.current;
    element.showModal();
    return () => element.close();
  }, []);
  const cancel = (event) => {
    event.preventDefault();
    if (!dialog.props.mustAnswer) dialog.close();
  };
  // A browser lets nobody be kept: at the second Escape it closes without asking.
  const closed = () => {
    if (!dialogs.includes(dialog)) return;
    if (dialog.props.mustAnswer) ref.current.showModal();
    else dialog.close();
  };
  return html`<dialog ref=${ref} aria-labelledby=${id} onCancel=${cancel} onClose=${closed}>
    <h2 id=${id}>${dialog.title}</h2>
    <${dialog.body} close=${dialog.close} ...${dialog.props} />
  </dialog>`;
}

/**
 * Ask once before something is done, and do it: the dialog names what it touches, and says why it did not work.
 *
 * `confirm({title: "Delete the webhook?", body: html`…`, action: "Delete", danger: true, run: async () => …})`
 * Resolves to what `run` resolves to, or true; undefined when it is left.
 */
export const confirm = ({ title, body, action, danger = false, run }) => openDialog(title, Confirm, { body, action, danger, run });

function Confirm({ close, body, action, danger, run }) {
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const submit = async () => {
    setBusy(true);
    setError(null);
    try {
      const value = await run();
      close(value ?? true);
    } catch (failed) {
      setError(failed);
      setBusy(false);
    }
  };
  return html`<div class="stack">
    ${body}
    <${Problem} error=${error} />
    <div class="actions end">
      <button type="button" autofocus onClick=${() => close()}>Cancel</button>
      <${Button} run=${submit} danger=${danger} main=${!danger} busy=${busy}>${action}<//>
    </div>
  </div>`;
}

/**
 * A form: `submit` is run once at a time, and `children` is a function of the error it ended with.
 *
 * extra: more buttons beside the main one.
 */
export function Form({ submit, action, extra, children, danger = false }) {
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const ref = useRef();
  const send = async (event) => {
    event.preventDefault();
    if (busy) return;
    const half = halfEntered(ref.current);
    if (half) {
      setError(new Error(`${half.labels[0].textContent}: give date and time to the second, or clear it.`));
      half.focus();
      return;
    }
    setBusy(true);
    setError(null);
    try {
      await submit();
      if (ref.current) setBusy(false);
    } catch (failed) {
      setError(failed);
      setBusy(false);
      requestAnimationFrame(() => ref.current?.querySelector('[aria-invalid="true"]')?.focus());
    }
  };
  const child = Array.isArray(children) ? children[0] : children;
  return html`<form ref=${ref} class="stack" onSubmit=${send} novalidate>
    <${Problem} error=${error} />
    ${child(error)}
    <div class="actions end">
      ${extra}
      <${Button} type="submit" main=${!danger} danger=${danger} busy=${busy}>${action}<//>
    </div>
  </form>`;
}

export const mount = (component, into) => {
  into.replaceChildren();
  render(html`<${component} />`, into);
};
