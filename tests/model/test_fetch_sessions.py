"""A fetch session against a broker as KIP-227 describes it: whatever is lost, it never reads from another offset."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from app.engine.fetch_sessions import FetchSession

NOT_FOUND, INVALID_EPOCH = 70, 71
MOST_BYTES = 1 << 20
PARTITIONS = [(topic, partition) for topic in ("a", "b") for partition in range(3)]
WANTED = st.dictionaries(st.sampled_from(PARTITIONS), st.integers(0, 4))


class Broker:
    """Its cache of sessions: id to next epoch and offsets."""

    def __init__(self) -> None:
        self.sessions: dict[int, tuple[int, dict[tuple[str, int], int]]] = {}
        self.made = 0
        self.room = True

    def fetch(self, session_id: int, epoch: int, topics: Any, forgotten: Any) -> tuple[Any, dict[tuple[str, int], int]]:
        named = {(t, p): offset for t, parts in topics for p, _, offset, _, _ in parts}
        if epoch == 0:
            self.sessions.pop(session_id, None)
            if not self.room:
                return answer(0, 0), named
            self.made += 1
            self.sessions[self.made] = (1, dict(named))
            return answer(self.made, 0), named
        if session_id not in self.sessions:
            return answer(0, NOT_FOUND), {}
        expected, offsets = self.sessions[session_id]
        if epoch != expected:
            return answer(session_id, INVALID_EPOCH), {}
        offsets |= named
        for topic, partitions in forgotten:
            for partition in partitions:
                offsets.pop((topic, partition), None)
        self.sessions[session_id] = (expected + 1, offsets)
        return answer(session_id, 0), offsets


def answer(session_id: int, error_code: int) -> SimpleNamespace:
    return SimpleNamespace(API_VERSION=11, session_id=session_id, error_code=error_code)


class Sessions(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.broker = Broker()
        self.session = FetchSession()
        self.refused_in_a_row = 0

    @rule(wanted=WANTED)
    def fetch(self, wanted: dict[tuple[str, int], int]) -> None:
        response, read = self.broker.fetch(*self.session.ask(wanted, MOST_BYTES))
        if self.session.answered(response):
            assert read == wanted == self.session.offsets
            self.refused_in_a_row = 0
        else:
            self.refused_in_a_row += 1

    @rule(wanted=WANTED)
    def the_answer_is_lost(self, wanted: dict[tuple[str, int], int]) -> None:
        self.broker.fetch(*self.session.ask(wanted, MOST_BYTES))
        self.session.lost()

    @rule(wanted=WANTED)
    def the_request_is_lost(self, wanted: dict[tuple[str, int], int]) -> None:
        self.session.ask(wanted, MOST_BYTES)
        self.session.lost()

    @rule()
    def the_broker_starts_again(self) -> None:
        self.broker.sessions = {}

    @rule(room=st.booleans())
    def the_cache_of_the_broker_fills_or_empties(self, room: bool) -> None:
        self.broker.room = room

    @rule()
    def the_assignment_changes(self) -> None:
        self.session.lost()

    @invariant()
    def one_refusal_is_enough(self) -> None:
        assert self.refused_in_a_row <= 1


TestSessions = Sessions.TestCase


def test_an_unchanged_partition_is_not_named_again() -> None:
    session = FetchSession()
    session.ask({("a", 0): 5, ("a", 1): 7}, MOST_BYTES)
    session.answered(answer(9, 0))

    assert session.ask({("a", 0): 6, ("a", 1): 7}, MOST_BYTES) == (9, 1, [("a", [(0, -1, 6, -1, MOST_BYTES)])], [])


def test_a_partition_that_is_not_wanted_is_forgotten_and_named_when_it_is_wanted_again() -> None:
    session = FetchSession()
    session.ask({("a", 0): 5, ("a", 1): 7}, MOST_BYTES)
    session.answered(answer(9, 0))

    assert session.ask({("a", 0): 5}, MOST_BYTES)[2:] == ([], [("a", [1])])
    session.answered(answer(9, 0))
    assert session.ask({("a", 0): 5, ("a", 1): 7}, MOST_BYTES)[2:] == ([("a", [(1, -1, 7, -1, MOST_BYTES)])], [])


def test_epochs_begin_again_at_one_after_the_last() -> None:
    session = FetchSession()
    session.ask({}, MOST_BYTES)
    session.answered(answer(9, 0))
    session._epoch = 2**31 - 1
    session.ask({}, MOST_BYTES)
    session.answered(answer(9, 0))

    assert session.ask({}, MOST_BYTES)[:2] == (9, 1)


def test_partitions_are_named_in_another_order_each_time() -> None:
    wanted = {("a", partition): 0 for partition in range(50)}
    firsts = set()
    for _ in range(20):
        ((_, named),) = FetchSession().ask(wanted, MOST_BYTES)[2]
        assert {partition for partition, *_ in named} == set(range(50))
        firsts.add(named[0][0])

    assert len(firsts) > 1
