"""What the numbers of one process share, as a number sees it; and a number, as its runners see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from app.engine.agent import Agent, Clock
    from app.engine.changelog import Changelog
    from app.engine.errors import StoreError
    from app.engine.outputs import Outputs
    from app.engine.positions import Bounds
    from app.engine.recovery import Recovery
    from app.engine.restore import LogReader, Replica
    from app.engine.store import Store
    from app.engine.table import Table

__all__ = ["Host", "Services", "State"]

TP = tuple[str, int]


class State(StrEnum):
    """What a number is doing."""

    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"
    REFUSED = "refused"


class Services(Protocol):
    """What numbers share; the engine gives it.

    Attributes:
        stopped: Why, by agent and number, a runner was stopped by poison since the start of the process.
    """

    clock: Clock
    numbers_count: int
    agents: tuple[Agent, ...]
    outputs: Outputs
    reader: LogReader
    replicas: list[Replica[Any]]
    quarantine_topic: str
    recovery: Recovery
    stopped: dict[tuple[str, int], str]

    @property
    def checkpoint_interval_s(self) -> float:
        """The pause between two checkpoints of a number."""

    def changelog_topic(self, table: str) -> str:
        """The changelog of a table."""

    def new_changelog(self, number: int) -> Changelog:
        """A writer for one number."""

    def store(self, agent: Agent, number: int) -> Store:
        """The open store of an agent's number."""

    def partitions_of(self, number: int, agent: Agent) -> list[TP]:
        """The assigned source partitions."""

    async def confirm(self) -> bool:
        """Does the group still know our generation, asked now?"""

    def lease_valid(self) -> bool:
        """Was a heartbeat answered within the session timeout?"""

    async def topic_ids(self, topics: list[str]) -> dict[str, str]:
        """What the broker knows topics by; nothing on the embedded cluster."""

    async def bounds(self, partitions: Sequence[TP]) -> dict[TP, Bounds]:
        """What the broker says of source partitions."""

    async def commit_offsets(self, offsets: Mapping[TP, int]) -> None:
        """Copy positions to the group."""

    async def gap(self, topic: str, partition: int, first: int, next_: int) -> None:
        """Retention took `[first, next_)` before it was read."""

    def fresh(self, tables: Sequence[Table[Any]]) -> bool:
        """Whether the replicas of these tables were seen at the ends of their changelogs a moment ago."""

    def room(self) -> None:
        """Look again at what may be fetched."""

    def die(self, why: str, code: int) -> None:
        """End the process."""


class Host(Protocol):
    """What a runner needs of its number."""

    clock: Clock
    number: int

    def may_act(self) -> bool:
        """Whether something visible outside may start."""

    def reopen(self, why: str) -> None:
        """Drop everything that is not in the log, and open again."""

    async def checkpoint_now(self, agent: str) -> None:
        """Log everything of an agent that is merged so far."""

    def late_outputs_stand(self) -> bool:
        """Whether Kafka does not take what is sent late."""

    def room(self) -> None:
        """Records were finished: the number may be fetched again."""

    def fresh(self, tables: Sequence[Table[Any]]) -> bool:
        """See `Services.fresh`."""

    def runner_died(self, agent: str) -> None:
        """A bug of ours; the process must not go on pretending."""

    def store_failed(self, error: StoreError) -> None:
        """The local copy fails, and no record is at fault: open again, or end the process."""
