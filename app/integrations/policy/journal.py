"""Every decision that was given goes to `policy.decisions`: from a queue, after the answer, and never dropped.

A full queue makes the caller wait. With `audit: sync` he waits until the broker has it. Who has waited too long gets no
decision: what cannot be written down is not given.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from app.integrations.policy.decisions import decision_record, error_record
from app.integrations.policy.errors import NotRecorded
from app.observability import metrics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from app.integrations.policy.decisions import Decision
    from app.integrations.policy.questions import Question

__all__ = ["DecisionJournal"]

log = logging.getLogger("app.integrations.policy")

CAPACITY: Final = 10_000
# Of records: obligations may be long, and Kafka away.
CAPACITY_BYTES: Final = 32 * 1024 * 1024
WAIT_S: Final = 10.0
BATCH: Final = 500
LINGER_S: Final = 0.1
"""So long records wait for others: each batch costs the broker, and the agent that reads it, as much as a record."""
RETRY_MIN_S: Final = 0.1
RETRY_MAX_S: Final = 5.0
CLOSE_S: Final = 5.0


class _Entry(NamedTuple):
    key: bytes
    value: bytes
    written: asyncio.Future[None] | None


class DecisionJournal:
    """The log, seen from those who write it.

    Args:
        send: Writes records, each with its key; returns when the broker has all of them, raises if it may not.
        source: Of the events.
        new_id: Makes the id of a record.
        now_ms: Wall clock.
        sync: Whether the caller waits for the broker.
        capacity: How many may wait.
        wait_s: How long a caller waits.
        linger_s: How long records wait for others where no caller waits for them.
    """

    def __init__(
        self,
        send: Callable[[Sequence[tuple[bytes, bytes]]], Awaitable[None]],
        *,
        source: str,
        new_id: Callable[[], str],
        now_ms: Callable[[], int],
        sync: bool = False,
        capacity: int = CAPACITY,
        wait_s: float = WAIT_S,
        linger_s: float = LINGER_S,
    ) -> None:
        self._send = send
        self._source = source
        self._new_id = new_id
        self._now_ms = now_ms
        self._sync = sync
        self._wait_s = wait_s
        self._linger_s = 0.0 if sync else linger_s
        self._capacity = capacity
        self._waiting: deque[_Entry] = deque()
        self._waiting_bytes = 0
        self._room = asyncio.Event()
        self._arrived = asyncio.Event()
        self._emptied = asyncio.Event()
        self._closing = False
        self._depth = metrics.QUEUE_DEPTH.labels(queue_name="decisions_audit")

    def __len__(self) -> int:
        return len(self._waiting)

    async def made(self, decision: Decision, source: str) -> str:
        """See `evaluation.Records.made`."""
        id_ = self._new_id()
        # What makes a row says when the engine decided.
        at_ms = decision.decided_ms if source == "engine" else self._now_ms()
        value = decision_record(decision, id_=id_, source=self._source, from_=source, at_ms=at_ms)
        written = asyncio.get_running_loop().create_future() if self._sync else None
        await self._add(_Entry(decision.principal_id.encode(), value, written))
        return id_

    async def failed(self, question: Question, why: str, began_ms: int) -> None:
        """See `evaluation.Records.failed`."""
        value = error_record(
            question, id_=self._new_id(), source=self._source, why=why, began_ms=began_ms, at_ms=self._now_ms()
        )
        await self._add(_Entry(question.principal_id.encode(), value, None))

    async def _add(self, entry: _Entry) -> None:
        if self._closing:
            raise NotRecorded("this worker stops")
        if entry.written is None and not self._full:
            self._append(entry)
            return
        try:
            async with asyncio.timeout(self._wait_s):
                while self._full:
                    self._room.clear()
                    await self._room.wait()
                self._append(entry)
                if entry.written is not None:
                    await entry.written
        except TimeoutError:
            raise NotRecorded("the decision cannot be written down: Kafka does not take it") from None

    @property
    def _full(self) -> bool:
        return len(self._waiting) >= self._capacity or self._waiting_bytes >= CAPACITY_BYTES

    def _append(self, entry: _Entry) -> None:
        self._waiting.append(entry)
        self._waiting_bytes += len(entry.value)
        self._arrived.set()
        self._emptied.clear()
        self._depth.set(len(self._waiting))

    async def run(self) -> None:
        """Write what waits, in order and again until it is acknowledged; until cancelled."""
        while True:
            if not self._waiting:
                self._emptied.set()
                self._arrived.clear()
                await self._arrived.wait()
            if self._linger_s and len(self._waiting) < BATCH and not self._closing:
                await asyncio.sleep(self._linger_s)
            await self._write(list(islice(self._waiting, BATCH)))

    async def _write(self, batch: list[_Entry]) -> None:
        delay_s = RETRY_MIN_S
        while True:
            try:
                await self._send([(entry.key, entry.value) for entry in batch])
                break
            except Exception as error:  # noqa: BLE001  # whatever it is, what waits is not given up
                log.warning("decisions wait for Kafka, again in %.1f s: %r", delay_s, error)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, RETRY_MAX_S)
        for entry in batch:
            self._waiting_bytes -= len(self._waiting.popleft().value)
            if entry.written is not None and not entry.written.done():
                entry.written.set_result(None)
        self._room.set()
        self._depth.set(len(self._waiting))

    async def close(self) -> None:
        """Take nothing more, and wait a moment for what waits; `run` goes on meanwhile."""
        self._closing = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                while self._waiting:
                    await self._emptied.wait()
        if self._waiting:
            log.error("%d decisions are not in the log: Kafka did not take them before the end", len(self._waiting))
