"""Every metric of the process, as typed code on a registry of its own.

The names and labels are a contract (contracts section 7): alerts, autoscaling and checks use them to the letter. The
first group keeps the names, labels and buckets of the source document (its section 4); the second carries the prefix
`vault_stream_`. No label is unbounded: where a value could come from outside (a type, a path), the comment at the
metric says which closed set it is mapped to first.

Set a metric where the thing happens::

    from app.observability import metrics

    metrics.EVENTS_CONSUMED.labels(type=event.type, outcome="routed").inc()
"""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import choose_encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import Metric

__all__ = [
    "ACTIVE_CONNECTIONS",
    "ANONYMIZATION_DURATION_SECONDS",
    "ATTEMPTS",
    "AUDIT_BATCHES",
    "AUDIT_OLDEST_UNACCEPTED_SECONDS",
    "BUILD_INFO",
    "CACHE_HITS",
    "CACHE_MISSES",
    "CHECKPOINTS",
    "CHECKPOINT_SECONDS",
    "CLOCK_SKEW_SECONDS",
    "CONSUMER_LAG",
    "DEAD_LETTERS",
    "DELIVERIES",
    "DELIVERIES_OLDEST_WAITING_SECONDS",
    "DELIVERIES_WAITING",
    "DISK_FREE_BYTES",
    "ENCRYPTION_KEY_MISSING",
    "EVENTS_CONSUMED",
    "EVENT_TO_POST_SECONDS",
    "GAP_RECORDS",
    "GRPC_REQUESTS",
    "HTTP_REQUESTS",
    "HTTP_REQUEST_DURATION_SECONDS",
    "LOG_LINES_DROPPED",
    "LOOP_LAG_SECONDS",
    "NUMBERS",
    "OLDEST_UNFINISHED_SECONDS",
    "OUTCOME_UNKNOWN",
    "OUTPUTS",
    "PII_DETECTIONS",
    "POLICY_CACHE_STALE",
    "POLICY_EVALUATIONS",
    "PREFIX",
    "QUARANTINED",
    "QUEUE_DEPTH",
    "READY",
    "REBALANCES",
    "REGISTRY",
    "RESTORED_ROWS",
    "RESTORE_REMAINING_ROWS",
    "SPANS",
    "STORAGE_BYTES",
    "STORAGE_LATENCY_SECONDS",
    "STORAGE_OPERATIONS",
    "STORES_REMOVED",
    "VERSION",
    "WEBHOOKS",
    "adder",
    "before_scrape",
    "render",
]

PREFIX = "vault_stream_"

# The client would add a `_created` series beside each counter and bucket: twice the series, read by nobody here.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the client left this one without types

REGISTRY = CollectorRegistry()
"""Ours alone: what a library puts into the default registry of the client is not shown."""


class _Feeds:
    """Registered first, so that it is asked before all metrics: what is added up elsewhere is moved into them then."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def collect(self) -> Iterable[Metric]:
        for call in self.calls:
            call()
        return ()


_feeds = _Feeds()
REGISTRY.register(_feeds)


def before_scrape(call: Callable[[], None]) -> None:
    """Call this before each scrape, for as long as the process lives."""
    _feeds.calls.append(call)


def adder(metric: Counter | Gauge) -> Callable[[float], None]:
    """What adds to a metric that is counted several times a delivery; of one with labels, to one choice of them.

    Only the thread of the event loop may add by it. It costs a quarter of the client's own `inc`, which asks each time
    whether labels are missing and takes a lock.
    """
    value = metric._value  # noqa: SLF001  # the client tells it to nobody

    def add(change: float) -> None:
        value._value += change  # noqa: SLF001

    return add


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(name, text, labels, registry=REGISTRY)


def _gauge(name: str, text: str, *labels: str) -> Gauge:
    return Gauge(name, text, labels, registry=REGISTRY)


def _histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return Histogram(name, text, labels, registry=REGISTRY, buckets=buckets)


# --- The source document's, names, labels and buckets kept ------------------------------------------------------------

# method: an HTTP method, "other" if it is none of RFC 9110. path: the route template, "unmatched" without one.
# status: the three digits.
HTTP_REQUESTS = _counter("http_requests_total", "Total HTTP requests", "method", "path", "status")
HTTP_REQUEST_DURATION_SECONDS = _histogram(
    "http_request_duration_seconds",
    "HTTP request duration",
    (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
    "method",
    "path",
)
GRPC_REQUESTS = _counter(
    "grpc_requests_total", "Total gRPC requests; stays without samples, as nothing here speaks gRPC", "method", "status"
)
# backend: rocksdb. operation: get, put, scan, checkpoint, restore. status: ok, error.
STORAGE_OPERATIONS = _counter("storage_operations_total", "Total storage operations", "backend", "operation", "status")
# backend: rocksdb. direction: read, write.
STORAGE_BYTES = _counter("storage_bytes_total", "Total bytes transferred", "backend", "direction")
STORAGE_LATENCY_SECONDS = _histogram(
    "storage_latency_seconds",
    "Storage operation latency",
    (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0),
    "backend",
    "operation",
)
# pii_type, detector: from the events: known ones and the first 25 others that look like a name, else "other".
PII_DETECTIONS = _counter("pii_detections_total", "Total PII detections", "pii_type", "detector")
# strategy: from the events, bounded likewise.
ANONYMIZATION_DURATION_SECONDS = _histogram(
    "anonymization_duration_seconds", "Anonymization duration", (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0), "strategy"
)
ACTIVE_CONNECTIONS = _gauge("active_connections", "Open connections of the web listener")
# queue_name: webhooks_waiting, webhooks_in_flight, jobs_<agent>, decisions_audit.
QUEUE_DEPTH = _gauge(
    "queue_depth", "Queue depth: webhooks_waiting, webhooks_in_flight, jobs_{agent}, decisions_audit", "queue_name"
)
CACHE_HITS = _counter("cache_hits_total", "Total cache hits of the policy cache")
CACHE_MISSES = _counter("cache_misses_total", "Total cache misses of the policy cache")

# --- Consuming and the engine -----------------------------------------------------------------------------------------

# type: a type of the catalogue, "unknown" otherwise. outcome: routed, or the reason of the quarantine (contracts 9.2).
EVENTS_CONSUMED = _counter(
    f"{PREFIX}events_consumed_total", "Events read by the router, by type and outcome", "type", "outcome"
)
# topic: the name of a topic that we write.
OUTPUTS = _counter(f"{PREFIX}outputs_total", "Records written and acknowledged by the broker", "topic")
OLDEST_UNFINISHED_SECONDS = _gauge(
    f"{PREFIX}oldest_unfinished_seconds", "Age of the oldest unfinished slice of an agent; 0 when idle", "agent"
)
CHECKPOINT_SECONDS = _histogram(
    f"{PREFIX}checkpoint_seconds",
    "Duration of one checkpoint of one number",
    (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0),
)
# outcome: committed, failed (whether it took effect is unknown, and the number is reopened).
CHECKPOINTS = _counter(f"{PREFIX}checkpoints_total", "Checkpoints by outcome", "outcome")
# table: the name of a table, "engine" for positions and meta rows.
RESTORED_ROWS = _counter(f"{PREFIX}restored_rows_total", "Rows read back from changelogs", "table")
# reason: damaged, stale (its tombstones cannot be trusted), reindexed (by another release), recreated (its changelog),
# ahead (of its changelog).
STORES_REMOVED = _counter(
    f"{PREFIX}stores_removed_total", "Local copies of tables removed and restored from their changelogs", "reason"
)
RESTORE_REMAINING_ROWS = _gauge(
    f"{PREFIX}restore_remaining_rows", "Changelog records that the numbers being opened have yet to read"
)
OUTCOME_UNKNOWN = _counter(
    f"{PREFIX}outcome_unknown_total",
    "Calls abandoned in flight as their number was closed; the next owner repeats them",
)
# topic: a topic that the group reads.
CONSUMER_LAG = _gauge(f"{PREFIX}consumer_lag", "Records between our position and the end of the topic", "topic")
REBALANCES = _counter(f"{PREFIX}rebalances_total", "Assignments received by this worker")
# topic: a topic that the group reads.
GAP_RECORDS = _counter(f"{PREFIX}gap_records_total", "Records that retention removed before we read them", "topic")
# agent: the name of an agent. reason: contracts 9.2.
QUARANTINED = _counter(f"{PREFIX}quarantined_total", "Records put into the quarantine topic", "agent", "reason")
READY = _gauge(f"{PREFIX}ready", "1 while this worker is ready; /health/ready says why it is not")
# state: opening, open, closing, refused.
NUMBERS = _gauge(f"{PREFIX}numbers", "Numbers held by this worker, by state", "state")
LOOP_LAG_SECONDS = _gauge(f"{PREFIX}loop_lag_seconds", "Longest delay of a timer on the event loop over the last 15 s")
# output: stdout, file.
LOG_LINES_DROPPED = _counter(
    f"{PREFIX}log_lines_dropped_total", "Log lines given up as their output was not written fast enough", "output"
)
# peer: broker, policy, governance, registry.
CLOCK_SKEW_SECONDS = _gauge(
    f"{PREFIX}clock_skew_seconds",
    "Our clock minus the clock of a peer, as far as the way there and back does not explain it",
    "peer",
)
DISK_FREE_BYTES = _gauge(f"{PREFIX}disk_free_bytes", "Free space on the volume of DATA_DIR")

# --- Webhooks ---------------------------------------------------------------------------------------------------------

# status: pending, retrying, delivered, failed, missed, cancelled; counted when a row enters it.
DELIVERIES = _counter(f"{PREFIX}deliveries_total", "Deliveries by the status they entered", "status")
# class: 2xx, 3xx, 4xx, 5xx, or the error: dns, connect, tls, timeout, reset, too_large, forbidden_target; no_key and
# proxy are of those that were not made.
# The label is a word of the language, so pass it by position: `ATTEMPTS.labels("2xx")`.
ATTEMPTS = _counter(f"{PREFIX}attempts_total", "Delivery attempts by class of their outcome", "class")
# reason: slot, rate, pace, hold, order, no_key, retry, resend.
DELIVERIES_WAITING = _gauge(f"{PREFIX}deliveries_waiting", "Deliveries that wait, by reason", "reason")
DELIVERIES_OLDEST_WAITING_SECONDS = _gauge(
    f"{PREFIX}deliveries_oldest_waiting_seconds", "Age of the oldest waiting delivery; 0 when none waits"
)
EVENT_TO_POST_SECONDS = _histogram(
    f"{PREFIX}event_to_post_seconds",
    "From the time of an event to the start of its first POST",
    (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 300.0, 3600.0),
)
# health: ok, failing, disabled.
WEBHOOKS = _gauge(f"{PREFIX}webhooks", "Webhooks owned by this worker, by health", "health")
# reason: exhausted, rejected, gone, expired.
DEAD_LETTERS = _counter(f"{PREFIX}dead_letters_total", "Deliveries given up, by reason", "reason")
ENCRYPTION_KEY_MISSING = _gauge(
    f"{PREFIX}encryption_key_missing", "1 while webhooks wait, or none can be made, for want of a key"
)

# --- Upstreams --------------------------------------------------------------------------------------------------------

# outcome: accepted, duplicate, split, rejected, unavailable, lost.
AUDIT_BATCHES = _counter(f"{PREFIX}audit_batches_total", "Answers to audit batches, by outcome", "outcome")
AUDIT_OLDEST_UNACCEPTED_SECONDS = _gauge(
    f"{PREFIX}audit_oldest_unaccepted_seconds", "Age of the oldest audit record that the dashboard has not accepted"
)
POLICY_CACHE_STALE = _counter(
    f"{PREFIX}policy_cache_stale_total", "Decisions found in memory that an invalidation had ended"
)
# source: cache, engine, error. decision: allow, deny, unavailable.
POLICY_EVALUATIONS = _counter(
    f"{PREFIX}policy_evaluations_total", "Policy evaluations by source and decision", "source", "decision"
)

# --- Tracing ----------------------------------------------------------------------------------------------------------

# outcome: exported, failed (the collector did not take them), dropped (the queue was full, or the process ended).
SPANS = _counter(f"{PREFIX}spans_total", "Spans of sampled traces, by what became of them", "outcome")

# --- Build ------------------------------------------------------------------------------------------------------------


def _own_version() -> str:
    try:
        return version("vault-stream")
    except PackageNotFoundError:  # a source tree that was never installed
        return "unknown"


VERSION: str = _own_version()
"""The version of this program, as installed."""

BUILD_INFO = _gauge(f"{PREFIX}build_info", "Always 1; the labels say what runs", "version", "python")
BUILD_INFO.labels(version=VERSION, python=platform.python_version()).set(1)


def render(accept: str) -> tuple[str, bytes]:
    """Write all metrics in the format that the scraper asks for.

    Args:
        accept: The `Accept` header of the request; empty means the classic text format.

    Returns:
        The content type and the body: OpenMetrics 1.0 if `accept` names it (which can carry exemplars), else the
        Prometheus text format 0.0.4.
    """
    encode, content_type = choose_encoder(accept)
    return content_type, encode(REGISTRY)
