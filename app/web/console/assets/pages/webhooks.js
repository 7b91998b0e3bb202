import { useGet } from "../live.js";
import { Loading, Page, Table, html } from "../ui.js";

function Webhooks() {
  const poll = useGet("/v1/webhooks");
  return html`<${Page} title="Webhooks">
    ${poll.data ? html`<${Table} caption="Webhooks" rows=${poll.data.items} keyOf=${(row) => row.id} columns=${[{ head: "URL", cell: (row) => row.url }]} />` : html`<${Loading} of=${poll} />`}
  <//>`;
}

export const routes = [{ path: "/webhooks", nav: "Webhooks", page: Webhooks }];
