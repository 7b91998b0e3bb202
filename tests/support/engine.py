"""Records, and a unit's surroundings, without Kafka."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from app.engine import Message, OutputFailed, Table
from app.engine.staging import Staging
from app.engine.store import LAST_USED, Store
from app.engine.unit import Scope


@dataclass(frozen=True)
class FakeRecord:
    topic: str = "in"
    partition: int = 0
    offset: int = 0
    timestamp: int = 1_000
    key: bytes | None = b"k"
    value: bytes | None = b"v"
    headers: Sequence[tuple[str, bytes]] = ()


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    n: int = 0
    tag: str = ""


ROWS = Table("rows", 1, Row, index=lambda key, row: [b"tag/" + row.tag.encode() + b"/" + key] if row.tag else [])


@dataclass
class RecordingOutputs:
    """Takes what a unit sends; `fail` next calls raise first."""

    sent: list[Message] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)

    async def send_many(self, messages: Sequence[Message]) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.sent += messages

    async def send_each(self, messages: Sequence[Message]) -> list[OutputFailed | None]:
        self.sent += messages
        return [None] * len(messages)


def new_store(path: Path) -> Store:
    return Store(path / "db", [ROWS], stale_after_s=3600)


def age(store: Store) -> None:
    """As if it had last been up to date in 1970."""
    store._db.put(LAST_USED, bytes(8) + store._db.get(LAST_USED)[8:])


def new_scope(store: Store, outputs: RecordingOutputs | None = None) -> Scope:
    touched: list[None] = []
    return Scope("agent", Staging(store), outputs or RecordingOutputs(), "quarantine", lambda: touched.append(None))
