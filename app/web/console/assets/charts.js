// Small pictures; each says in words what it shows.

import { html } from "./vendor/htm-preact.js";
import { count } from "./format.js";

const WIDTH = 300;
const HEIGHT = 60;

/** A line of values, oldest first; `caption` says them in words. */
export function Line({ values, caption, kind = "in" }) {
  const most = Math.max(1, ...values);
  const step = WIDTH / Math.max(1, values.length - 1);
  const points = values.map((value, at) => `${(at * step).toFixed(1)},${(HEIGHT - 2 - (value / most) * (HEIGHT - 6)).toFixed(1)}`);
  return html`<figure class="chart">
    <svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label=${caption}>
      <line x1="0" x2=${WIDTH} y1=${HEIGHT - 1} y2=${HEIGHT - 1} class="axis" />
      ${points.length > 1 && html`<polyline points=${points.join(" ")} class=${`line ${kind}`} />`}
    </svg>
    <figcaption>${caption}</figcaption>
  </figure>`;
}

/**
 * Stacked bars, oldest first.
 *
 * bars: `{label, parts: [number, …]}`; kinds: a class for each part, good or bad.
 */
export function Bars({ bars, kinds, caption }) {
  const most = Math.max(1, ...bars.map((bar) => bar.parts.reduce((sum, part) => sum + part, 0)));
  const width = WIDTH / bars.length;
  return html`<figure class="chart bars">
    <svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label=${caption}>
      <line x1="0" x2=${WIDTH} y1=${HEIGHT - 1} y2=${HEIGHT - 1} class="axis" />
      ${bars.map((bar, at) => {
        let top = HEIGHT - 1;
        return html`<g key=${at}>
          <title>${`${bar.label}: ${bar.parts.map(count).join(" / ")}`}</title>
          ${bar.parts.map((part, which) => {
            const height = (part / most) * (HEIGHT - 4);
            top -= height;
            return part > 0 && html`<rect key=${which} x=${at * width + 1} width=${width - 2} y=${top} height=${height} class=${`bar ${kinds[which]}`} />`;
          })}
        </g>`;
      })}
    </svg>
    <figcaption>${caption}</figcaption>
  </figure>`;
}
