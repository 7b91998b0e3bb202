"""What the routes of the audit trail work with (contracts 8.3 and 9.5).

How far a partition is, and where its chain can be taken up, knows the owner of its number; the records themselves are
in the topic, which any worker reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import msgspec

from app.engine import LogUnreadable
from app.web.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from app.engine import Ownership, Record
    from app.web.forward import Forwarder
    from app.web.webhook_commands import Sends
    from tables.audit_queries import AuditReaders

__all__ = [
    "EXPORTS_AT_ONCE",
    "RETRY_AFTER_S",
    "AuditApi",
    "AuditLog",
    "OwnersPage",
    "broker_away",
    "decoded",
    "still_missing",
]

TP = tuple[str, int]
T = TypeVar("T")

RETRY_AFTER_S: Final = 2
EXPORTS_AT_ONCE: Final = 4


class AuditLog(Protocol):
    """The audit topic."""

    async def bounds(self) -> dict[TP, tuple[int, int]]:
        """First offset and end of every partition.

        Raises:
            LogUnreadable: Not known now.
        """

    async def offsets_at(self, partitions: Sequence[TP], at_ms: int) -> dict[TP, int | None]:
        """Of each partition the first offset of that time or later; None: there is none.

        Raises:
            LogUnreadable: Not known now.
        """

    def read(self, start: Mapping[TP, int], until: Mapping[TP, int]) -> AsyncGenerator[list[Record], None]:
        """All records in between, some at a time.

        Raises:
            LogUnreadable: It broke off.
        """


@dataclass(frozen=True, slots=True)
class AuditApi:
    """What the routes work with.

    Attributes:
        sealing: Whether governance runs; without an endpoint it does not, and no number has a line.
        position: Of a partition of the audit topic, as far as this worker knows it.
        outputs: Takes the events for the auditors.
        events: `{prefix}.events`.
        source: Of those events.
    """

    readers: AuditReaders
    ownership: Ownership
    forwarder: Forwarder
    log: AuditLog
    topic: str
    sealing: bool
    position: Callable[[int], int]
    outputs: Sends
    events: str
    source: str
    exports: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(EXPORTS_AT_ONCE))

    async def bounds(self) -> dict[int, tuple[int, int]]:
        """First offset and end, by partition.

        Raises:
            Problem: 503, not known now.
        """
        try:
            return {partition: places for (_, partition), places in (await self.log.bounds()).items()}
        except LogUnreadable:
            raise broker_away() from None

    def partitions_of(self, number: int, partitions: Iterable[int]) -> list[int]:
        """Those that belong to a number."""
        return [partition for partition in partitions if partition % self.ownership.count == number]


class OwnersPage(Protocol):
    """What another worker answers of the numbers that it owns."""

    @property
    def missing(self) -> frozenset[int]:
        """The numbers that it does not speak for."""


def still_missing(answers: Iterable[tuple[frozenset[int], OwnersPage | None]]) -> set[int]:
    """The numbers that nobody spoke for: an owner may have lost one meanwhile, and who has it now was not asked."""
    return set(chain.from_iterable(asked if page is None else asked & page.missing for asked, page in answers))


def decoded(body: bytes, kind: type[T]) -> T:
    """Another worker's answer.

    Raises:
        ValueError: It is none.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise ValueError("not the answer of a worker") from error


def broker_away() -> Problem:
    """503: what the topic has is not known."""
    return Problem(503, "broker_unavailable", "Kafka does not answer. Try again.", retry_after_s=RETRY_AFTER_S)
