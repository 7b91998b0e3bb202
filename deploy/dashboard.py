"""The Grafana dashboard: what waits, where, and since when; then what it costs.

Queries use `$__rate_interval`; the data source is a variable, so that the file fits any Grafana.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

__all__ = ["dashboard"]

COLUMNS: Final = 24
HEIGHT: Final = 8
STAT_HEIGHT: Final = 4
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression, and how its series are called in the legend."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        unit: A unit of Grafana: `short`, `s`, `bytes`, `percentunit`, `ops` …
        red: As a number, red from this value on; None: a graph over time.
        what: Shown as the panel's description.
    """

    title: str
    queries: tuple[Query, ...]
    unit: str = "short"
    red: float | None = None
    what: str = ""


def _rate(metric: str, by: str, extra: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{{{extra}}}[$__rate_interval]))"


def _quantiles(metric: str) -> tuple[Query, ...]:
    return tuple(
        Query(f"histogram_quantile({q}, sum by (le) (rate({metric}_bucket[$__rate_interval])))", f"p{q * 100:.0f}")
        for q in (0.5, 0.95, 0.99)
    )


NOW: Final = (
    Panel("Workers not ready", (Query("sum(1 - vault_stream_ready)"),), red=1),
    Panel("Numbers refused", (Query('sum(vault_stream_numbers{state="refused"})'),), red=1),
    Panel("Records waiting", (Query("sum(vault_stream_consumer_lag)"),), red=10_000, what="Lag over all topics"),
    Panel("Oldest unfinished", (Query("max(vault_stream_oldest_unfinished_seconds)"),), "s", red=300),
    Panel("Oldest waiting delivery", (Query("max(vault_stream_deliveries_oldest_waiting_seconds)"),), "s", red=21_600),
    Panel("Audit behind", (Query("max(vault_stream_audit_oldest_unaccepted_seconds)"),), "s", red=60),
)
SECTIONS: Final[tuple[tuple[str, tuple[Panel, ...]], ...]] = (
    (
        "Flow",
        (
            Panel(
                "Events read, by outcome",
                (Query(_rate("vault_stream_events_consumed_total", "outcome"), "{{outcome}}"),),
                "ops",
            ),
            Panel(
                "Records written, by topic", (Query(_rate("vault_stream_outputs_total", "topic"), "{{topic}}"),), "ops"
            ),
            Panel(
                "Waiting records, by topic",
                (Query("sum by (topic) (vault_stream_consumer_lag) > 0", "{{topic}}"),),
                what="Records between our position and the end of the topic",
            ),
            Panel(
                "Oldest unfinished record, by agent",
                (Query("max by (agent) (vault_stream_oldest_unfinished_seconds)", "{{agent}}"),),
                "s",
            ),
            Panel(
                "Quarantined and lost",
                (
                    Query(_rate("vault_stream_quarantined_total", "agent, reason"), "{{agent}}: {{reason}}"),
                    Query(_rate("vault_stream_gap_records_total", "topic"), "lost: {{topic}}"),
                ),
                "ops",
            ),
            Panel("Queues", (Query("sum by (queue_name) (queue_depth)", "{{queue_name}}"),)),
        ),
    ),
    (
        "Webhooks",
        (
            Panel("Attempts, by class", (Query(_rate("vault_stream_attempts_total", "class"), "{{class}}"),), "ops"),
            Panel("From event to first POST", _quantiles("vault_stream_event_to_post_seconds"), "s"),
            Panel(
                "Deliveries, by status", (Query(_rate("vault_stream_deliveries_total", "status"), "{{status}}"),), "ops"
            ),
            Panel("Deliveries that wait", (Query("sum by (reason) (vault_stream_deliveries_waiting)", "{{reason}}"),)),
            Panel("Webhooks, by health", (Query("sum by (health) (vault_stream_webhooks)", "{{health}}"),)),
            Panel("Given up", (Query(_rate("vault_stream_dead_letters_total", "reason"), "{{reason}}"),), "ops"),
        ),
    ),
    (
        "Upstreams",
        (
            Panel(
                "Audit batches", (Query(_rate("vault_stream_audit_batches_total", "outcome"), "{{outcome}}"),), "ops"
            ),
            Panel(
                "Policy answers",
                (Query(_rate("vault_stream_policy_evaluations_total", "source, decision"), "{{source}} {{decision}}"),),
                "ops",
            ),
            Panel(
                "Policy cache hits",
                (
                    Query(
                        "sum(rate(cache_hits_total[$__rate_interval])) / (sum(rate(cache_hits_total[$__rate_interval]))"
                        " + sum(rate(cache_misses_total[$__rate_interval])))",
                        "hits",
                    ),
                ),
                "percentunit",
            ),
            Panel("Clock skew", (Query("vault_stream_clock_skew_seconds", "{{instance}} {{peer}}"),), "s"),
        ),
    ),
    (
        "Engine",
        (
            Panel(
                "Numbers, by worker",
                (Query("sum by (instance, state) (vault_stream_numbers) > 0", "{{instance}} {{state}}"),),
            ),
            Panel("Rebalances", (Query("increase(vault_stream_rebalances_total[$__rate_interval])", "{{instance}}"),)),
            Panel("Checkpoint", _quantiles("vault_stream_checkpoint_seconds"), "s"),
            Panel(
                "Checkpoints, by outcome",
                (
                    Query(_rate("vault_stream_checkpoints_total", "outcome"), "{{outcome}}"),
                    Query("sum(rate(vault_stream_outcome_unknown_total[$__rate_interval]))", "calls abandoned"),
                ),
                "ops",
            ),
            Panel(
                "Restore",
                (
                    Query("sum by (instance) (vault_stream_restore_remaining_rows)", "{{instance}} remaining"),
                    Query(_rate("vault_stream_restored_rows_total", "table"), "{{table}} rows/s"),
                ),
            ),
            Panel(
                "Storage operations",
                (Query(_rate("storage_operations_total", "operation, status"), "{{operation}} {{status}}"),),
                "ops",
            ),
        ),
    ),
    (
        "Process",
        (
            Panel("Event loop lag", (Query("vault_stream_loop_lag_seconds", "{{instance}}"),), "s"),
            Panel("Disk free", (Query("vault_stream_disk_free_bytes", "{{instance}}"),), "bytes"),
            Panel("API requests", (Query(_rate("http_requests_total", "path, status"), "{{path}} {{status}}"),), "ops"),
            Panel("API latency", _quantiles("http_request_duration_seconds"), "s"),
        ),
    ),
)


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    return {
        "uid": "vault-stream",
        "title": "vault-stream",
        "description": "What waits, where, and since when",
        "tags": ["vault-stream"],
        "timezone": "browser",
        "editable": True,
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}]
        },
        "panels": list(_panels()),
    }


def _panels() -> Iterator[dict[str, Any]]:
    ids, y = count(1), 0
    width = COLUMNS // len(NOW)
    for column, panel in enumerate(NOW):
        yield _number(panel, next(ids), {"x": column * width, "y": y, "w": width, "h": STAT_HEIGHT})
    y += STAT_HEIGHT
    for title, panels in SECTIONS:
        yield {
            "id": next(ids),
            "type": "row",
            "title": title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
            "panels": [],
        }
        y += 1
        for place, panel in enumerate(panels):
            at = {"x": place % 2 * COLUMNS // 2, "y": y + place // 2 * HEIGHT, "w": COLUMNS // 2, "h": HEIGHT}
            yield _graph(panel, next(ids), at)
        y += -(-len(panels) // 2) * HEIGHT


def _panel(panel: Panel, kind: str, id_: int, at: dict[str, int]) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": id_,
        "type": kind,
        "title": panel.title,
        "datasource": dict(DATASOURCE),
        "gridPos": at,
        "targets": [
            {"refId": chr(ord("A") + place), "expr": query.expr, "legendFormat": query.legend}
            for place, query in enumerate(panel.queries)
        ],
    }
    if panel.what:
        shown["description"] = panel.what
    return shown


def _number(panel: Panel, id_: int, at: dict[str, int]) -> dict[str, Any]:
    steps = [{"color": "green", "value": None}, {"color": "red", "value": panel.red}]
    return _panel(panel, "stat", id_, at) | {
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "noValue": "0", "thresholds": {"mode": "absolute", "steps": steps}},
            "overrides": [],
        },
        "options": {
            "colorMode": "background",
            "graphMode": "area",
            "reduceOptions": {"calcs": ["lastNotNull"], "values": False},
        },
    }


def _graph(panel: Panel, id_: int, at: dict[str, int]) -> dict[str, Any]:
    return _panel(panel, "timeseries", id_, at) | {
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "custom": {"lineWidth": 1, "fillOpacity": 10, "showPoints": "never"}},
            "overrides": [],
        },
        "options": {
            "legend": {
                "displayMode": "table",
                "placement": "right",
                "showLegend": True,
                "calcs": ["lastNotNull", "max"],
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }
