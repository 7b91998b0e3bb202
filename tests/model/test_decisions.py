"""No stale allow: two workers, revocations, delays, and clocks that differ by as much as they may.

No answer that was asked for after a revocation took effect, one second after its acknowledgement, comes from a request
to the engine that began before it. And the machine finds those who break the rules that make it so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from app.integrations.policy import Decision, Evaluator, Invalidations
from tests.support.policy_world import ALL, SKEW_S, MakeEvaluator, MakeTimes, World
from tests.support.report import report

HALF_S = SKEW_S / 2
ALICE, BOB = (asked for asked in ALL if asked.action == "read")
WORKERS = st.sampled_from(["w0", "w1"])
WRONG_S = st.sampled_from([-HALF_S, 0.0, HALF_S])


class DecisionsMachine(RuleBasedStateMachine):
    """The world does what the rules say; after each the answers that were given are judged."""

    make_evaluator: ClassVar[MakeEvaluator] = Evaluator
    make_times: ClassVar[MakeTimes] = Invalidations

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @initialize(wrong_s=st.tuples(WRONG_S, WRONG_S, WRONG_S))
    def begin(self, wrong_s: tuple[float, float, float]) -> None:
        self.world.end()
        self.world = World(wrong_s, type(self).make_evaluator, type(self).make_times)
        self.world.run_for(0.5)

    @rule(worker=WORKERS, asked=st.sampled_from(ALL))
    def ask(self, worker: str, asked: Any) -> None:
        self.world.ask(worker, asked)

    @rule(asked=st.sampled_from(ALL))
    def ask_both(self, asked: Any) -> None:
        for worker in self.world.workers:
            self.world.ask(worker, asked)

    @rule(seconds=st.sampled_from([0.01, 0.1, 0.5, 0.95, 1.0, 1.1, 2.1, 5.0, 19.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.run_for(seconds)

    @rule(scope=st.sampled_from(["p:alice", "p:bob", "r:ds", "*"]))
    def revoke(self, scope: str) -> None:
        self.world.revoke(scope)

    @rule(seconds=st.sampled_from([0.01, 0.5, 1.5, 4.0]), down=st.booleans())
    def the_engine_takes(self, seconds: float, down: bool) -> None:
        self.world.pace.engine_s, self.world.pace.engine_down = seconds, down

    @rule(seconds=st.sampled_from([0.01, 0.5, 1.5]), down=st.booleans())
    def a_hop_takes(self, seconds: float, down: bool) -> None:
        self.world.pace.hop_s, self.world.pace.hops_down = seconds, down

    @rule(seconds=st.sampled_from([0.01, 0.5, 2.0]))
    def a_row_takes(self, seconds: float) -> None:
        self.world.pace.row_s = seconds

    @rule(worker=WORKERS, seconds=st.sampled_from([0.01, 0.3, 0.6, 3.0]))
    def the_log_takes(self, worker: str, seconds: float) -> None:
        self.world.pace.log_s[worker] = seconds

    @rule(principal=st.sampled_from(["alice", "bob"]), worker=WORKERS)
    def is_owned_by(self, principal: str, worker: str) -> None:
        self.world.owner[principal] = worker

    @invariant()
    def no_answer_is_stale(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        try:
            self.world.run_for(10.0)
            self.world.check()
        finally:
            self.world.end()


QUICKLY = settings(max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))
TestDecisions = DecisionsMachine.TestCase
TestDecisions.settings = QUICKLY


@pytest.mark.prove
def test_no_answer_is_stale_in_thousands_of_runs() -> None:
    run_state_machine_as_test(DecisionsMachine, settings=settings(QUICKLY, max_examples=3000, stateful_step_count=50))
    report("Decisions of two workers under revocations, delays and clocks that differ", {"runs": 3000, "stale": 0})


class WithoutSkew(Invalidations):
    """Believes that all clocks are right."""

    def counts(self, decision: Decision) -> bool:
        return decision.began_ms > self._latest_ms(decision.principal_id, decision.resource_id)


class AlwaysFresh(Invalidations):
    """Acts on hearsay: nobody knows how old what it knows is."""

    def fresh(self, now_s: float) -> bool:
        return True


class LooseFlights(Evaluator):
    """Everybody may take part in any call."""

    def _may_join(self, *_: Any) -> bool:
        return True


class OwnersWord(Evaluator):
    """Who waits for another's answer does not ask whether it still counts."""

    def _counts_now(self, decision: Decision) -> bool:
        return True


class Deletes(Invalidations):
    """Forgets an invalidation as soon as it was acted upon, as a cache does that deletes."""

    def settling(self, *_: Any) -> bool:
        return False

    def counts(self, decision: Decision) -> bool:
        counts = super().counts(decision)
        if not counts:
            self._scopes.clear()
        return counts


def clocks_differ(world: World) -> None:
    world.ask("w0", ALICE)
    world.run_for(0.5)
    world.revoke("p:alice")
    world.run_for(1.5)
    world.ask("w0", ALICE)


def the_log_stands_still(world: World) -> None:
    world.ask("w0", ALICE)
    world.run_for(3.0)
    world.pace.log_s["w0"] = 5.0
    world.run_for(0.3)
    world.revoke("r:ds")
    world.run_for(1.5)
    world.ask("w0", ALICE)


def the_engine_is_slow(world: World) -> None:
    world.pace.engine_s = 4.0
    world.ask("w0", ALICE)
    world.run_for(0.5)
    world.revoke("p:alice")
    world.run_for(1.5)
    world.ask("w0", ALICE)


def a_row_is_slow_and_the_log_too(world: World) -> None:
    world.ask("w0", ALICE)
    world.run_for(3.0)
    world.owner["alice"] = "w1"
    world.pace.row_s = 1.0
    world.pace.log_s["w1"] = 3.0
    world.run_for(0.2)
    world.revoke("p:alice")
    world.run_for(0.2)
    world.ask("w1", ALICE)
    world.run_for(0.85)
    world.ask("w1", ALICE)


def everything_is_revoked(world: World) -> None:
    for asked in (ALICE, BOB):
        world.ask("w0", asked)
    world.run_for(3.0)
    world.revoke("*")
    world.run_for(1.5)
    for asked in (ALICE, BOB):
        world.ask("w0", asked)


STORIES = {
    "without-skew": (clocks_differ, Evaluator, WithoutSkew),
    "on-hearsay": (the_log_stands_still, Evaluator, AlwaysFresh),
    "loose-flights": (the_engine_is_slow, LooseFlights, Invalidations),
    "the-owners-word": (a_row_is_slow_and_the_log_too, OwnersWord, Invalidations),
    "deletes": (everything_is_revoked, Evaluator, Deletes),
}


def play(story: Callable[[World], None], evaluator: Any, times: Any) -> None:
    world = World((HALF_S, HALF_S, -HALF_S), evaluator, times)
    try:
        world.run_for(0.5)
        story(world)
        world.run_for(10.0)
        assert len(world.given) >= 2
        world.check()
    finally:
        world.end()


@pytest.mark.parametrize("name", STORIES)
def test_each_story_ends_well_and_badly_for_who_breaks_the_rule_that_it_is_about(name: str) -> None:
    story, evaluator, times = STORIES[name]
    play(story, Evaluator, Invalidations)
    with pytest.raises(AssertionError, match="a stale decision"):
        play(story, evaluator, times)


@pytest.mark.prove
@pytest.mark.parametrize("name", STORIES)
def test_who_breaks_a_rule_is_found_without_a_story(name: str) -> None:
    _, evaluator, times = STORIES[name]

    class Broken(DecisionsMachine):
        make_evaluator = evaluator
        make_times = times

    found = settings(
        QUICKLY, max_examples=20_000, stateful_step_count=40, derandomize=True, database=None, phases=[Phase.generate]
    )
    with pytest.raises(AssertionError, match="a stale decision"):
        run_state_machine_as_test(Broken, settings=found)
