"""Which decisions count, by the times of invalidations."""

from __future__ import annotations

import pytest

from app.integrations.policy import Invalidations, scope_of
from tests.support.memory_unit import START_MS
from tests.support.policy import decision, question

SKEW_S = 2.0


def times(scope: str | None = None, at_ms: int = START_MS) -> Invalidations:
    found = Invalidations(SKEW_S, 300)
    if scope is not None:
        found.add(scope, at_ms, 10.0)
    return found


def test_without_any_all_count() -> None:
    assert times().counts(decision())
    assert not times().settling(question(), START_MS)


@pytest.mark.parametrize("scope", ["p:alice", "r:ds-1", "*"])
def test_a_decision_counts_that_began_later_by_more_than_clocks_may_differ(scope: str) -> None:
    found = times(scope)
    assert not found.counts(decision(began_ms=START_MS - 60_000))
    assert not found.counts(decision(began_ms=START_MS + 2000))
    assert found.counts(decision(began_ms=START_MS + 2001))
    assert found.settling(question(), START_MS + 2000)
    assert not found.settling(question(), START_MS + 2001)


@pytest.mark.parametrize("scope", ["p:ds-1", "r:alice", "p:alic", "p:alice2", "r:ds-10"])
def test_those_of_others_do_not_matter(scope: str) -> None:
    assert times(scope).counts(decision())


def test_the_latest_time_of_a_scope_counts_in_whatever_order_they_come() -> None:
    found = times("p:alice", START_MS)
    found.add("p:alice", START_MS - 60_000, 11.0)
    assert not found.counts(decision(began_ms=START_MS + 1))


@pytest.mark.parametrize(
    ("key", "scope"),
    [(b"p:alice", "p:alice"), (b"r:ds-1", "r:ds-1"), (b"*", "*"), (b"p:", "p:")]
    + [(key, "*") for key in (None, b"", b"x:alice", b"p:\xff", b"alice")],
)
def test_a_key_that_cannot_be_read_is_everything(key: bytes | None, scope: str) -> None:
    assert scope_of(key) == scope


def test_the_end_of_the_log_is_known_for_a_second() -> None:
    found = times()
    assert not found.fresh(0.0)
    found.confirmed(5.0)
    found.confirmed(4.0)
    assert found.fresh(6.0)
    assert not found.fresh(6.01)


def test_one_that_was_seen_is_seen_by_those_whom_it_concerns() -> None:
    found = times("p:alice")
    assert found.seen_since(question(), 10.0)
    assert not found.seen_since(question(), 10.1)
    assert not found.seen_since(question("bob"), 0.0)


@pytest.mark.parametrize(("passed_ms", "known"), [(663_000, True), (665_000, False)])
def test_old_ones_are_forgotten_once_there_are_many_and_no_other(passed_ms: int, known: bool) -> None:
    found = Invalidations(SKEW_S, 300)
    for number in range(2000):
        found.add(f"p:{number}", START_MS, 1.0)
    found.add("p:alice", START_MS + 600_000, 2.0)
    found.forget(START_MS + passed_ms)
    assert found.counts(decision(question("0"), began_ms=START_MS)) != known
    assert not found.counts(decision(began_ms=START_MS + 600_000))
