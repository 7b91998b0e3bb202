"""Every metric of the contract is fed by what really happens: each is driven by a test, and none is left out.

`FEEDS` names the test for each metric. One that is added without a feed fails here.
"""

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from app.main import Program
from app.observability.health import HealthStatus
from app.settings import Settings
from tests.support.metric_samples import value
from tests.unit.observability.feeds import test_engine as engine
from tests.unit.observability.feeds import test_events as events
from tests.unit.observability.feeds import test_listener as listener
from tests.unit.observability.feeds import test_policy as policy
from tests.unit.observability.feeds import test_tables as tables
from tests.unit.observability.test_metrics import CONTRACT


async def test_a_worker_says_that_it_has_no_key_and_how_much_disk_is_left(tmp_path: Path) -> None:
    program = Program(Settings(data_dir=tmp_path / "data", stats_port=0))
    assert value("vault_stream_encryption_key_missing") == 1
    report = await program.health.report()
    assert [check.status for check in report.checks if check.name == "webhook_keys"] == [HealthStatus.DEGRADED]
    assert value("vault_stream_disk_free_bytes") > 0
    await program.engine.stop()


Test = Callable[..., Any]
FEEDS: Final[dict[str, Test | str]] = {
    "http_requests_total": listener.test_requests_feed_their_metrics,
    "http_request_duration_seconds": listener.test_requests_feed_their_metrics,
    "grpc_requests_total": listener.test_nothing_here_speaks_grpc,
    "storage_operations_total": tables.test_reads_and_writes_of_tables_feed_the_storage_metrics,
    "storage_bytes_total": tables.test_reads_and_writes_of_tables_feed_the_storage_metrics,
    "storage_latency_seconds": tables.test_reads_and_writes_of_tables_feed_the_storage_metrics,
    "pii_detections_total": events.test_events_feed_what_they_say_of_personal_data_and_of_anonymization,
    "anonymization_duration_seconds": events.test_events_feed_what_they_say_of_personal_data_and_of_anonymization,
    "active_connections": listener.test_requests_feed_their_metrics,
    "queue_depth": engine.test_the_gauges_of_the_engine_are_fed,
    "cache_hits_total": policy.test_questions_about_policy_feed_their_metrics,
    "cache_misses_total": policy.test_questions_about_policy_feed_their_metrics,
    "vault_stream_events_consumed_total": events.test_events_feed_what_they_say_of_personal_data_and_of_anonymization,
    "vault_stream_outputs_total": engine.test_acknowledged_outputs_are_counted_and_tell_the_clock_of_the_broker,
    "vault_stream_oldest_unfinished_seconds": engine.test_the_gauges_of_the_engine_are_fed,
    "vault_stream_checkpoint_seconds": tables.test_checkpoints_feed_their_metrics_and_so_does_a_restore,
    "vault_stream_checkpoints_total": tables.test_checkpoints_feed_their_metrics_and_so_does_a_restore,
    "vault_stream_restored_rows_total": tables.test_checkpoints_feed_their_metrics_and_so_does_a_restore,
    "vault_stream_outcome_unknown_total":
        "tests.unit.engine.test_abandoned_calls:test_calls_in_flight_at_the_close_are_counted",
    "vault_stream_deliveries_total": events.test_deliveries_feed_their_metrics,
    "vault_stream_attempts_total": events.test_deliveries_feed_their_metrics,
    "vault_stream_deliveries_waiting": events.test_deliveries_feed_their_metrics,
    "vault_stream_audit_batches_total":
        "tests.unit.agents.test_governance:test_a_repeat_that_the_dashboard_knows_is_accepted",
    "vault_stream_audit_oldest_unaccepted_seconds":
        "tests.unit.agents.test_governance:test_the_age_of_the_oldest_unaccepted_record_is_a_metric",
    "vault_stream_consumer_lag": engine.test_the_gauges_of_the_engine_are_fed,
    "vault_stream_rebalances_total": engine.test_an_assignment_and_a_gap_are_counted,
    "vault_stream_gap_records_total": engine.test_an_assignment_and_a_gap_are_counted,
    "vault_stream_event_to_post_seconds": events.test_deliveries_feed_their_metrics,
    "vault_stream_deliveries_oldest_waiting_seconds":
        "tests.unit.agents.test_webhook_ages:"
        "test_the_age_is_that_of_the_oldest_delivery_that_waits_and_0_where_none_does",
    "vault_stream_webhooks": events.test_deliveries_feed_their_metrics,
    "vault_stream_policy_evaluations_total": policy.test_questions_about_policy_feed_their_metrics,
    "vault_stream_dead_letters_total": events.test_deliveries_feed_their_metrics,
    "vault_stream_quarantined_total": engine.test_what_is_put_into_quarantine_is_counted,
    "vault_stream_restore_remaining_rows": tables.test_what_is_still_to_be_restored_is_a_gauge,
    "vault_stream_numbers": engine.test_the_gauges_of_the_engine_are_fed,
    "vault_stream_loop_lag_seconds":
        "tests.unit.observability.test_health:test_the_heartbeat_measures_how_late_its_timer_is",
    "vault_stream_clock_skew_seconds": engine.test_acknowledged_outputs_are_counted_and_tell_the_clock_of_the_broker,
    "vault_stream_encryption_key_missing": test_a_worker_says_that_it_has_no_key_and_how_much_disk_is_left,
    "vault_stream_disk_free_bytes": test_a_worker_says_that_it_has_no_key_and_how_much_disk_is_left,
    "vault_stream_build_info": "tests.unit.observability.test_metrics:test_build_info_says_what_runs",
    # Ours beyond the contract.
    "vault_stream_ready": engine.test_the_gauges_of_the_engine_are_fed,
    "vault_stream_stores_removed_total": tables.test_checkpoints_feed_their_metrics_and_so_does_a_restore,
    "vault_stream_spans_total":
        "tests.unit.observability.tracing.test_export:test_a_dead_collector_costs_a_count_and_the_end_is_in_time",
    "vault_stream_policy_cache_stale_total": policy.test_questions_about_policy_feed_their_metrics,
    "vault_stream_log_lines_dropped_total":
        "tests.unit.observability.test_log_output:test_what_does_not_fit_is_counted_and_its_place_says_so",
}  # fmt: skip


def test_every_metric_has_a_test_that_drives_it() -> None:
    assert FEEDS.keys() == CONTRACT.keys()


@pytest.mark.parametrize("name", FEEDS)
def test_the_test_that_a_metric_is_driven_by_is_there_and_speaks_of_it(name: str) -> None:
    feed = FEEDS[name]
    if isinstance(feed, str):
        module, _, function = feed.partition(":")
        assert name in inspect.getsource(importlib.import_module(module))
        feed = getattr(importlib.import_module(module), function)
    else:
        assert name in inspect.getsource(feed)
    assert callable(feed)
