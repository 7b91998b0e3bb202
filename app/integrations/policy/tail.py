"""Reads `policy.invalidations` privately, to its end and on, and knows when it last was there.

Its end is asked for again and again, and the time before the question counts: what was in the log then has been read
once this much has been read. With a plain consumer of the topic nobody knows what he has missed: he is set to the first
record that is left without a word. Where retention, or whoever deleted the topic, took what was not read, everything
that was decided until then is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from app.brokers import REFUSALS
from app.integrations.policy.invalidations import EVERYTHING, Invalidations, scope_of

__all__ = ["InvalidationTail"]

log = logging.getLogger("app.integrations.policy")

ASK_EVERY_S: Final = 0.25
"""A quarter of the time for which an answer holds, as some of it may take long."""
FETCH_WAIT_MS: Final = 100
ANSWER_S: Final = 5.0
STOP_S: Final = 3.0
RETRY_MIN_S: Final = 0.2
RETRY_MAX_S: Final = 5.0


class _StartAgain(Exception):
    """What was read is not what is there now."""


class InvalidationTail:
    """Keeps `times` up to date from `start` to `stop`.

    Use it as an async context manager, or start and stop it.

    Args:
        brokers: `host:port`, comma separated or a list.
        topic: Its name; by default the one of the prefix `vault`.
        skew_s: By how much two clocks may differ.
        longest_s: For how long a decision may be kept at most.
        options: Gives further options of the Kafka client, such as its security; asked for each one that is made.

    Attributes:
        times: What is known now.
    """

    def __init__(
        self,
        brokers: str | Sequence[str],
        *,
        topic: str = "vault.policy.invalidations",
        client_id: str = "vault-service-policy",
        skew_s: float = 2.0,
        longest_s: float = 300.0,
        options: Callable[[], Mapping[str, Any]] = dict,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.times = Invalidations(skew_s, longest_s)
        self.longest_s = longest_s
        self._topic = topic
        self._options = {
            "bootstrap_servers": brokers if isinstance(brokers, str) else list(brokers),
            "client_id": client_id,
        }
        self._security = options
        self._monotonic_s = monotonic_s
        # To where all was read once; kept from one consumer to the next, which begins at what is left.
        self._read_to: dict[TopicPartition, int] = {}
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Begin; returns at once, and nothing counts as read yet."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="policy.invalidations")

    async def stop(self) -> None:
        """End; what is known grows old."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        delay_s = RETRY_MIN_S
        while True:
            began_s = self._monotonic_s()
            try:
                await self._read()
            except (KafkaError, OSError, TimeoutError, _StartAgain) as error:
                level = logging.WARNING if REFUSALS.met(error, "Read", self._topic) is None else logging.DEBUG
                log.log(level, "%s: read again from its beginning in %.1f s: %r", self._topic, delay_s, error)
            except Exception:
                # Without it nothing is kept: worth an error, and no reason to end.
                log.exception("%s: read again from its beginning in %.1f s", self._topic, delay_s)
            if self._monotonic_s() - began_s > 2 * RETRY_MAX_S:
                delay_s = RETRY_MIN_S
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, RETRY_MAX_S)

    async def _read(self) -> None:
        consumer = AIOKafkaConsumer(
            self._topic,
            **{**self._options, **self._security()},
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=FETCH_WAIT_MS,
            request_timeout_ms=round(ANSWER_S * 1000),
            metadata_max_age_ms=30_000,
        )
        starting = asyncio.create_task(consumer.start())
        try:
            # Cancelled in the middle of it, aiokafka would leave the connection open that it makes just then.
            await asyncio.shield(starting)
            await self._follow(consumer)
        finally:
            await asyncio.wait([starting], timeout=STOP_S)
            await _stop(consumer)
            await _ended(starting)

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        # It should be one, but a broker that made the topic by itself may have made more.
        partitions = sorted(consumer.assignment())
        if not partitions:
            if self._read_to:
                self._missed_some()
            raise _StartAgain("there is no such topic")
        # It is fetched when there is something to fetch: asking for the end says so, and costs a third of long polls.
        consumer.pause(*partitions)
        at_first = True
        while True:
            asked_s = self._monotonic_s()
            before = {partition: await consumer.position(partition) for partition in partitions}
            async with asyncio.timeout(ANSWER_S):
                ends = await consumer.end_offsets(partitions)
            if any(ends[partition] < before[partition] for partition in partitions):
                self._missed_some()
                raise _StartAgain("the topic ends before what was read of it: it was made again")
            is_behind = await _is_behind(consumer, ends)
            if is_behind:
                consumer.resume(*partitions)
                while await _is_behind(consumer, ends):
                    await self._take(consumer, ASK_EVERY_S)
                consumer.pause(*partitions)
            if consumer.assignment() != set(partitions):
                raise _StartAgain("the topic has other partitions now")
            if is_behind or at_first:
                await self._look_for_gaps(consumer, before, ends)
            self._read_to = {partition: await consumer.position(partition) for partition in partitions}
            at_first = False
            self.times.confirmed(asked_s)
            await asyncio.sleep(max(0.0, asked_s + ASK_EVERY_S - self._monotonic_s()))

    async def _look_for_gaps(
        self, consumer: AIOKafkaConsumer, before: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
    ) -> None:
        """Whether all was read from where it had been read to; asked after reading, as beginnings only ever grow."""
        async with asyncio.timeout(ANSWER_S):
            begins = await consumer.beginning_offsets(list(before))
        known = self._read_to or before
        # A partition that is new to a topic began with nothing.
        held = all(begins[one] <= known.get(one, 0) <= ends[one] for one in before)
        if not held or known.keys() - before.keys():
            self._missed_some()

    def _missed_some(self) -> None:
        """What was not read may have ended anything that was decided until now."""
        log.warning("%s: records are gone that were not read: no decision counts any more", self._topic)
        self._read_to = {}
        self.times.add(EVERYTHING, time.time_ns() // 1_000_000, self._monotonic_s())

    async def _take(self, consumer: AIOKafkaConsumer, within_s: float) -> None:
        for records in (await consumer.getmany(timeout_ms=max(1, round(within_s * 1000)))).values():
            seen_s = self._monotonic_s()
            for record in records:
                self.times.add(scope_of(record.key), record.timestamp, seen_s)
            self.times.forget(time.time_ns() // 1_000_000)


async def _is_behind(consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> bool:
    for partition, end in ends.items():
        if await consumer.position(partition) < end:
            return True
    return False


async def _ended(starting: asyncio.Task[None]) -> None:
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)


async def _stop(consumer: AIOKafkaConsumer) -> None:
    try:
        async with asyncio.timeout(STOP_S):
            await consumer.stop()
    except (TimeoutError, KafkaError, OSError) as error:
        log.warning("the reader of invalidations did not stop cleanly: %r", error)
