"""The registry's routes over one number that a world plays, at its owner or at a worker that has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from aiohttp import web

from app.engine import Owner, Ownership
from app.integrations.registry import DatasetRow
from app.integrations.registry_sync import SyncMode
from app.web import Forwarder
from app.web.registry import RegistryApi, registry_routes
from tables.datasets import DatasetReaders
from tests.support.memory_unit import START_MS
from tests.support.registry_world import SOURCE, TOPICS, RegistryWorld


@dataclass
class WorldLog:
    """What is sent comes to the world; `failure` is raised in its place."""

    world: RegistryWorld | None = None
    failure: Exception | None = None

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()
    ) -> tuple[int, int]:
        if self.failure is not None:
            raise self.failure
        assert topic == TOPICS.registry_datasets
        if self.world is not None:
            self.world.append(value, key, headers)
        return 0, 0


@dataclass
class NoDatasets:
    """A reader of a number that has none."""

    async def dataset(self, dataset_id: str) -> DatasetRow | None:
        return None

    async def sync(self, sync_id: str) -> None:
        return None

    async def syncs(self) -> tuple[list[str], int]:
        return [], 0


@dataclass
class RegistryWorker:
    """A worker that owns the one number, or another one does."""

    readers: DatasetReaders
    log: WorldLog = field(default_factory=WorldLog)
    owns: bool = True
    off: bool = False
    now_ms: int = START_MS

    def __post_init__(self) -> None:
        self.ownership = Ownership(1, lambda _: self.owns)
        self.forwarder = Forwarder(self.ownership)

    def know(self, url: str) -> None:
        """Who owns the number."""
        self.ownership.update({0: Owner("w-owner", url)})

    def routes(self) -> list[web.RouteDef]:
        api = RegistryApi(
            readers=self.readers,
            ownership=self.ownership,
            forwarder=self.forwarder,
            outputs=self.log,
            datasets=TOPICS.registry_datasets,
            source=SOURCE,
            mode=SyncMode.PUSH,
            off=self.off,
            now_ms=lambda: self.now_ms,
            random_bytes=bytes,
        )
        return registry_routes(api)


def quiet_registry_routes() -> list[web.RouteDef]:
    """The routes of a worker that has no dataset, and sends nothing anywhere."""
    readers = DatasetReaders()
    readers.opened(0, NoDatasets())
    return RegistryWorker(readers).routes()
