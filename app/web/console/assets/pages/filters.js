// Lists that are searched: what is asked for stands in the address, so that it can be sent to somebody, and Back works.

import { go, href } from "../router.js";
import { Code, Empty, Field, Loading, Pager, Problem, Select, Table, Time, TimeField, html, useEffect, useRef, useState } from "../ui.js";

const LATER_MS = 300;

/**
 * What a list is narrowed by; typed into the address a moment after the last letter.
 *
 * fields: `{name, label, kind?: "time" | "text", options?, placeholder?}`; `name` is that of the API. error: what it says of them.
 */
export function Filters({ location, fields, error }) {
  const given = Object.fromEntries(fields.map(({ name }) => [name, location.query[name] || ""]));
  const inAddress = JSON.stringify(given);
  const [typed, set] = useState(given);
  const sent = useRef(inAddress);
  useEffect(() => {
    // A link or Back has led here, and not what was typed.
    if (inAddress !== sent.current) {
      sent.current = inAddress;
      set(given);
    }
  }, [inAddress]);
  const wanted = Object.fromEntries(Object.entries(typed).map(([name, value]) => [name, value.trim()]));
  const text = JSON.stringify(wanted);
  useEffect(() => {
    if (text === sent.current) return undefined;
    const timer = setTimeout(() => {
      sent.current = text;
      go(location.path, { limit: location.query.limit, ...wanted }, { replace: true });
    }, LATER_MS);
    return () => clearTimeout(timer);
  }, [text]);
  const take = (name) => (value) => set((before) => ({ ...before, [name]: value }));
  const control = ({ name, options, placeholder }) => (tied) => {
    if (options) return html`<${Select} options=${options} value=${typed[name]} onChange=${take(name)} ...${tied} />`;
    return html`<input type="search" spellcheck=${false} value=${typed[name]} placeholder=${placeholder} onInput=${(event) => take(name)(event.target.value)} ...${tied} />`;
  };
  return html`<div class="filters" role="search">
    ${fields.map((field) => {
      const { name, label } = field;
      const told = error?.at?.(name);
      return field.kind === "time"
        ? html`<${TimeField} key=${name} label=${label} error=${told} value=${typed[name]} onChange=${take(name)} />`
        : html`<${Field} key=${name} label=${label} error=${told}>${control(field)}<//>`;
    })}
  </div>`;
}

/** The filters of an address alone. */
export const filterOf = (location, fields) => Object.fromEntries(fields.map(({ name }) => [name, location.query[name]]).filter(([, value]) => value));

/** What a filter means, in words, before something is done to all of it; `all`: what is said of none. */
export const Meant = ({ filter, fields, all }) => {
  const given = fields.filter(({ name }) => filter[name]);
  return html`<p>${given.length
    ? html`Those of this filter: ${given.map(({ name, label, kind }) => html`<div key=${name}>${label}: ${kind === "time" ? html`<${Time} at=${filter[name]} full=${true} />` : html`<${Code}>${filter[name]}<//>`}</div>`)}`
    : all}</p>`;
};

/** Which partitions have not answered: what they have is not in the list. */
export const Missing = ({ numbers }) =>
  numbers?.length
    ? html`<div class="problem" role="status"><p>No answer for partition ${numbers.join(", ")}: what is there is missing here. Asking again.</p></div>`
    : null;

/**
 * A page of a list, or what to do where there is none.
 *
 * none: what is said when there is nothing at all. noneLike: when there is nothing that the filters let pass.
 */
export function Listing({ location, poll, fields, caption, columns, none, noneLike }) {
  if (!poll.data) return html`<${Loading} of=${poll} />`;
  const { items, next_cursor: next, missing } = poll.data;
  const begin = html`<p><a href=${href(location.path)}>Show all of them</a></p>`;
  const shown = () => {
    if (items.length) return html`<${Table} caption=${caption} rows=${items} keyOf=${(row) => row.id} columns=${columns} />`;
    // A page ends where it has looked through enough, found or not.
    if (next) return html`<${Empty} title="Nothing among the ones looked through so far."><p>The next page looks on.</p><//>`;
    if (missing?.length) return html`<${Empty} title="Nothing in the partitions that have answered."><p>What the others have is shown once they answer.</p><//>`;
    if (location.query.cursor) return html`<${Empty} title="There are no more."><p><a href=${href(location.path, { ...location.query, cursor: "" })}>Go to the first page</a></p><//>`;
    return Object.keys(filterOf(location, fields)).length ? html`<${Empty} title=${noneLike}>${begin}<//>` : none;
  };
  return html`<${Problem} error=${poll.error} /><${Missing} numbers=${missing} />${shown()}<${Pager} location=${location} next=${next} />`;
}
