import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from app.observability import metrics

CONTRACT = {
    "http_requests_total": ("method", "path", "status"),
    "http_request_duration_seconds": ("method", "path"),
    "grpc_requests_total": ("method", "status"),
    "storage_operations_total": ("backend", "operation", "status"),
    "storage_bytes_total": ("backend", "direction"),
    "storage_latency_seconds": ("backend", "operation"),
    "pii_detections_total": ("pii_type", "detector"),
    "anonymization_duration_seconds": ("strategy",),
    "active_connections": (),
    "queue_depth": ("queue_name",),
    "cache_hits_total": (),
    "cache_misses_total": (),
    "vault_stream_events_consumed_total": ("type", "outcome"),
    "vault_stream_outputs_total": ("topic",),
    "vault_stream_oldest_unfinished_seconds": ("agent",),
    "vault_stream_checkpoint_seconds": (),
    "vault_stream_checkpoints_total": ("outcome",),
    "vault_stream_restored_rows_total": ("table",),
    "vault_stream_stores_removed_total": ("reason",),
    "vault_stream_ready": (),
    "vault_stream_spans_total": ("outcome",),
    "vault_stream_outcome_unknown_total": (),
    "vault_stream_deliveries_total": ("status",),
    "vault_stream_attempts_total": ("class",),
    "vault_stream_deliveries_waiting": ("reason",),
    "vault_stream_audit_batches_total": ("outcome",),
    "vault_stream_audit_oldest_unaccepted_seconds": (),
    "vault_stream_consumer_lag": ("topic",),
    "vault_stream_rebalances_total": (),
    "vault_stream_gap_records_total": ("topic",),
    "vault_stream_event_to_post_seconds": (),
    "vault_stream_deliveries_oldest_waiting_seconds": (),
    "vault_stream_webhooks": ("health",),
    "vault_stream_policy_cache_stale_total": (),
    "vault_stream_policy_evaluations_total": ("source", "decision"),
    "vault_stream_dead_letters_total": ("reason",),
    "vault_stream_quarantined_total": ("agent", "reason"),
    "vault_stream_restore_remaining_rows": (),
    "vault_stream_numbers": ("state",),
    "vault_stream_log_lines_dropped_total": ("output",),
    "vault_stream_loop_lag_seconds": (),
    "vault_stream_clock_skew_seconds": ("peer",),
    "vault_stream_encryption_key_missing": (),
    "vault_stream_disk_free_bytes": (),
    "vault_stream_build_info": ("version", "python"),
}


def registered() -> dict[str, tuple[str, ...]]:
    """Names as they are scraped, with the labels of each."""
    values = (getattr(metrics, name) for name in metrics.__all__)
    found = [value for value in values if hasattr(value, "_labelnames")]
    return {f"{m._name}_total" if m._type == "counter" else m._name: tuple(m._labelnames) for m in found}


def test_names_and_labels_are_those_of_the_contract() -> None:
    assert registered() == CONTRACT


def test_nothing_else_is_scraped() -> None:
    scraped = {family.name for family in metrics.REGISTRY.collect()}
    assert scraped == {name.removesuffix("_total") for name in CONTRACT}


@pytest.mark.parametrize(
    ("histogram", "buckets"),
    [
        (metrics.HTTP_REQUEST_DURATION_SECONDS, [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]),
        (metrics.STORAGE_LATENCY_SECONDS, [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5]),
        (metrics.ANONYMIZATION_DURATION_SECONDS, [0.01, 0.05, 0.1, 0.5, 1, 5, 10]),
    ],
)
def test_the_buckets_of_the_source_document_are_kept(histogram: object, buckets: list[float]) -> None:
    assert histogram._upper_bounds[:-1] == buckets  # type: ignore[attr-defined]


def test_build_info_says_what_runs() -> None:
    labels = {"version": metrics.VERSION, "python": __import__("platform").python_version()}
    assert metrics.REGISTRY.get_sample_value("vault_stream_build_info", labels) == 1


@pytest.mark.parametrize(
    ("accept", "content_type", "parse"),
    [
        ("", "text/plain; version=0.0.4", parse_text),
        (
            "application/openmetrics-text; version=1.0.0,text/plain;q=0.5",
            "application/openmetrics-text",
            parse_openmetrics,
        ),
    ],
)
def test_both_formats_can_be_read_back(accept: str, content_type: str, parse: object) -> None:
    metrics.OUTPUTS.labels(topic="vault.test").inc(3)
    answered, body = metrics.render(accept)
    assert answered.startswith(content_type)
    samples = {sample for family in parse(body.decode()) for sample in [s.name for s in family.samples]}  # type: ignore[operator]
    assert "vault_stream_outputs_total" in samples
    assert not any(name.endswith("_created") for name in samples)


def test_what_adds_to_a_metric_adds_to_one_choice_of_its_labels() -> None:
    samples = [{"queue_name": name} for name in ("added_to", "left_alone")]
    add, _ = (metrics.adder(metrics.QUEUE_DEPTH.labels(**labels)) for labels in samples)

    add(3)
    add(-1)

    assert [metrics.REGISTRY.get_sample_value("queue_depth", labels) for labels in samples] == [2, 0]
    for labels in samples:
        metrics.QUEUE_DEPTH.remove(*labels.values())
