"""An evaluator with the other workers and the log of invalidations that a test plays."""

from __future__ import annotations

import asyncio
from typing import Any

from app.integrations.policy import (
    Answered,
    Decision,
    Evaluator,
    Invalidations,
    Lifetimes,
    OwnersAnswer,
    Place,
    PolicyUnavailable,
    Question,
)
from tests.support.memory_unit import FakeClock
from tests.support.policy import Engine, Log, question

SKEW_S = 2.0


class Shares:
    """The other workers.

    Attributes:
        rows: Of this worker's table, by key.
        owner: What the owner answers.
    """

    def __init__(self, place: Place = Place.HERE) -> None:
        self.place_ = place
        self.rows: dict[str, Decision] = {}
        self.owner: OwnersAnswer | None = None
        self.owner_unavailable = False
        self.owner_asked = 0
        self.gate = asyncio.Event()
        self.gate.set()

    def place(self, question: Question) -> Place:
        return self.place_

    async def row(self, question: Question) -> Decision | None:
        await self.gate.wait()
        return self.rows.get(question.key)

    async def ask_owner(self, question: Question, caller: Any) -> OwnersAnswer | None:
        self.owner_asked += 1
        await self.gate.wait()
        if self.owner_unavailable:
            raise PolicyUnavailable("the owner got none", recorded=True)
        return self.owner


class Desk:
    """One process, and the log of invalidations that it reads."""

    def __init__(self, shared: Shares | None = None) -> None:
        self.clock = FakeClock()
        self.engine = Engine()
        self.log = Log()
        self.times = Invalidations(SKEW_S, 300)
        self.shared = shared
        self.evaluator = Evaluator(
            self.engine, Lifetimes(), self.clock, times=self.times, shared=shared, records=self.log
        )
        self.reads_on = True

    def pass_s(self, seconds: float) -> None:
        self.clock.advance(seconds)
        if self.reads_on:
            self.times.confirmed(self.clock.monotonic_s())

    async def ask(self, asked: Question | None = None, **named: Any) -> Answered:
        if self.reads_on:
            self.times.confirmed(self.clock.monotonic_s())
        return await self.evaluator.evaluate(asked or question(), **named)

    def invalidate(self, scope: str) -> None:
        self.times.add(scope, self.clock.now_ms(), self.clock.monotonic_s())

    @property
    def calls(self) -> int:
        return len(self.engine.asked)


async def quiet() -> None:
    for _ in range(20):
        await asyncio.sleep(0)
