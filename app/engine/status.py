"""What operators see of the engine: why it is not ready, how old its work is, how far behind it is."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from aiokafka import errors as kafka_errors

from app.brokers import REFUSALS
from app.engine.number import State
from app.observability import metrics

if TYPE_CHECKING:
    from app.engine.engine import Engine

__all__ = ["Status"]

log = logging.getLogger("app.engine.status")

GAUGE_INTERVAL_S = 1.0
ENDS_INTERVAL_S = 5.0


class Status:
    """Reads an engine; changes nothing."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ends: dict[tuple[str, int], int] = {}
        self._began = engine.clock.monotonic_s()
        self._was_ready = False
        self._was_heard = False

    def not_ready(self) -> list[str]:
        """Why this worker is not ready; empty when it is. A spare, without numbers, is ready."""
        engine = self._engine
        if engine.draining:
            return ["draining"]
        reasons = [reason for reason in (engine.problem, engine.coordinator_problem) if reason]
        if not engine.assignment_seen:
            return ["no assignment yet", *reasons]
        if not engine.lease_valid():
            reasons.append("no heartbeat was answered within the session timeout")
        mine = [number for number, owner in self.owners().items() if owner == engine.instance]
        reasons += [f"number {number} is not open yet" for number in mine if number not in engine.numbers]
        for number in engine.numbers.values():
            if not number.ready:
                reasons.append(f"number {number.number} is {number.state}: {number.reason or 'restoring'}")
            reasons += number.problems()
        if engine.consumer is not None:
            # One right that is missing is the reason of many partitions.
            reasons += dict.fromkeys(engine.consumer.unreadable.values())
        return reasons

    def owners(self) -> dict[int, str]:
        """Number → the name of its owner."""
        found = {number: self._engine.ownership.owner(number) for number in range(self._engine.numbers_count)}
        return {number: owner.name for number, owner in found.items() if owner is not None}

    def oldest_unfinished_s(self) -> dict[str, float]:
        """Age of the oldest record that each agent has begun and not finished, in seconds."""
        ages = {agent.name: 0.0 for agent in self._engine.agents}
        for number in self._engine.numbers.values():
            for name, runner in number.runners.items():
                ages[name] = max(ages[name], runner.oldest_unfinished_s())
        return ages

    def jobs_waiting(self) -> dict[str, int]:
        """Jobs that wait for their turn between the slices of each agent."""
        waiting = {agent.name: 0 for agent in self._engine.agents}
        for number in self._engine.numbers.values():
            for name, runner in number.runners.items():
                waiting[name] += runner.jobs_waiting
        return waiting

    def lag(self) -> dict[str, int]:
        """Records between the position and the end, as it was a few seconds ago or at the last fetch, by topic."""
        lags = dict.fromkeys(self._engine.agent_of, 0)
        consumer = self._engine.consumer
        for number in self._engine.numbers.values() if consumer is not None else ():
            for tp, tracker in number.trackers.items():
                fetched = consumer.end_of(tp) if consumer is not None else None
                end = max(fetched or 0, self._ends.get(tp, 0))
                lags[tp[0]] += max(0, end - tracker.position)
        return lags

    async def follow_ends(self) -> None:
        """Ask where the partitions end, until cancelled.

        One whose agent has enough is not fetched, and the fetches then say nothing of its end.
        """
        while True:
            partitions = [tp for number in self._engine.numbers.values() for tp in number.trackers]
            try:
                bounds = await self._engine.readers.ends.bounds(partitions) if partitions else {}
                self._ends = {tp: end for tp, (_, end) in bounds.items()}
            except (kafka_errors.KafkaError, TimeoutError, OSError) as error:
                log.info("the ends are not known now: %r", error)
            await asyncio.sleep(ENDS_INTERVAL_S)

    async def feed_gauges(self) -> None:
        """Keep the gauges of contracts 7 up to date until cancelled."""
        while True:
            for state in State:
                count = sum(number.state is state for number in self._engine.numbers.values())
                metrics.NUMBERS.labels(state=state.value).set(count)
            for agent, age_s in self.oldest_unfinished_s().items():
                metrics.OLDEST_UNFINISHED_SECONDS.labels(agent=agent).set(age_s)
            for agent, count in self.jobs_waiting().items():
                metrics.QUEUE_DEPTH.labels(queue_name=f"jobs_{agent}").set(count)
            for topic, lag in self.lag().items():
                metrics.CONSUMER_LAG.labels(topic=topic).set(lag)
            self._tell()
            await asyncio.sleep(GAUGE_INTERVAL_S)

    def _tell(self) -> None:
        """One line when this worker becomes ready, or is no longer, and when the group goes silent or answers again."""
        engine = self._engine
        REFUSALS.current()
        heard = engine.lease_valid()
        if heard != self._was_heard and engine.assignment_seen:
            if heard:
                log.info("the group answers")
            else:
                log.warning("no heartbeat was answered for %.0f s: positions stay, nothing starts", engine.session_s)
            self._was_heard = heard
        reasons = self.not_ready()
        metrics.READY.set(not reasons)
        if not reasons and not self._was_ready:
            age_s = engine.clock.monotonic_s() - self._began
            log.info(
                "ready: %d of %d numbers, %.1f s after the start", len(engine.numbers), engine.numbers_count, age_s
            )
        elif reasons and self._was_ready and not engine.draining:
            log.warning("not ready: %s", "; ".join(reasons))
        self._was_ready = not reasons
