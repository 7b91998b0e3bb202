"""Vault events and their deliveries feed their metrics, whatever an event claims."""

import pytest

from app.events import VaultEventType, new_event
from app.observability import metrics
from app.webhooks.census import Census
from tests.support.metric_samples import TRACE, Change, scraped, value
from tests.support.webhooks import Desk, answer, webhook_row
from tests.unit.agents.test_router import of, route

# --- vault events -----------------------------------------------------------------------------------------------------


async def test_events_feed_what_they_say_of_personal_data_and_of_anonymization() -> None:
    change = Change()
    pii = {"dataset_id": "ds-1", "pii_types": ["email", "ssn"], "counts": {"email": 3}, "detector": "regex"}
    done = {"dataset_id": "ds-1", "job_id": "j-1", "strategy": "mask", "duration_ms": 250.0}
    events = [(VaultEventType.PII_DETECTED, pii), (VaultEventType.ANONYMIZATION_COMPLETED, done)]
    unit = await route(
        *(of(new_event(id="e", source="/vault", type=type_, data=data).posted) for type_, data in events)
    )
    assert not unit.quarantined
    assert change.of("pii_detections_total", pii_type="email", detector="regex") == 0, "not before the unit is done"
    unit.done()
    assert change.of("pii_detections_total", pii_type="email", detector="regex") == 3
    assert change.of("pii_detections_total", pii_type="ssn", detector="regex") == 1
    assert change.of("anonymization_duration_seconds_sum", strategy="mask") == pytest.approx(0.25)
    assert change.of("anonymization_duration_seconds_bucket", strategy="mask", le="0.5") == 1
    assert change.of("vault_stream_events_consumed_total", type=VaultEventType.PII_DETECTED, outcome="routed") == 1


async def test_what_an_event_claims_makes_no_series_and_no_nonsense() -> None:
    claims = ["jane.doe@example.com", "123-45-6789", "+49 170 1234567", "4111111111111111", "a" * 41, "x\ny", "é", ""]
    claims += [f"kind_{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(200)]
    for claim in claims:
        pii = {"dataset_id": "d", "pii_types": [claim or "x y"], "detector": claim, "counts": {claim or "x y": -5}}
        done = {"dataset_id": "d", "job_id": "j", "strategy": claim, "duration_ms": 1e300}
        unit = await route(
            of(new_event(id="e", source="/v", type=VaultEventType.PII_DETECTED, data=pii).posted),
            of(new_event(id="e", source="/v", type=VaultEventType.ANONYMIZATION_COMPLETED, data=done).posted),
        )
        unit.done()
    labels = [dict(labels) for name, labels in scraped() if name == "pii_detections_total"]
    assert len({one["pii_type"] for one in labels}) < 60
    assert len({one["detector"] for one in labels}) < 60
    assert not any(set(one["pii_type"] + one["detector"]) & set("@0123456789 \n") for one in labels)
    assert value("pii_detections_total", pii_type="other", detector="other") > 0


# --- webhooks ---------------------------------------------------------------------------------------------------------


async def test_deliveries_feed_their_metrics() -> None:
    change = Change()
    desk = await Desk().open(webhook_row())
    assert change.of("vault_stream_webhooks", health="ok") == 1
    desk.receiver.hold()
    await desk.deliver(desk.intent("e1", time="2025-06-15T15:00:00Z", traceparent=TRACE))
    assert change.of("queue_depth", queue_name="webhooks_in_flight") == 1
    desk.receiver.fails_first(1)
    desk.receiver.release()
    await desk.settle()
    assert change.of("vault_stream_event_to_post_seconds_count") == 1
    assert change.of("queue_depth", queue_name="webhooks_waiting") == 1
    assert change.of("vault_stream_deliveries_waiting", reason="retry") == 1
    assert change.of("vault_stream_deliveries_total", status="retrying") == 1
    assert change.of("vault_stream_attempts_total", **{"class": "5xx"}) == 1
    await desk.until(lambda: change.of("vault_stream_deliveries_total", status="delivered") == 1, within_s=86_400)
    assert change.of("vault_stream_attempts_total", **{"class": "2xx"}) == 1
    desk.receiver.fails_first(0)
    desk.receiver.always(answer(400))
    await desk.deliver(desk.intent("e2"))
    await desk.until(lambda: change.of("vault_stream_dead_letters_total", reason="rejected") == 1, within_s=86_400)
    desk.receiver.always(answer(410))
    await desk.deliver(desk.intent("e3"))
    assert change.of("vault_stream_webhooks", health="disabled") == 1
    await desk.context.close(desk.processor)
    assert change.of("vault_stream_webhooks", health="disabled") == 0
    assert b'trace_id="4bf92f3577b34da6a3ce929d0e0e4736"' in metrics.render("application/openmetrics-text")[1]


async def test_the_gauges_of_a_number_that_is_closed_are_taken_back() -> None:
    change, census = Change(), Census()
    census.flies(3)
    census.close()
    assert change.of("queue_depth", queue_name="webhooks_in_flight") == 0
