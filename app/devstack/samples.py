"""Events to try things with: one, or a trickle of all types."""

import asyncio
import dataclasses
import secrets
import time
from collections.abc import Callable, Iterator

from app.devstack.workload import make_workload
from app.events import VaultEventType, format_time
from app.publishing import EventError, KafkaConfig, KafkaEventPublisher, VaultEvent

__all__ = ["sample_event", "trickle"]

A_ROUND = 200
"""Events over a few datasets; the next round has datasets of its own."""


def sample_event() -> VaultEvent:
    """A dataset was created; each time another one."""
    dataset = f"ds-{secrets.token_hex(5)}"
    data = {"dataset_id": dataset, "name": "a sample", "version": "1.0.0", "classification": "internal"}
    return VaultEvent.new(VaultEventType.DATASET_CREATED, "/vault/samples", data)


def _endless() -> Iterator[VaultEvent]:
    while True:
        events = make_workload(A_ROUND, seed=secrets.randbits(32), start_ms=0).events
        for event in events:
            yield dataclasses.replace(event, time=format_time(time.time_ns() // 1_000_000))


async def trickle(brokers: str, per_s: float, say: Callable[[str], None], *, at_most: int | None = None) -> None:
    """Publish events of all types, so many a second, until cancelled or `at_most` were published.

    Args:
        say: Told when it stands still, and when it ends.
    """
    published = 0
    troubled = False
    async with KafkaEventPublisher(KafkaConfig(brokers=[brokers])) as publisher:
        for event in _endless():
            if at_most is not None and published >= at_most:
                say(f"traffic     ended after {published} events: this broker forgets its oldest records beyond that")
                return
            try:
                await publisher.publish(event)
            except EventError as error:
                if not troubled:
                    say(f"traffic     stands still: {error}")
                troubled = True
            else:
                published, troubled = published + 1, False
            await asyncio.sleep(1 / per_s)
