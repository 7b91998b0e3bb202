"""The reference of metrics: every one that `/metrics` may show, with its kind, labels and meaning."""

from __future__ import annotations

from typing import Any

from app.observability import metrics

__all__ = ["metrics_page"]


def metrics_page() -> str:
    """The page, in Markdown."""
    lines = [
        "# Metrics",
        "",
        "Everything on `/metrics`, generated from the code by `make reference`. The scrape needs no token; with",
        "`Accept: application/openmetrics-text` it is OpenMetrics, and the latencies of requests and deliveries name",
        "a sampled trace as their exemplar. No label is unbounded: what comes from outside is mapped to a closed list",
        "first. Counters end in `_total`, times are in seconds.",
        "",
        "| name | kind | labels | |",
        "|---|---|---|---|",
    ]
    lines += sorted(_line(one) for one in vars(metrics).values() if hasattr(one, "_documentation"))
    return "\n".join(lines) + "\n"


def _line(metric: Any) -> str:
    name, kind = metric._name, metric._type  # noqa: SLF001  # prometheus-client tells it of samples only
    shown = f"{name}_total" if kind == "counter" else name
    labels = " ".join(f"`{label}`" for label in metric._labelnames)  # noqa: SLF001  # as above
    return f"| `{shown}` | {kind} | {labels} | {metric._documentation} |"  # noqa: SLF001  # as above
