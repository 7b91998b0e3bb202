"""One number of the registry agent between a log and a registry, with crashes that cost what no checkpoint has."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import orjson

from agents.registry import RegistryOptions, registry_agent
from app.devstack.registry_standin import RegistryBook
from app.engine import Processor, Record
from app.events import canonical_json, format_time
from app.integrations.registry import DatasetRow, document
from app.integrations.registry_messages import SYNC_ASKED, key_of_number, link_message, sync_message
from app.integrations.registry_sync import SyncMode
from app.topics import Topics
from tables.datasets import DATASETS, DatasetReaders, dataset_key
from tests.support.fake_registry import FakeRegistry
from tests.support.memory_unit import START_MS, FakeClock, MemoryContext, record

TOPICS = Topics("vault", "vs")
SOURCE = "/vault-stream/vs"


class SavingContext(MemoryContext):
    """Remembers what a checkpoint makes safe."""

    save: Callable[[], None]

    async def checkpoint(self) -> None:
        await super().checkpoint()
        self.save()


@dataclass(eq=False)
class RegistryWorld:
    """Attributes:
    log: Every record of `registry.datasets`.
    position: The next one to be read.
    """

    mode: SyncMode = SyncMode.BOTH
    interval_s: float = 10.0
    clock: FakeClock = field(default_factory=FakeClock)
    log: list[Record] = field(default_factory=list)
    position: int = 0

    def __post_init__(self) -> None:
        self.registry = FakeRegistry(RegistryBook(now_ms=self.clock.now_ms, page_items=3))
        self.readers = DatasetReaders()
        self.context: SavingContext = SavingContext(clock=self.clock)
        self.processor: Processor | None = None
        self.changes: list[dict[str, Any]] = []
        self._saved: tuple[dict[str, dict[bytes, bytes]], int] = ({}, 0)
        self._taken = 0
        self._ids = count()

    @property
    def book(self) -> RegistryBook:
        return self.registry.book

    # -- the worker

    async def open(self) -> None:
        self.context.save = self.save
        options = RegistryOptions(mode=self.mode, interval_s=self.interval_s)
        agent = registry_agent(TOPICS, self.registry, options, readers=self.readers, jitter=lambda: 1.0)
        self.processor = agent.processor(self.context)
        await self.context.open(self.processor)

    def save(self) -> None:
        """A checkpoint: rows and position together."""
        self._saved = ({name: dict(rows) for name, rows in self.context.rows.of.items()}, self.position)

    async def crash(self) -> None:
        """The worker dies; another one begins at the last checkpoint."""
        await self.close()
        self.context = SavingContext(clock=self.clock)
        rows, self.position = copy.deepcopy(self._saved)
        self.context.rows.of.update(rows)
        self._taken = 0
        await self.open()

    async def close(self) -> None:
        self._take_sent()
        await self.context.close(self.processor)

    async def read(self, records: int = 256) -> None:
        """One slice."""
        assert self.processor is not None
        self._take_sent()
        slice_ = self.log[self.position : self.position + records]
        if slice_:
            self.position += len(slice_)
            await self.context.deliver(self.processor, *slice_)

    async def turn(self) -> None:
        """What is due runs, and what comes of it is read, until nothing more comes."""
        assert self.processor is not None
        while True:
            await self.context.settle(self.processor)
            self._take_sent()
            if self.position == len(self.log):
                return
            await self.read()

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await self.turn()

    async def calm(self) -> None:
        """Long enough for every back-off, and for two pulls."""
        for _ in range(8):
            await self.advance(1)
            await self.advance(61)

    def _take_sent(self) -> None:
        for sent in self.context.sent[self._taken :]:
            if sent.topic == TOPICS.registry_datasets:
                self.append(sent.value, sent.key, sent.headers)
            elif sent.topic == TOPICS.registry_changes:
                self.changes.append(orjson.loads(sent.value or b""))
        self._taken = len(self.context.sent)

    # -- what comes in

    def append(self, value: bytes | None, key: bytes | None, headers: Any = ()) -> None:
        topic, at = TOPICS.registry_datasets, self.clock.now_ms()
        self.log.append(record(value, topic=topic, offset=len(self.log), key=key, headers=headers, timestamp=at))

    def vault(self, type_: str, dataset_id: str = "ds-1", *, at_ms: int | None = None, **data: Any) -> None:
        """An event of the vault; its time is now, unless said."""
        at = self.clock.now_ms() if at_ms is None else at_ms
        event = {
            "specversion": "1.0",
            "id": f"e-{next(self._ids)}",
            "source": "/vault",
            "type": f"llm.data-vault.{type_}",
            "time": format_time(at),
            "data": {"dataset_id": dataset_id, **data},
        }
        self.append(canonical_json(event), dataset_id.encode())

    def created(self, dataset_id: str = "ds-1", **data: Any) -> None:
        self.vault("dataset.created", dataset_id, **{"name": "Claims", "version": "1", **data})

    def link(self, dataset_id: str, model_id: str, relationship: str = "training_data") -> None:
        value = link_message(
            id_=f"l-{next(self._ids)}",
            source=SOURCE,
            at_ms=self.clock.now_ms(),
            dataset_id=dataset_id,
            model_id=model_id,
            relationship=relationship,
        )
        self.append(value, dataset_id.encode())

    def ask(self, sync_id: str, mode: SyncMode) -> None:
        value = sync_message(SYNC_ASKED, sync_id, mode, SOURCE, self.clock.now_ms())
        self.append(value, key_of_number(0, 1))

    # -- what there is

    def row(self, dataset_id: str = "ds-1") -> DatasetRow:
        row = self.context.rows.get(DATASETS, dataset_key(dataset_id))
        assert row is not None
        return row

    def rows(self) -> dict[str, DatasetRow]:
        return {row.id: row for row in self.context.rows.all(DATASETS).values() if row.cursor is None}

    def ours(self) -> dict[str, dict[str, Any]]:
        """Every dataset as the vault has it."""
        told = {id_: document(row) for id_, row in self.rows().items()}
        return {id_: found for id_, found in told.items() if found is not None}

    def theirs(self) -> dict[str, dict[str, Any]]:
        """Every dataset as the registry has it."""
        return self.book.datasets

    def kinds(self, dataset_id: str = "ds-1") -> list[str]:
        """What others were told of a dataset."""
        short = "llm.vault-stream.registry."
        told = [change for change in self.changes if change["data"]["dataset_id"] == dataset_id]
        return [change["type"].removeprefix(short) for change in told]

    def conflicts(self) -> list[dict[str, Any]]:
        return [change["data"]["conflict"] for change in self.changes if change["type"].endswith("conflict")]


__all__ = ["SOURCE", "START_MS", "TOPICS", "RegistryWorld"]
