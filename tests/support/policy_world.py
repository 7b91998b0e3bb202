"""Two workers, their engine, and the log of invalidations, on a clock that a test moves.

There is one true time. Each worker and the broker have a clock of their own, wrong by at most half of what two may
differ; requests, hops, rows and the reading of the log take as long as the test says at the moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from app.integrations.policy import (
    Answered,
    Decision,
    Evaluator,
    Invalidations,
    Lifetimes,
    NotOwner,
    OwnersAnswer,
    Place,
    PolicyUnavailable,
    Question,
    Verdict,
)
from tests.support.policy import question
from tests.support.stepping import SteppedLoop

SKEW_S = 2.0
EFFECT_S = 1.0
ALLOW_S = 20.0
DENY_S = 8.0
EPOCH_MS = 1_750_000_000_000
ASK_EVERY_S = 0.2
MakeEvaluator = Callable[..., Evaluator]
MakeTimes = Callable[[float, float], Invalidations]


@dataclass
class Revocation:
    scope: str
    at_s: float
    stamp_ms: int

    def concerns(self, asked: Question) -> bool:
        return self.scope in ("*", f"p:{asked.principal_id}", f"r:{asked.resource_id}")


@dataclass
class Given:
    """An answer: when it was asked for, and when the request to the engine began that it comes from, in true time."""

    worker: str
    asked: Question
    asked_s: float
    answered: Answered

    @property
    def began_s(self) -> float:
        return float(self.answered.decision.verdict.reason)


class WorldClock:
    """A worker's."""

    def __init__(self, loop: SteppedLoop, wrong_s: float) -> None:
        self._loop = loop
        self._wrong_ms = round(wrong_s * 1000)

    def now_ms(self) -> int:
        return EPOCH_MS + int(self._loop.time() * 1000) + self._wrong_ms

    def monotonic_s(self) -> float:
        return 1000.0 + self._loop.time()


@dataclass
class Pace:
    """How long things take, in seconds, and what does not work."""

    engine_s: float = 0.05
    hop_s: float = 0.01
    row_s: float = 0.01
    log_s: dict[str, float] = field(default_factory=lambda: {"w0": 0.01, "w1": 0.01})
    engine_down: bool = False
    hops_down: bool = False


class World:
    """See the module."""

    def __init__(
        self,
        wrong_s: tuple[float, float, float] = (0.0, 0.0, 0.0),
        make_evaluator: MakeEvaluator = Evaluator,
        make_times: MakeTimes = Invalidations,
    ) -> None:
        self.loop = SteppedLoop()
        self.pace = Pace()
        self.broker = WorldClock(self.loop, wrong_s[2])
        self.log: list[Revocation] = []
        self.table: dict[str, Decision] = {}
        self.owner: dict[str, str] = {}
        self.given: list[Given] = []
        self.refused = 0
        self.calls = 0
        self.workers = {
            name: WorldWorker(self, name, WorldClock(self.loop, wrong_s[at]), make_evaluator, make_times)
            for at, name in enumerate(("w0", "w1"))
        }
        for worker in self.workers.values():
            self.loop.start(worker.read_log())

    def run_for(self, seconds: float) -> None:
        """Everything that happens within this time."""
        until_s = self.loop.time() + seconds
        while self.loop._ready or (self.loop._scheduled and self.loop._scheduled[0].when() <= until_s):
            self.loop.step()
        self.loop.pass_time(max(0.0, until_s - self.loop.time()))

    def ask(self, name: str, asked: Question) -> None:
        self.loop.start(self._ask(name, asked))
        self.run_for(0)

    async def _ask(self, name: str, asked: Question) -> None:
        asked_s = self.loop.time()
        try:
            answered = await self.workers[name].evaluator.evaluate(asked)
        except PolicyUnavailable:
            self.refused += 1
            return
        given = Given(name, asked, asked_s, answered)
        self.given.append(given)

    def revoke(self, scope: str) -> None:
        """Its record is in the log, and acknowledged."""
        self.log.append(Revocation(scope, self.loop.time(), self.broker.now_ms()))

    def end(self) -> None:
        self.loop.end()

    def check(self) -> None:
        """No answer that was asked for after a revocation took effect comes from before it, and none is too old."""
        for given in self.given:
            for revocation in self.log:
                if revocation.concerns(given.asked) and revocation.at_s + EFFECT_S <= given.asked_s:
                    assert given.began_s >= revocation.at_s, f"a stale decision: {given} after {revocation}"
            if given.began_s < given.asked_s:
                limit_s = ALLOW_S if given.answered.decision.verdict.allowed else DENY_S
                joined_s = EFFECT_S if given.answered.source == "engine" else 0.0
                assert given.asked_s - given.began_s <= limit_s + joined_s, f"an old decision: {given}"
        self.given = []


class WorldWorker:
    """One worker: what the program does is its evaluator and its times; the rest is the world's."""

    def __init__(
        self, world: World, name: str, clock: WorldClock, make_evaluator: MakeEvaluator, make_times: MakeTimes
    ) -> None:
        self._world = world
        self._name = name
        self.clock = clock
        self.times = make_times(SKEW_S, ALLOW_S)
        self.evaluator = make_evaluator(
            self, Lifetimes(ALLOW_S, DENY_S), clock, times=self.times, shared=self, records=self
        )

    # -- the engine

    async def verdict(self, asked: Question) -> Verdict:
        world = self._world
        world.calls += 1
        began_s = world.loop.time()
        await asyncio.sleep(world.pace.engine_s)
        if world.pace.engine_down:
            raise PolicyUnavailable("down")
        return Verdict(allowed=asked.action == "read", reason=repr(began_s))

    # -- the other worker

    def place(self, asked: Question) -> Place:
        owner = self._world.owner.get(asked.principal_id, "w0")
        return Place.HERE if owner == self._name else Place.ELSEWHERE

    async def row(self, asked: Question) -> Decision | None:
        await asyncio.sleep(self._world.pace.row_s)
        return self._world.table.get(asked.key)

    async def ask_owner(self, asked: Question, caller: Any) -> OwnersAnswer | None:
        world = self._world
        peer = world.workers["w1" if self._name == "w0" else "w0"]
        await asyncio.sleep(world.pace.hop_s)
        if world.pace.hops_down:
            return None
        try:
            answered = await peer.evaluator.evaluate(asked, hopped=True)
        except NotOwner:
            return None
        await asyncio.sleep(world.pace.hop_s)
        return OwnersAnswer(answered.decision, answered.decision_id, answered.source)

    # -- the log of decisions

    async def made(self, decision: Decision, source: str) -> str:
        if source == "engine" and decision.expires_ms is not None:
            self._world.loop.call_later(self._world.pace.row_s, self._keep, decision)
        return "id"

    def _keep(self, decision: Decision) -> None:
        known = self._world.table.get(decision.key)
        if known is None or known.began_ms < decision.began_ms:
            self._world.table[decision.key] = decision

    async def failed(self, asked: Question, why: str, began_ms: int) -> None:
        return

    # -- the log of invalidations

    async def read_log(self) -> None:
        """As `InvalidationTail`: the end, then all before it, then what is known is known of when it was asked."""
        world, read = self._world, 0
        while True:
            asked_s = self.clock.monotonic_s()
            await asyncio.sleep(world.pace.log_s[self._name])
            end = len(world.log)
            await asyncio.sleep(world.pace.log_s[self._name])
            for revocation in world.log[read:end]:
                self.times.add(revocation.scope, revocation.stamp_ms, self.clock.monotonic_s())
            read = end
            self.times.confirmed(asked_s)
            self.times.forget(self.clock.now_ms())
            await asyncio.sleep(ASK_EVERY_S)


ALL = [question(principal, action, "ds") for principal in ("alice", "bob") for action in ("read", "delete")]
