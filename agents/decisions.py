"""Decisions: what the policy engine said is kept by the owner of the principal until its time is over.

The record of a decision is the write: whoever asked the engine as the owner has put it into the log. Whether a row
still counts is for the reader to say, by the times of invalidations; nothing is deleted for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from app.engine import Agent, Processor
from app.integrations.policy import Decision, UnreadableDecision, read_decision
from tables.decisions import DECISIONS, DecisionReaders, decision_key, expired_decisions, next_expiry_ms

if TYPE_CHECKING:
    from app.engine import Context, Slice, Unit
    from app.topics import Topics

__all__ = ["decisions_agent"]

SWEPT_AT_ONCE: Final = 500
SWEEP_GAP_S: Final = 1.0
LATEST_MS: Final = 1 << 62
SLICE_RECORDS: Final = 256
GATHER_S: Final = 1.0
"""So long records wait for others. Nobody waits for a row, as whoever asked the engine keeps what it said himself; and
a few records cost as many units and checkpoints as many do."""
# Of a number after the one before it: so the moments of however many lie apart.
TURN_S: Final = 0.618


def decisions_agent(topics: Topics, readers: DecisionReaders) -> Agent:
    """The agent; register it only if the policy engine has an endpoint.

    Args:
        readers: Where whoever evaluates finds the open numbers.
    """
    return Agent(
        name="decisions",
        topics=(topics.decisions,),
        processor=lambda context: _Decisions(context, readers),
        home=DECISIONS,
        tables=(DECISIONS,),
        slice_records=SLICE_RECORDS,
    )


class _Decisions(Processor):
    def __init__(self, context: Context, readers: DecisionReaders) -> None:
        super().__init__(context)
        self._readers = readers
        self._swept_to_ms = 0
        self._sweep_at_ms = LATEST_MS
        self._next_slice_s = 0.0

    async def opened(self, unit: Unit) -> None:
        self._sweep_next(next_expiry_ms(unit, 0))
        self._readers.opened(self.context.number, self)

    async def process(self, slice_: Slice, unit: Unit) -> None:
        now_ms = self.context.clock.now_ms()
        for record in slice_.records:
            try:
                decision = read_decision(record.value)
            except UnreadableDecision as error:
                unit.quarantine(record, "invalid_data", str(error))
                continue
            if decision is not None and decision.expires_ms is not None and decision.expires_ms > now_ms:
                self._keep(decision, decision.expires_ms, unit)
        # Behind a full one more of them wait.
        gathers = len(slice_.records) < SLICE_RECORDS
        self._next_slice_s = self._next_turn_s() if gathers else 0.0

    def _next_turn_s(self) -> float:
        """Each number has a moment of its own: all of them at one would be a pause for whoever asks."""
        now_s = self.context.clock.monotonic_s()
        return now_s + GATHER_S - (now_s + self.context.number * TURN_S) % GATHER_S

    def holds_back_s(self) -> float:
        """Until enough has come, or enough time has passed."""
        return max(0.0, self._next_slice_s - self.context.clock.monotonic_s())

    def _keep(self, decision: Decision, expires_ms: int, unit: Unit) -> None:
        key = decision_key(decision.principal_id, decision.key)
        known = unit.get(DECISIONS, key)
        if known is not None and known.began_ms >= decision.began_ms:
            return
        unit.put(DECISIONS, key, decision)
        # Clocks differ, and a deny does not live as long as an allow: it may expire before what was swept.
        self._swept_to_ms = min(self._swept_to_ms, expires_ms)
        self._sweep_next(min(expires_ms, self._sweep_at_ms))

    async def tick(self, unit: Unit) -> None:
        now_ms = self.context.clock.now_ms()
        if now_ms < self._sweep_at_ms:
            self._sweep_next(self._sweep_at_ms)
            return
        keys = expired_decisions(unit, self._swept_to_ms, now_ms, SWEPT_AT_ONCE)
        for key in keys:
            unit.delete(DECISIONS, key)
        if len(keys) < SWEPT_AT_ONCE:
            # From here the next scan begins: before it lies nothing but what was deleted.
            unit.on_done(lambda: self._swept(now_ms))
            self._sweep_next(next_expiry_ms(unit, now_ms + 1))
        else:
            self.context.tick_now()

    def _swept(self, to_ms: int) -> None:
        self._swept_to_ms = max(self._swept_to_ms, to_ms)

    def _sweep_next(self, at_ms: int | None) -> None:
        if at_ms is None:
            self._sweep_at_ms = LATEST_MS
            return
        self._sweep_at_ms = at_ms
        clock = self.context.clock
        self.context.tick_at(clock.monotonic_s() + max(SWEEP_GAP_S, (at_ms - clock.now_ms()) / 1000))

    async def read(self, principal_id: str, key: str) -> Decision | None:
        """See `DecisionReader.read`."""
        return await self.context.submit(lambda unit: unit.get(DECISIONS, decision_key(principal_id, key)))

    async def closed(self) -> None:
        self._readers.closed(self.context.number, self)
