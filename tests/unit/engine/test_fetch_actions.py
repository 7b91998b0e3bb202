"""What is fetched next: the same as aiokafka would fetch, found sooner."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import Fetcher
from hypothesis import given
from hypothesis import strategies as st

from app.engine.fetch_pace import LONGEST_S, FetchPace
from app.engine.fetch_sessions import SessionFetcher

PARTITIONS = [TopicPartition(topic, number) for topic in ("a", "b", "c") for number in range(4)]
TIMEOUT_S = 1.0
LOOK_AGAIN_S = 0.5

states = st.builds(
    SimpleNamespace,
    leader=st.sampled_from([1, 1, 1, 2, 3]),
    position=st.integers(0, 9),
    paused=st.just(False),
)
odd_states = st.builds(
    SimpleNamespace,
    leader=st.sampled_from([None, -1, 1, 2]),
    position=st.sampled_from([None, 5]),
    paused=st.booleans(),
)
mixed_states = states | odd_states
worlds = st.fixed_dictionaries(dict.fromkeys(PARTITIONS, states)) | st.fixed_dictionaries(
    dict.fromkeys(PARTITIONS, mixed_states)
)
# Of each that is here and was not taken: how long its broker still waits for it.
held_sets = st.dictionaries(st.sampled_from(PARTITIONS), st.sampled_from([0, 0.03, 0.1]), max_size=4)
in_flight_sets = st.sets(st.sampled_from([1, 2, 3]))


class Held:
    def __init__(self, backoff_s: float) -> None:
        self.backoff_s = backoff_s

    def calculate_backoff(self) -> float:
        return self.backoff_s


def fetcher_of(world: dict[TopicPartition, Any], held: dict[TopicPartition, float], in_flight: set[int]) -> Any:
    fetcher = Fetcher.__new__(Fetcher)
    cluster = SimpleNamespace(leader_for_partition=lambda tp: world[tp].leader)
    vars(fetcher).update(
        _client=SimpleNamespace(cluster=cluster),
        _records={tp: Held(backoff_s) for tp, backoff_s in held.items()},
        _in_flight=in_flight,
        _preferred_read_replica={},
        _fetcher_timeout=TIMEOUT_S,
        _fetch_max_wait_ms=100,
        _fetch_min_bytes=1,
        _fetch_max_bytes=1 << 20,
        _max_partition_fetch_bytes=1 << 20,
        _isolation_level="read_committed",
        _client_rack=None,
        _closed=True,
    )
    return fetcher


def assignment_of(world: dict[TopicPartition, Any]) -> Any:
    for state in world.values():
        state.has_valid_position = state.position is not None
        state.resume_fut = None
    return SimpleNamespace(tps=frozenset(world), state_value=world.__getitem__)


def asked(fetches: Any) -> dict[int, dict[tuple[str, int], int]]:
    return {
        node: {(topic, partition): at for topic, parts in request.topics for partition, at, _ in parts}
        for node, request in fetches
    }


@given(world=worlds, steps=st.lists(st.tuples(held_sets, in_flight_sets), min_size=1, max_size=4))
def test_the_same_is_fetched_from_the_same_brokers(world: Any, steps: list[tuple[Any, set[int]]]) -> None:
    assignment = assignment_of(world)
    ours = fetcher_of(world, {}, set())
    SessionFetcher.adopt(ours, FetchPace())
    for held, in_flight in steps:
        theirs = fetcher_of(world, held, in_flight)
        vars(ours).update(_records=theirs._records, _in_flight=in_flight)

        fetches, resets, timeout_s, invalid_metadata, _ = ours._get_actions_per_node(assignment)
        their_fetches, their_resets, their_timeout_s, theirs_invalid, _ = theirs._get_actions_per_node(assignment)

        assert asked(fetches) == asked(their_fetches)
        assert timeout_s == their_timeout_s
        if not in_flight and not any(held.values()):
            # While a broker is busy, what else is to be done may wait for it.
            assert {node: set(tps) for node, tps in resets.items()} == {n: set(t) for n, t in their_resets.items()}
            assert invalid_metadata == theirs_invalid


@given(world=st.fixed_dictionaries(dict.fromkeys(PARTITIONS, states)))
def test_nothing_is_fetched_before_its_time_and_then_all_of_it(world: Any) -> None:
    pace = FetchPace()
    for second in range(10):
        pace.note(float(second), float(second))
    assignment = assignment_of(world)
    fetcher = fetcher_of(world, {}, set())
    SessionFetcher.adopt(fetcher, pace)
    first, *_ = fetcher._get_actions_per_node(assignment)
    assert {tp for tps in asked(first).values() for tp in tps} == set(PARTITIONS)

    fetches, resets, wait_s, _, _ = fetcher._get_actions_per_node(assignment)
    assert (fetches, resets) == ([], {})
    assert 0 < wait_s <= LONGEST_S

    pace.more()
    again, *_ = fetcher._get_actions_per_node(assignment)
    assert asked(again) == asked(first)


def test_a_new_leader_is_asked_soon_though_the_old_one_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    world = {tp: SimpleNamespace(leader=1, position=5, paused=False) for tp in PARTITIONS}
    assignment = assignment_of(world)
    fetcher = fetcher_of(world, {}, set())
    SessionFetcher.adopt(fetcher, FetchPace())
    first, *_ = fetcher._get_actions_per_node(assignment)
    assert asked(first).keys() == {1}
    fetcher._in_flight = {1}

    for state in world.values():
        state.leader = 2
    now_s[0] += LOOK_AGAIN_S
    fetches, *_ = fetcher._get_actions_per_node(assignment)

    assert asked(fetches) == {2: dict.fromkeys(PARTITIONS, 5)}
