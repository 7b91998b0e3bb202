"""From a question to its decision (architecture 7).

What is kept in memory, else what the owner of the principal keeps in its table, else the engine, which is asked once
for all who ask the same at the same time. Three rules make sure that nobody is given an allow that was taken back more
than a second before he asked:

- A kept decision is used only while the log of invalidations is known to have been read to an end not older than a
  second, and only if it began after all that concern it, by more than two clocks may differ.
- Who comes while the engine is being asked takes part in its answer only if no invalidation can have taken effect
  between the begin of that request and his own; both are times of one clock.
- What another worker answered, or a table had, and others waited for, they use by the first rule.

Where a rule does not hold, the engine is asked. Where the engine does not answer, there is no decision.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from app.integrations.policy.errors import NotOwner, NotRecorded, PolicyUnavailable
from app.integrations.policy.front import Front
from app.integrations.policy.invalidations import FRESH_S
from app.observability import metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.integrations.policy.decisions import Decision, Lifetimes
    from app.integrations.policy.invalidations import Invalidations
    from app.integrations.policy.questions import Question
    from app.integrations.policy.verdicts import Verdict

__all__ = ["Answered", "Asks", "Clocks", "Evaluator", "OwnersAnswer", "Place", "Records", "Shared"]

CACHE: Final = "cache"
ENGINE: Final = "engine"


class Clocks(Protocol):
    """The clocks of a process."""

    def now_ms(self) -> int:
        """Wall clock, milliseconds since 1970."""

    def monotonic_s(self) -> float:
        """Never goes back; seconds."""


class Asks(Protocol):
    """The engine."""

    async def verdict(self, question: Question) -> Verdict:
        """What it says.

        Raises:
            PolicyUnavailable: Nothing that could be used.
        """


class Place(Enum):
    """Who keeps the decisions about a principal."""

    HERE = auto()
    ELSEWHERE = auto()
    NOWHERE = auto()


@dataclass(frozen=True, slots=True)
class OwnersAnswer:
    """What the owner of a principal answered.

    Attributes:
        decision_id: Under which it is in the log already.
        source: `cache` or `engine`, seen from the owner.
    """

    decision: Decision
    decision_id: str
    source: str


class Shared(Protocol):
    """The decisions that workers keep for each other."""

    def place(self, question: Question) -> Place:
        """Where those about its principal are."""

    async def row(self, question: Question) -> Decision | None:
        """What the table of this worker has; None: nothing, or it is being taken over."""

    async def ask_owner(self, question: Question, caller: Any) -> OwnersAnswer | None:
        """What the owner answers, in one hop; None: it cannot be reached.

        Raises:
            PolicyUnavailable: It got nothing from the engine.
        """


class Records(Protocol):
    """The log of decisions."""

    async def made(self, decision: Decision, source: str) -> str:
        """Write down that somebody is given this decision.

        Returns:
            The id of the record.

        Raises:
            NotRecorded: It cannot be written down.
        """

    async def failed(self, question: Question, why: str, began_ms: int) -> None:
        """Write down that somebody is given none.

        Raises:
            NotRecorded: It cannot be written down.
        """


@dataclass(frozen=True, slots=True)
class Answered:
    """What somebody is given.

    Attributes:
        decision_id: In the log.
        source: `cache` or `engine`.
    """

    decision: Decision
    decision_id: str
    source: str


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a flight brought.

    Attributes:
        fresh: It asked the engine itself, after it began.
        decision_id: Of the owner's record.
    """

    decision: Decision
    source: str
    fresh: bool
    decision_id: str | None = None


@dataclass(eq=False, slots=True)
class _Flight:
    began_s: float
    task: asyncio.Task[_Outcome]


class Evaluator:
    """Answers questions for one process.

    Args:
        times: What is known of invalidations; None: nothing is kept, and no two share an answer for longer than a
            second.
        shared: None: this process keeps its decisions for itself.
        records: None: nobody keeps a log.
    """

    def __init__(
        self,
        engine: Asks,
        lifetimes: Lifetimes,
        clocks: Clocks,
        *,
        times: Invalidations | None = None,
        shared: Shared | None = None,
        records: Records | None = None,
        new_front: Callable[[], Front] = Front,
    ) -> None:
        self._engine = engine
        self._lifetimes = lifetimes
        self._clocks = clocks
        self._times = times
        self._shared = shared
        self._records = records
        self._front = new_front()
        self._flights: dict[str, _Flight] = {}

    async def evaluate(self, question: Question, caller: Any = None, *, hopped: bool = False) -> Answered:
        """The decision.

        Args:
            caller: Handed to `Shared.ask_owner`.
            hopped: Another worker passed the question on, so that it is not passed on again.

        Raises:
            PolicyUnavailable: There is none.
            NotOwner: It was passed on to the wrong worker, or to one that cannot write it down.
        """
        try:
            return await self._recorded(question, caller, hopped=hopped)
        except NotRecorded:
            if hopped:
                # Nobody knows of it: whoever passed it on asks the engine himself.
                raise NotOwner(question.principal_id) from None
            _count_failure()
            raise

    async def _recorded(self, question: Question, caller: Any, *, hopped: bool) -> Answered:
        began_ms = self._clocks.now_ms()
        records = self._records
        try:
            outcome = await self._outcome(question, caller, hopped=hopped)
        except PolicyUnavailable as error:
            if not error.recorded:
                if records is not None:
                    await records.failed(question, str(error), began_ms)
                _count_failure()
            raise
        if outcome.decision_id is not None:
            # Its owner has counted and recorded it.
            return Answered(outcome.decision, outcome.decision_id, outcome.source)
        decision_id = "" if records is None else await records.made(outcome.decision, outcome.source)
        _count(outcome)
        return Answered(outcome.decision, decision_id, outcome.source)

    async def close(self) -> None:
        """Nobody waits any more."""
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _outcome(self, question: Question, caller: Any, *, hopped: bool) -> _Outcome:
        asked_s = self._clocks.monotonic_s()
        if (kept := self._kept(question, asked_s)) is not None:
            metrics.CACHE_HITS.inc()
            return _Outcome(kept, CACHE, fresh=False)
        metrics.CACHE_MISSES.inc()
        if hopped and self._shared is not None and self._shared.place(question) is not Place.HERE:
            raise NotOwner(question.principal_id)
        while True:
            flight = self._flights.get(question.key)
            if flight is None or not self._may_join(flight, question, asked_s):
                flight = self._start(question, caller, hopped=hopped)
                return await asyncio.shield(flight.task)
            outcome = await asyncio.shield(flight.task)
            if flight.began_s >= asked_s or outcome.fresh or self._counts_now(outcome.decision):
                # Its record says who was given it first; each of the others has one of its own.
                return _Outcome(outcome.decision, outcome.source, outcome.fresh)

    # -- what is kept

    def _kept(self, question: Question, now_s: float) -> Decision | None:
        times = self._times
        if times is None or not times.fresh(now_s):
            return None
        decision = self._front.get(question.key, now_s)
        if decision is None:
            return None
        if decision.began_ms > self._clocks.now_ms() + times.skew_ms:
            # The clock was ahead and was put right: what is invalidated now would not end it.
            self._front.drop(question.key)
            return None
        if not times.counts(decision):
            metrics.POLICY_CACHE_STALE.inc()
            self._front.drop(question.key)
            return None
        return decision

    def _keep(self, decision: Decision, until_s: float) -> None:
        if self._times is not None and self._times.counts(decision):
            self._front.put(decision, until_s)

    def _counts_now(self, decision: Decision) -> bool:
        times = self._times
        return times is not None and times.fresh(self._clocks.monotonic_s()) and times.counts(decision)

    def _left_s(self, decision: Decision) -> float:
        """For how long a decision may be used that this process has by way of another clock; 0: not at all."""
        now_ms, skew_ms = self._clocks.now_ms(), 0 if self._times is None else self._times.skew_ms
        if decision.expires_ms is None or decision.began_ms > now_ms + skew_ms:
            return 0.0
        # Whoever kept it may have been told of a longer life.
        ours_ms = decision.began_ms + int(self._lifetimes.of(decision.verdict) * 1000)
        return max(0.0, (min(decision.expires_ms, ours_ms) - skew_ms - now_ms) / 1000)

    # -- flights

    def _may_join(self, flight: _Flight, question: Question, asked_s: float) -> bool:
        """Whether an invalidation can have taken effect after the flight began and before this question.

        It takes effect a second after it is acknowledged. So none can have if the flight is not older than that; nor
        if all that were in the log a second ago have been read, and none of them came after the flight began.
        """
        times = self._times
        young = asked_s - flight.began_s <= FRESH_S
        if times is None:
            return young
        return (young or times.fresh(asked_s)) and not times.seen_since(question, flight.began_s)

    def _start(self, question: Question, caller: Any, *, hopped: bool) -> _Flight:
        """A task of its own: whoever asked first may go, and the others still wait."""
        began_s = self._clocks.monotonic_s()
        work = self._resolve(question, caller, hopped=hopped)
        flight = _Flight(began_s, asyncio.get_running_loop().create_task(work))
        self._flights[question.key] = flight

        def landed(task: asyncio.Task[_Outcome]) -> None:
            if self._flights.get(question.key) is flight:
                del self._flights[question.key]
            if not task.cancelled():
                # Nobody may be left who waits.
                task.exception()

        flight.task.add_done_callback(landed)
        return flight

    async def _resolve(self, question: Question, caller: Any, *, hopped: bool) -> _Outcome:
        shared, times, clocks = self._shared, self._times, self._clocks
        place = Place.NOWHERE
        if shared is not None and times is not None and times.fresh(clocks.monotonic_s()):
            place = shared.place(question)
            if not times.settling(question, clocks.now_ms()):
                found = await self._shared_decision(shared, place, question, caller, hopped=hopped)
                if found is not None:
                    return found
        began_ms, began_s = clocks.now_ms(), clocks.monotonic_s()
        verdict = await self._engine.verdict(question)
        decision = self._lifetimes.decided(question, verdict, began_ms, clocks.now_ms())
        if decision.expires_ms is not None:
            self._keep(decision, began_s + self._lifetimes.of(verdict))
        if not self._is_kept(decision, place):
            decision = msgspec.structs.replace(decision, expires_ms=None)
        return _Outcome(decision, ENGINE, fresh=True)

    async def _shared_decision(
        self, shared: Shared, place: Place, question: Question, caller: Any, *, hopped: bool
    ) -> _Outcome | None:
        """What this or another worker keeps, or what the owner was told by the engine; None: the engine is asked."""
        if place is Place.HERE:
            row = await shared.row(question)
            if row is None or not self._counts_now(row) or not (left_s := self._left_s(row)):
                return None
            self._keep(row, self._clocks.monotonic_s() + left_s)
            return _Outcome(row, CACHE, fresh=False)
        if place is Place.NOWHERE or hopped:
            return None
        found = await shared.ask_owner(question, caller)
        if found is None or not self._counts_now(found.decision):
            return None
        if left_s := self._left_s(found.decision):
            self._keep(found.decision, self._clocks.monotonic_s() + left_s)
        return _Outcome(found.decision, found.source, fresh=False, decision_id=found.decision_id)

    def _is_kept(self, decision: Decision, place: Place) -> bool:
        """Only the owner of the principal writes what others may use."""
        mine = self._shared is None or place is Place.HERE
        return mine and self._times is not None and self._times.counts(decision)


# Looked up once for each of the few there are.
_evaluations = cache(lambda source, told: metrics.POLICY_EVALUATIONS.labels(source=source, decision=told))


def _count(outcome: _Outcome) -> None:
    _evaluations(outcome.source, "allow" if outcome.decision.verdict.allowed else "deny").inc()


def _count_failure() -> None:
    _evaluations("error", "unavailable").inc()
