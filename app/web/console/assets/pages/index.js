// The pages of the console.
//
// How to add one
//   1. Write `pages/<name>.js` that exports `routes`: a list of `{path, page, nav?}`. `path` is `/things` or `/things/:id`;
//      `nav` is the word in the navigation, for the one page of yours that belongs there. `page` is a component that gets
//      `{params, location}`: `params.id`, and `location.path` and `location.query` of `#/things/t-1?status=failed`.
//   2. Import it below and add its routes, in the order of the navigation.
//   3. Add the file to nothing else: every file of this folder is served.
//
// What there is
//   api.js     `get(path, query)`, `post(path, body)`, `api(method, path, {query, body, headers, accept})`; they throw
//              `ApiError` with `status`, `code`, `message`, and `at("/url")`: what is wrong with that field.
//   live.js    `useGet(path, query)` → `{data, error, at, refresh}`, asked again every 2 s while the tab is seen, and part of
//              what the banner "This is old" watches; `usePoll(load, deps)` for more than one GET.
//   ui.js      `html`, `useState`, `useEffect`, `useRef`; `Page`, `Section`, `Loading`, `Empty`, `Badge`, `Time`, `Facts`,
//              `Table`, `Pager` (cursor in the address), `Button` (busy, errors become notices), `Copy`, `Form` + `Field` +
//              `Check` + `Select` (errors of the API at their field), `Problem`, `AdminOnly` (put every action into it),
//              `notify(text, "good" | "bad")`, `confirm({title, body, action, danger, run})` before anything that destroys,
//              `openDialog(title, Component, props)`.
//   router.js  `href(path, query)` for links, `go(path, query, {replace})`; filters belong into the address.
//   format.js  `count`, `duration`, `relative`, `moment`, `bytes`, `plural`.   charts.js  `Line`, `Bars`.
//   Looks are in console.css, by element and few classes; colours are variables for light and dark.
//
// What holds everywhere (tests/contract/console tries it on each page)
//   Nothing is made from strings of HTML, no style or script is inline, no address of data becomes a link. Each table has a
//   caption, each control a label; a list without rows says what to do next; nothing is wider than 360 px.
//
// How to test: tests/contract/console. `conftest.py` has a running system (`system`), a browser (`browser`) and
// `console(...)`, which opens the console as admin or viewer, and fails the test at any error in the browser's console;
// `checked(page)` runs axe in light and dark and looks for horizontal scroll. See test_overview.py for the least of it:
//   FOREIGN=required python -m pytest -m foreign tests/contract/console

import { routes as audit } from "./audit.js";
import { routes as deadLetters } from "./dead_letters.js";
import { routes as deliveries } from "./deliveries.js";
import { routes as overview } from "./overview.js";
import { routes as policy } from "./policy.js";
import { routes as quarantine } from "./quarantine.js";
import { routes as registry } from "./registry.js";
import { routes as replays } from "./replays.js";
import { routes as webhooks } from "./webhooks.js";

export const routes = [
  ...overview, ...webhooks, ...deliveries, ...deadLetters, ...quarantine, ...replays, ...audit, ...policy, ...registry,
];
