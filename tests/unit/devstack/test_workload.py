from collections import Counter

import pytest

from app.devstack.workload import MIN_EVENTS, busiest_partition_bytes, make_workload
from app.events import InvalidEvent, VaultEventType, check_type, decode_payload, decode_record
from app.publishing import checked

START_MS = 1_767_225_600_000


def test_the_same_seed_gives_the_same_workload_and_another_seed_another() -> None:
    first, again, other = (make_workload(200, seed=seed, start_ms=START_MS) for seed in (7, 7, 8))
    assert first == again
    assert first != other


@pytest.mark.parametrize("count", [MIN_EVENTS, 24, 50, 2000])
def test_every_type_occurs_and_the_count_is_exact(count: int) -> None:
    events = make_workload(count, seed=1, start_ms=START_MS).events
    assert len(events) == count
    assert {event.type for event in events} == set(VaultEventType)
    assert len({(event.source, event.id) for event in events}) == count


def test_too_few_events_are_refused_with_the_least_number() -> None:
    with pytest.raises(ValueError, match="at least 23"):
        make_workload(MIN_EVENTS - 1, seed=1, start_ms=START_MS)


@pytest.mark.parametrize("seed", range(5))
def test_every_event_is_valid(seed: int) -> None:
    for event in make_workload(300, seed=seed, start_ms=START_MS).events:
        checked(event)


def test_a_dataset_is_created_before_anything_speaks_of_it_and_deleted_last() -> None:
    events = make_workload(500, seed=3, start_ms=START_MS).events
    created: set[str] = set()
    deleted: set[str] = set()
    for event in events:
        dataset = event.data.get("dataset_id")
        if event.type == VaultEventType.DATASET_CREATED:
            created.add(dataset)
        elif dataset is not None:
            assert dataset in created
            assert dataset not in deleted
        if event.type == VaultEventType.DATASET_DELETED:
            deleted.add(dataset)
    assert deleted < created
    assert [event.time for event in events] == sorted(event.time for event in events)


def decode(value: bytes) -> None:
    event = decode_record(value, [])
    check_type(event)
    decode_payload(event)


@pytest.mark.parametrize("seed", range(5))
def test_each_broken_record_is_refused_for_the_reason_it_carries(seed: int) -> None:
    broken = make_workload(50, seed=seed, start_ms=START_MS).broken
    for record in broken:
        with pytest.raises(InvalidEvent) as refused:
            decode(record.value)
        assert refused.value.reason == record.reason
    assert len({record.value for record in broken}) == 5
    assert Counter(record.reason for record in broken) == {"invalid_envelope": 3, "unknown_type": 1, "invalid_data": 1}


def test_the_size_estimate_grows_with_the_events_and_lets_the_default_pass() -> None:
    small, default, large = (
        busiest_partition_bytes(make_workload(count, seed=1, start_ms=START_MS)) for count in (1000, 2000, 3000)
    )
    assert small < default < 4_000_000 < large
