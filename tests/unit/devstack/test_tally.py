from dataclasses import replace

import pytest

from app.devstack.tally import Expected, Observed, Result, expect, settle
from app.devstack.workload import BrokenRecord, make_workload
from app.events import VaultEventType

WORKLOAD = make_workload(300, seed=5, start_ms=1_767_225_600_000)
EXPECTED = expect(WORKLOAD.events)
BROKEN = {f"topic/0/{number}": record for number, record in enumerate(WORKLOAD.broken)}


def everything() -> Observed:
    return Observed(
        honest=EXPECTED.honest,
        flaky=EXPECTED.flaky,
        waiting=EXPECTED.hanging,
        audited=EXPECTED.audited,
        violations=EXPECTED.violations,
        datasets=EXPECTED.datasets,
        quarantined={key: record.reason for key, record in BROKEN.items()},
        duplicates=0,
        signatures_bad=0,
        bodies_changed=0,
        chain_ok=True,
    )


def settled(observed: Observed) -> Result:
    return settle(EXPECTED, BROKEN, observed)


def one_less(values: frozenset[object]) -> set[object]:
    rest = set(values)
    rest.pop()
    return rest


def test_what_is_expected_follows_from_the_events_alone() -> None:
    def count(kind: VaultEventType) -> int:
        return sum(event.type == kind for event in WORKLOAD.events)

    assert len(EXPECTED.honest) == len(EXPECTED.audited) == 300
    assert len(EXPECTED.flaky) == sum(".dataset." in event.type for event in WORKLOAD.events)
    assert len(EXPECTED.hanging) == count(VaultEventType.HEALTH_DEGRADED)
    assert len(EXPECTED.violations) == count(VaultEventType.POLICY_VIOLATION)
    assert len(EXPECTED.gone) == count(VaultEventType.DATASET_DELETED)
    assert len(EXPECTED.datasets) == count(VaultEventType.DATASET_CREATED) - len(EXPECTED.gone)
    assert EXPECTED.gone.isdisjoint(EXPECTED.datasets)


def test_everything_observed_is_ok() -> None:
    result = settled(everything())
    assert result.ok
    assert result.lost == 0
    assert result.deliveries_observed == result.deliveries_expected == len(EXPECTED.honest) + len(EXPECTED.flaky)
    assert result.quarantined == 5


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("honest", "honest"),
        ("flaky", "flaky"),
        ("waiting", "hanging"),
        ("audited", "audited"),
        ("violations", "violations"),
        ("datasets", "datasets"),
    ],
)
def test_one_missing_effect_of_any_kind_is_lost(field: str, expected: str) -> None:
    observed = replace(everything(), **{field: one_less(getattr(EXPECTED, expected))})
    result = settled(observed)
    assert result.lost == 1
    assert not result.ok


def test_nothing_observed_loses_every_effect_once() -> None:
    nothing = Observed(set(), set(), set(), set(), set(), set(), {}, 0, 0, 0, chain_ok=False)
    sets = (getattr(EXPECTED, name) for name in Expected.__slots__ if name != "gone")
    assert settled(nothing).lost == sum(len(one) for one in sets) + len(BROKEN)


def test_duplicates_are_counted_and_allowed() -> None:
    result = settled(replace(everything(), duplicates=9))
    assert result.duplicates == 9
    assert result.ok


@pytest.mark.parametrize(
    "wrong", [{"signatures_bad": 1}, {"bodies_changed": 1}, {"chain_ok": False}], ids=lambda wrong: next(iter(wrong))
)
def test_what_must_never_happen_is_not_ok_though_nothing_is_lost(wrong: dict[str, int]) -> None:
    result = settled(replace(everything(), **wrong))
    assert result.lost == 0
    assert not result.ok


def test_a_deleted_dataset_that_is_still_registered_is_not_ok() -> None:
    stale = next(iter(EXPECTED.gone))
    result = settled(replace(everything(), datasets={*EXPECTED.datasets, stale}))
    assert result.datasets_stale == 1
    assert not result.ok


def test_a_broken_record_with_another_reason_is_lost_and_wrong() -> None:
    reasons = {**everything().quarantined, "topic/0/0": "handler_error"}
    result = settled(replace(everything(), quarantined=reasons))
    assert (result.quarantined, result.quarantined_wrongly, result.lost) == (4, 1, 1)


def test_a_good_record_in_quarantine_is_not_ok() -> None:
    reasons = {**everything().quarantined, "topic/3/7": "handler_error"}
    result = settled(replace(everything(), quarantined=reasons))
    assert result.quarantined == 5
    assert not result.ok


def test_events_of_the_system_about_itself_change_nothing() -> None:
    own = ("/vault-stream/app", "own")
    observed = replace(everything(), honest={*EXPECTED.honest, own}, audited={*EXPECTED.audited, own})
    assert settled(observed) == settled(everything())


def test_json_has_the_stable_names() -> None:
    stable = {
        "events",
        "deliveries_expected",
        "deliveries_observed",
        "waiting_expected",
        "waiting_observed",
        "duplicates",
        "signatures_bad",
        "audit_expected",
        "audit_observed",
        "chain_ok",
        "violations_expected",
        "violations_observed",
        "datasets_registered",
        "quarantined",
        "lost",
        "ok",
    }
    assert stable <= settled(everything()).as_json().keys()


def test_broken_records_are_told_apart_by_where_the_broker_put_them() -> None:
    twin = BrokenRecord("topic", b"k", b"v", "invalid_data")
    result = settle(EXPECTED, {"t/0/1": twin, "t/0/2": twin}, replace(everything(), quarantined={"t/0/1": twin.reason}))
    assert (result.quarantined, result.lost) == (1, 1)
