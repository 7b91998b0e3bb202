"""`kill -9` of workers at seeded moments, and which repeats each of them excuses.

A kill excuses exactly the work that was open when it happened: records at or beyond the position in the log, and
deliveries whose row had not ended in the log, of the numbers that the killed worker held. Everything else that comes
twice is a fault.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from app.engine.positions import decode_positions
from app.events import partition_for
from app.webhooks.model import DeliveryRow
from tables.deliveries import DELIVERIES
from tables.positions import POSITIONS
from tests.support.workers import Deployment, Hook, RunningWorker, read_topic

ROUTER_POSITIONS = b"\x00positions/router"
LAST_REQUESTS_S = 1.0
"""What a dead worker sent may still lie in a socket for so long; its heir needs more than that to begin."""

Place = tuple[str, int, int]
"""Topic, partition, offset."""


@dataclass(frozen=True)
class Kill:
    """One `kill -9`, with what the log said before anybody else wrote to it.

    Attributes:
        numbers: What the worker held.
        at: Seconds since 1970.
        positions: Of the router, by topic and partition.
        ended: Deliveries whose row in the log no longer waits.
    """

    worker: str
    numbers: frozenset[int]
    wiped: bool
    at: float
    positions: dict[tuple[str, int], int]
    ended: frozenset[str]

    def is_between(self, before: float, after: float) -> bool:
        """Whether something at one time was seen before it, and something at another after it."""
        return before <= self.at + LAST_REQUESTS_S and self.at <= after

    def excuses_record(self, place: Place, count: int) -> bool:
        """Whether this vault record may be routed again."""
        topic, partition, offset = place
        return partition % count in self.numbers and offset >= self.positions.get((topic, partition), 0)

    def excuses_delivery(self, hook: Hook, delivery_id: str, count: int) -> bool:
        """Whether this delivery may be posted again."""
        return partition_for(hook.id.encode(), count) in self.numbers and delivery_id not in self.ended


class Nemesis:
    """Kills, wipes and restarts workers of a deployment, by a seed that is printed."""

    def __init__(self, deployment: Deployment, seed: int) -> None:
        print(f"seed {seed}")  # noqa: T201  # a failure is repeated with it
        self.kills: list[Kill] = []
        self._deployment = deployment
        self._random = random.Random(seed)

    async def during(self, done: Callable[[], float], kills: int) -> None:
        """Kills so many times, at random moments; the last but one of them also costs the disk.

        Args:
            done: The part of the work that is done, 0 to 1.
            kills: At least 2.
        """
        for number in range(kills):
            moment = self._random.uniform(number + 0.3, number + 0.9) / (kills + 0.5)
            await self._deployment.observed(lambda moment=moment: done() >= moment, f"{moment:.0%} of the work")
            await asyncio.sleep(self._random.uniform(0.0, 0.4))
            worker = self._random.choice(list(self._deployment.workers.values()))
            await self._kill(worker, wipe=number == kills - 2)

    async def _kill(self, worker: RunningWorker, *, wipe: bool) -> None:
        await worker.kill()
        at, numbers = time.time(), worker.held()
        positions, ended = await asyncio.to_thread(read_log, self._deployment)
        self.kills.append(Kill(worker.name, numbers, wipe, at, positions, ended))
        if wipe:
            worker.wipe()
        await worker.start()


def read_log(deployment: Deployment) -> tuple[dict[tuple[str, int], int], frozenset[str]]:
    """The router's positions and the deliveries that have ended, by the committed log alone."""
    positions: dict[tuple[str, int], int] = {}
    for message in read_topic(deployment.brokers, deployment.topics.changelog(POSITIONS.name)):
        if message.key() == ROUTER_POSITIONS:
            positions |= {place: position.offset for place, position in decode_positions(message.value()).items()}
    rows: dict[bytes, DeliveryRow | None] = {}
    for message in read_topic(deployment.brokers, deployment.topics.changelog(DELIVERIES.name)):
        if not message.key().startswith(b"\x00"):
            rows[message.key()] = None if message.value() is None else DELIVERIES.decode(message.value())
    ended = {key.partition(b"\x00")[2].decode() for key, row in rows.items() if row is None or not row.status.waits}
    return positions, frozenset(ended)


def unexcused(times: Sequence[float], excuses: Sequence[Kill]) -> int:
    """How many of the repeats have no kill between them and the time before that excuses them."""
    return sum(not any(kill.is_between(*pair) for kill in excuses) for pair in pairwise(sorted(times)))
