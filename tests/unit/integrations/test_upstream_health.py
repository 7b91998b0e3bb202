"""When others are told of an upstream: late, seldom, and the truth in the end."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.events import VaultEventType, check_type, decode_payload
from app.integrations.upstream_health import Change, HealthRules, UpstreamHealth, change_event

RULES = HealthRules()
BEGAN_MS = 1_700_000_000_000


@dataclass
class World:
    """One upstream, and a log that takes what is told while it is there.

    Attributes:
        log: When each change was told, in seconds since the beginning.
    """

    rules: HealthRules = RULES
    now_s: float = 0.0
    broker: bool = True
    log: list[tuple[float, Change]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.health = UpstreamHealth(self.rules)

    def call(self, problem: str | None = None) -> None:
        self.health.heard(problem, self.now_s, BEGAN_MS + round(self.now_s * 1000))

    def wait(self, seconds: float, problem: str | None = "", every_s: float = 1.0) -> None:
        """Look once a second; with calls in between unless the problem is the empty word."""
        end = self.now_s + seconds
        while self.now_s < end:
            self.now_s += every_s
            if problem != "":
                self.call(problem)
            self.look()

    def look(self) -> None:
        change = self.health.due(self.now_s)
        if change is not None and self.broker:
            self.health.told(self.now_s)
            self.log.append((self.now_s, change))

    @property
    def told(self) -> list[bool]:
        return [change.degraded for _, change in self.log]


@pytest.fixture
def world() -> World:
    return World()


def test_an_upstream_that_only_fails_is_degraded_after_half_a_minute_and_restored_half_a_minute_after_it_is_well(
    world: World,
) -> None:
    world.wait(10, None)
    world.wait(30, "no answer: connect")
    assert world.log == []
    world.wait(60, "answered 503")
    assert world.log == [(41, Change(True, BEGAN_MS + 11_000, 31, "answered 503"))]
    world.wait(29, None)
    assert len(world.log) == 1
    world.wait(60, None)
    assert world.log[1:] == [(131, Change(False, BEGAN_MS + 11_000, 31, "answered 503", 90.0))]


def test_one_failure_and_silence_after_it_is_nothing_to_tell(world: World) -> None:
    world.call("answered 503")
    world.wait(3600)
    world.call("answered 503")
    world.wait(3600)
    assert world.log == []
    world.call("answered 503")
    world.look()
    assert world.told == [True]


def test_one_success_and_silence_after_it_is_a_recovery(world: World) -> None:
    world.wait(40, "answered 503")
    world.call(None)
    world.wait(31)
    assert world.told == [True, False]


def test_a_failure_in_the_recovery_begins_it_anew_and_the_trouble_is_as_old_as_it_was(world: World) -> None:
    world.wait(40, "answered 503")
    world.wait(29, None)
    world.call("answered 500")
    world.wait(29, None)
    assert world.told == [True]
    world.wait(5, None)
    assert world.told == [True, False]
    assert world.log[1][1].since_ms == BEGAN_MS + 1_000


def test_a_success_among_many_failures_does_not_hide_the_trouble(world: World) -> None:
    for _ in range(4):
        world.wait(29, "answered 503")
        world.wait(1, None)
    assert world.told == [True]
    assert world.log[0][1].since_ms == BEGAN_MS + 1_000


def test_one_that_works_as_often_as_it_fails_is_not_in_trouble(world: World) -> None:
    for _ in range(200):
        world.wait(3, "answered 503")
        world.wait(3, None)
    assert world.log == []


def test_failures_that_were_over_before_they_were_told_are_not_told_once_it_works(world: World) -> None:
    world.wait(28, "answered 503", every_s=0.1)
    world.wait(600, None)
    world.call("answered 503")
    world.wait(600)
    assert world.log == []


def test_what_never_failed_is_never_told_of(world: World) -> None:
    world.wait(600, None)
    assert world.log == []


def test_what_could_not_be_told_is_told_later_and_then_what_came_after(world: World) -> None:
    world.broker = False
    world.wait(40, "answered 503")
    world.wait(40, None)
    assert world.log == []
    world.broker = True
    world.wait(2)
    assert world.told == [True, False]
    assert world.log[0][1].problem == "answered 503"


def test_whoever_takes_over_tells_again_of_trouble_that_lasts_and_not_of_what_is_over(world: World) -> None:
    other = World()
    for one in (world, other):
        one.wait(100, "answered 503")
    other.wait(60, None)
    for one in (world, other):
        one.health.took_over()
    world.wait(10, "answered 503")
    assert world.told == [True, True]
    assert world.log[1][1].since_ms == world.log[0][1].since_ms
    other.wait(100, None)
    assert other.told == [True, False]


def test_whoever_takes_over_in_a_recovery_tells_of_its_end(world: World) -> None:
    world.wait(40, "answered 503")
    world.wait(10, None)
    world.health.took_over()
    world.wait(40, None)
    assert world.told == [True, False]


def test_who_takes_over_and_sees_no_trouble_says_nothing(world: World) -> None:
    world.wait(10, None)
    world.health.took_over()
    world.wait(100, None)
    assert world.log == []


def test_one_that_flaps_faster_than_others_are_to_be_told_is_told_of_once_in_a_gap() -> None:
    world = World(HealthRules(degraded_after_s=1, degraded_after_calls=1, restored_after_s=1, gap_s=60))
    for _ in range(60):
        world.wait(5, "answered 503")
        world.wait(5, None)
    assert world.told == [True, False] * 10
    # It ends well, and that is what was told; should it end badly, that is told when the gap is over.
    world.wait(61, "answered 503")
    assert world.told[-1] is True


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["fails", "works", "silence", "takes over", "broker"]),
        st.sampled_from([0.5, 3.0, 12.0, 25.0, 45.0]),
        st.sampled_from([0.3, 1.0, 7.0]),
    ),
    min_size=10,
    max_size=40,
)
SOME_RULES = st.builds(
    HealthRules,
    degraded_after_s=st.sampled_from([0.0, 2.0, 10.0, 30.0]),
    degraded_after_calls=st.integers(1, 4),
    restored_after_s=st.sampled_from([0.0, 2.0, 10.0, 30.0]),
    gap_s=st.sampled_from([0.0, 20.0, 60.0, 120.0]),
)


def played(world: World, steps: Sequence[tuple[str, float, float]]) -> None:
    problems = {"fails": "answered 503", "works": None, "silence": ""}
    for what, seconds, every_s in steps:
        if what == "takes over":
            world.health.took_over()
        elif what == "broker":
            world.broker = not world.broker
        else:
            world.wait(seconds, problems[what], every_s)


@settings(max_examples=200)
@given(SOME_RULES, STEPS)
def test_a_flapping_upstream_does_not_flood(rules: HealthRules, steps: Sequence[tuple[str, float, float]]) -> None:
    world = World(rules)
    played(world, steps)
    degraded = [when for when, change in world.log if change.degraded]
    assert all(later - earlier >= rules.gap_s for earlier, later in pairwise(degraded))
    restored = [when for when, change in world.log if not change.degraded]
    assert len(restored) <= len(degraded)
    # Nothing is restored that was not degraded, and nothing twice.
    assert all(before.degraded for (_, before), (_, after) in pairwise(world.log) if not after.degraded)


@settings(max_examples=200)
@given(SOME_RULES, STEPS, st.booleans())
def test_what_was_told_last_is_the_truth_in_the_end(
    rules: HealthRules, steps: Sequence[tuple[str, float, float]], well: bool
) -> None:
    world = World(rules)
    played(world, steps)
    world.broker = True
    world.wait(
        2 * (rules.gap_s + rules.degraded_after_s + rules.restored_after_s) + 30, None if well else "answered 503"
    )
    assert world.health.degraded is not well
    assert (world.told[-1:] or [False]) == [not well]


@settings(max_examples=200)
@given(st.lists(st.booleans(), min_size=1, max_size=2000), st.floats(0.05, 10))
def test_whatever_it_does_there_is_at_most_one_pair_a_minute(calls: Sequence[bool], every_s: float) -> None:
    world = World()
    for well in calls:
        world.wait(every_s, None if well else "answered 503", every_s)
    minutes = world.now_s / 60
    assert sum(world.told) <= minutes + 1
    assert len(world.told) <= 2 * (minutes + 1)


@pytest.mark.parametrize(
    ("change", "data"),
    [
        (
            Change(True, BEGAN_MS, 4, "no answer: connect"),
            {
                "component": "governance",
                "status": "degraded",
                "message": "no answer: connect",
                "since": "2023-11-14T22:13:20.000Z",
                "details": {"worker": "w-1", "failed_calls": 4},
            },
        ),
        (
            Change(False, BEGAN_MS, 4, "no answer: connect", 61.5),
            {
                "component": "governance",
                "duration_s": 61.5,
                "message": "was: no answer: connect",
                "details": {"worker": "w-1", "failed_calls": 4},
            },
        ),
    ],
)
def test_the_event_is_that_of_the_contract_and_the_same_each_time(change: Change, data: dict) -> None:
    event = change_event(change, "governance", "/vault-stream/app", "w-1", BEGAN_MS + 61_500)
    check_type(event)
    decode_payload(event)
    kind = VaultEventType.HEALTH_DEGRADED if change.degraded else VaultEventType.HEALTH_RESTORED
    assert (event.type, event.source, event.subject, event.data) == (kind, "/vault-stream/app", "governance", data)
    word = "degraded" if change.degraded else "restored"
    assert event.id == f"governance-{word}-w-1-{BEGAN_MS}"
    assert change_event(change, "governance", "/vault-stream/app", "w-1", BEGAN_MS + 61_500).posted == event.posted
