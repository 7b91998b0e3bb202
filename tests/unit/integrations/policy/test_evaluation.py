"""From a question to its decision: what is kept, what is shared, and when the engine is asked all the same."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from app.integrations.policy import (
    Decision,
    Evaluator,
    Lifetimes,
    NotOwner,
    OwnersAnswer,
    Place,
    PolicyUnavailable,
)
from app.integrations.policy.front import Front
from tests.support.memory_unit import START_MS, FakeClock
from tests.support.policy import ALLOW, DENY, Engine, decision, question
from tests.support.policy_desk import SKEW_S, Desk, Shares, quiet


class TestKept:
    async def test_a_decision_is_asked_for_once(self) -> None:
        desk = Desk()
        first, second = await desk.ask(), await desk.ask()
        assert (first.source, second.source, desk.calls) == ("engine", "cache", 1)
        assert second.decision.verdict == ALLOW

    async def test_another_context_is_another_question(self) -> None:
        desk = Desk()
        await desk.ask(question(purpose="audit"))
        await desk.ask(question(purpose="training"))
        assert desk.calls == 2

    @pytest.mark.parametrize(("verdict", "seconds"), [(ALLOW, 300), (DENY, 30)])
    async def test_an_allow_and_a_deny_have_their_own_times(self, verdict: Any, seconds: float) -> None:
        desk = Desk()
        desk.engine.judge = lambda _: verdict
        await desk.ask()
        desk.pass_s(seconds - 0.1)
        assert (await desk.ask()).source == "cache"
        desk.pass_s(0.1)
        assert (await desk.ask()).source == "engine"

    @pytest.mark.parametrize("scope", ["p:alice", "r:ds-1", "*"])
    async def test_an_invalidation_ends_it(self, scope: str) -> None:
        desk = Desk()
        await desk.ask()
        desk.pass_s(60)
        desk.invalidate(scope)
        desk.engine.judge = lambda _: DENY
        assert not (await desk.ask()).decision.verdict.allowed

    async def test_what_began_by_a_clock_that_was_ahead_ends_when_that_is_put_right(self) -> None:
        desk = Desk()
        desk.clock.advance_wall(3600)
        assert (await desk.ask()).source == "engine"
        desk.clock.advance_wall(-3600)
        desk.pass_s(60)
        desk.invalidate("p:alice")
        desk.engine.judge = lambda _: DENY
        desk.pass_s(5)
        assert not (await desk.ask()).decision.verdict.allowed
        assert (await desk.ask()).source == "cache"

    async def test_a_clock_that_differs_by_no_more_than_it_may_ends_nothing(self) -> None:
        desk = Desk()
        desk.clock.advance_wall(SKEW_S)
        await desk.ask()
        desk.clock.advance_wall(-SKEW_S)
        assert (await desk.ask()).source == "cache"

    async def test_just_after_an_invalidation_each_is_asked_anew_and_not_kept(self) -> None:
        desk = Desk()
        desk.invalidate("p:alice")
        desk.pass_s(2.0)
        for _ in range(3):
            answered = await desk.ask()
            assert (answered.source, answered.decision.expires_ms) == ("engine", None)
        desk.pass_s(0.001)
        assert [(await desk.ask()).source for _ in range(2)] == ["engine", "cache"]

    async def test_while_the_end_of_the_log_is_not_known_the_engine_is_asked_and_without_it_there_is_none(self) -> None:
        desk = Desk()
        await desk.ask()
        desk.reads_on = False
        desk.pass_s(1.1)
        assert (await desk.ask()).source == "engine"
        desk.engine.down = True
        desk.pass_s(1.1)
        with pytest.raises(PolicyUnavailable):
            await desk.ask()
        desk.reads_on = True
        assert (await desk.ask()).source == "cache"

    async def test_an_error_is_not_kept_and_is_no_allow(self) -> None:
        desk = Desk()
        desk.engine.down = True
        with pytest.raises(PolicyUnavailable, match="connect"):
            await desk.ask()
        assert desk.log.failed_ == ["no answer: connect"]
        desk.engine.down = False
        assert (await desk.ask()).source == "engine"

    async def test_what_cannot_be_written_down_is_not_given(self) -> None:
        desk = Desk()
        desk.log.full = True
        with pytest.raises(PolicyUnavailable, match="written down"):
            await desk.ask()

    async def test_every_answer_is_written_down_with_where_it_came_from(self) -> None:
        desk = Desk()
        ids = [(await desk.ask()).decision_id for _ in range(3)]
        assert len(set(ids)) == 3
        assert [source for source, _ in desk.log.made_] == ["engine", "cache", "cache"]

    async def test_without_times_nothing_is_kept(self) -> None:
        engine = Engine()
        evaluator = Evaluator(engine, Lifetimes(), FakeClock())
        for _ in range(3):
            assert (await evaluator.evaluate(question())).source == "engine"
        assert len(engine.asked) == 3


class TestStampede:
    async def test_a_thousand_who_ask_at_once_are_one_call(self) -> None:
        desk = Desk()
        desk.engine.gate.clear()
        asking = [asyncio.create_task(desk.ask()) for _ in range(1000)]
        await quiet()
        desk.engine.gate.set()
        answers = await asyncio.gather(*asking)
        assert desk.calls == 1
        assert {answered.decision.verdict.allowed for answered in answers} == {True}
        assert len({answered.decision_id for answered in answers}) == 1000

    async def test_when_it_fails_all_of_them_are_told_so(self) -> None:
        desk = Desk()
        desk.engine.gate.clear()
        desk.engine.down = True
        asking = [asyncio.create_task(desk.ask()) for _ in range(10)]
        await quiet()
        desk.engine.gate.set()
        found = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(error) for error in found] == [PolicyUnavailable] * 10
        assert desk.calls == 1

    async def test_who_asked_first_may_go(self) -> None:
        desk = Desk()
        desk.engine.gate.clear()
        first = asyncio.create_task(desk.ask())
        await quiet()
        second = asyncio.create_task(desk.ask())
        await quiet()
        first.cancel()
        await quiet()
        desk.engine.gate.set()
        assert (await second).decision.verdict.allowed
        assert desk.calls == 1

    async def test_who_comes_after_an_invalidation_was_read_takes_no_part(self) -> None:
        desk = Desk()
        desk.engine.gate.clear()
        before = asyncio.create_task(desk.ask())
        await quiet()
        desk.pass_s(0.1)
        desk.invalidate("p:alice")
        desk.pass_s(0.01)
        after = [asyncio.create_task(desk.ask()) for _ in range(10)]
        await quiet()
        assert desk.calls == 2
        desk.engine.gate.set()
        await asyncio.gather(before, *after)

    async def test_who_comes_a_second_later_without_knowing_the_end_of_the_log_takes_no_part(self) -> None:
        desk = Desk()
        desk.reads_on = False
        desk.engine.gate.clear()
        asking = [asyncio.create_task(desk.ask())]
        await quiet()
        for seconds in (1.0, 0.1):
            desk.pass_s(seconds)
            asking.append(asyncio.create_task(desk.ask()))
            await quiet()
        assert desk.calls == 2
        desk.engine.gate.set()
        await asyncio.gather(*asking)

    async def test_what_a_row_gave_to_the_first_counts_for_the_others_only_if_it_still_counts(self) -> None:
        shared = Shares()
        desk = Desk(shared)
        shared.rows[question().key] = decision(began_ms=START_MS - 10_000)
        shared.gate.clear()
        first = asyncio.create_task(desk.ask())
        await quiet()
        # It was in the log before anybody asked, and is read only now.
        desk.pass_s(0.9)
        second = asyncio.create_task(desk.ask())
        await quiet()
        desk.times.add("p:alice", START_MS - 100, desk.clock.monotonic_s())
        desk.engine.judge = lambda _: DENY
        shared.gate.set()
        answers = await asyncio.gather(first, second)
        assert [answered.decision.verdict.allowed for answered in answers] == [False, False]


class TestAtTheOwner:
    @pytest.fixture(params=[False, True])
    def hopped(self, request: pytest.FixtureRequest) -> bool:
        return bool(request.param)

    async def test_a_row_is_an_answer(self, hopped: bool) -> None:
        desk = Desk(Shares())
        assert desk.shared is not None
        desk.shared.rows[question().key] = decision(began_ms=START_MS - 10_000)
        assert (await desk.ask(hopped=hopped)).source == "cache"
        assert (await desk.ask(hopped=hopped)).source == "cache"
        assert desk.calls == 0

    @pytest.mark.parametrize(
        "row",
        [
            decision(began_ms=START_MS - 300_000),
            decision(began_ms=START_MS - 298_500),
            decision(verdict=DENY, began_ms=START_MS - 29_000),
            decision(began_ms=START_MS + 2001),
            msgspec.structs.replace(decision(began_ms=START_MS - 10_000), expires_ms=None),
            msgspec.structs.replace(decision(began_ms=START_MS - 300_000), expires_ms=START_MS + 300_000),
        ],
        ids=["expired", "nearly-expired", "a-deny", "from-the-future", "not-to-be-kept", "with-a-longer-life"],
    )
    async def test_one_that_may_be_too_old_by_another_clock_is_none(self, row: Decision) -> None:
        desk = Desk(Shares())
        assert desk.shared is not None
        desk.shared.rows[question().key] = row
        assert (await desk.ask()).source == "engine"

    async def test_a_row_is_not_used_for_longer_than_it_lives(self) -> None:
        desk = Desk(Shares())
        assert desk.shared is not None
        desk.shared.rows[question().key] = decision(began_ms=START_MS - 290_000)
        assert (await desk.ask()).source == "cache"
        desk.shared.rows.clear()
        desk.pass_s(7.9)
        assert (await desk.ask()).source == "cache"
        desk.pass_s(0.1)
        assert (await desk.ask()).source == "engine"

    async def test_what_the_engine_says_is_shared(self, hopped: bool) -> None:
        desk = Desk(Shares())
        answered = await desk.ask(hopped=hopped)
        assert answered.decision.expires_ms == START_MS + 300_000

    async def test_what_was_invalidated_meanwhile_is_not(self) -> None:
        desk = Desk(Shares())
        desk.engine.gate.clear()
        asking = asyncio.create_task(desk.ask())
        await quiet()
        desk.pass_s(0.5)
        desk.invalidate("r:ds-1")
        desk.engine.gate.set()
        assert (await asking).decision.expires_ms is None


class TestElsewhere:
    def owners(self, began_ms: int = START_MS - 10_000, source: str = "cache") -> OwnersAnswer:
        return OwnersAnswer(decision(began_ms=began_ms), "owners-id", source)

    async def test_the_owner_answers_once_and_its_answer_is_kept(self) -> None:
        shared = Shares(Place.ELSEWHERE)
        desk, shared.owner = Desk(shared), self.owners()
        first, second = await desk.ask(), await desk.ask()
        assert (first.decision_id, first.source) == ("owners-id", "cache")
        assert (second.decision_id != "owners-id", second.source) == (True, "cache")
        assert (shared.owner_asked, desk.calls, len(desk.log.made_)) == (1, 0, 1)

    async def test_those_who_waited_with_him_are_written_down_one_by_one(self) -> None:
        shared = Shares(Place.ELSEWHERE)
        desk, shared.owner = Desk(shared), self.owners(source="engine")
        shared.gate.clear()
        asking = [asyncio.create_task(desk.ask()) for _ in range(3)]
        await quiet()
        shared.gate.set()
        answers = await asyncio.gather(*asking)
        ids = [answered.decision_id for answered in answers]
        assert (len(set(ids)), ids.count("owners-id"), len(desk.log.made_)) == (3, 1, 2)
        assert shared.owner_asked == 1

    async def test_an_owner_that_cannot_be_reached_has_the_engine_asked_here_and_nothing_shared(self) -> None:
        desk = Desk(Shares(Place.ELSEWHERE))
        answered = await desk.ask()
        assert (answered.source, answered.decision.expires_ms) == ("engine", None)
        assert (await desk.ask()).source == "cache"

    async def test_an_owner_without_an_answer_of_the_engine_is_none_and_is_written_down_there(self) -> None:
        shared = Shares(Place.ELSEWHERE)
        desk, shared.owner_unavailable = Desk(shared), True
        with pytest.raises(PolicyUnavailable):
            await desk.ask()
        assert (desk.calls, desk.log.failed_) == (0, [])

    async def test_what_an_invalidation_ended_that_the_owner_has_not_read_is_not_used(self) -> None:
        shared = Shares(Place.ELSEWHERE)
        desk, shared.owner = Desk(shared), self.owners()
        shared.gate.clear()
        asking = asyncio.create_task(desk.ask())
        await quiet()
        desk.pass_s(0.1)
        desk.invalidate("p:alice")
        desk.engine.judge = lambda _: DENY
        shared.gate.set()
        answered = await asking
        assert (answered.source, answered.decision.verdict.allowed) == ("engine", False)

    async def test_the_owner_is_not_asked_while_the_end_of_the_log_is_not_known(self) -> None:
        shared = Shares(Place.ELSEWHERE)
        desk, shared.owner = Desk(shared), self.owners()
        desk.reads_on = False
        desk.pass_s(2)
        assert (await desk.ask()).source == "engine"
        assert shared.owner_asked == 0

    async def test_what_was_passed_on_is_not_passed_on_again(self) -> None:
        for place in (Place.ELSEWHERE, Place.NOWHERE):
            desk = Desk(Shares(place))
            with pytest.raises(NotOwner):
                await desk.ask(hopped=True)


class TestFront:
    def test_forgets_the_least_recently_used(self) -> None:
        front = Front(2)
        for name in ("a", "b"):
            front.put(decision(question(name)), 10)
        assert front.get(question("a").key, 0)
        front.put(decision(question("c")), 10)
        assert [front.get(question(name).key, 0) is not None for name in "abc"] == [True, False, True]

    def test_does_not_put_an_older_decision_over_a_newer_one(self) -> None:
        front = Front()
        newer = decision(verdict=DENY, began_ms=START_MS + 1)
        front.put(newer, 10)
        front.put(decision(), 20)
        assert front.get(question().key, 0) == newer

    def test_leaves_a_large_one_to_the_table(self) -> None:
        front = Front()
        front.put(decision(verdict=msgspec.structs.replace(ALLOW, reason="x" * 20_000)), 10)
        assert front.get(question().key, 0) is None
