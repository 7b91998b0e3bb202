"""What the workers of a fold group have on their disks, against their changelogs; and compaction of these on demand."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from tests.support.fold import FoldGroup, until
from tests.support.rebuild import Comparison, Rebuild, Rows, read_store
from tests.system.fold_worker import NONE, Count, Table, by_count

COUNTS = Table("counts", 1, Count, index=by_count)
FOLD_AGENTS = {"fold": (COUNTS,), "relay": (NONE,)}
"""The tables of a fold worker with `INDEX`."""


class Digest:
    """The disks of one group."""

    def __init__(self, group: FoldGroup) -> None:
        self.group = group

    def changelog(self, table: str) -> str:
        return f"{self.group.app}-{table}-changelog"

    def rebuild(self) -> Rebuild:
        """The fold of the changelogs as they are now."""
        return Rebuild(self.group.brokers, self, FOLD_AGENTS)

    def everything(self) -> dict[tuple[str, int], Rows]:
        """That fold, of all agents and numbers."""
        rebuild = self.rebuild()
        return {(agent, n): rebuild.rows(agent, n) for agent in FOLD_AGENTS for n in range(self.group.numbers)}

    def compare(self, *names: str) -> Comparison:
        """Every store of these workers, stale ones too, with the fold up to the offset that it names."""
        return self.rebuild().compare(*(self.group.workers[name].dir for name in names))

    def on_disk(self, name: str) -> dict[tuple[str, int], Rows]:
        """Byte for byte, what a stopped worker has; facts about its copy left out."""
        found = {}
        for store in (self.group.workers[name].dir / "state").iterdir():
            agent, _, number = store.name.rpartition("-")
            found[agent, int(number)] = read_store(store)[0]
        return found

    def keep(self, name: str, to: Path) -> None:
        """A copy of a stopped worker's disk."""
        shutil.copytree(self.group.workers[name].dir / "state", to)

    def put_back(self, name: str, kept: Path) -> None:
        """A stopped worker finds its old disk."""
        self.group.workers[name].wipe()
        shutil.copytree(kept, self.group.workers[name].dir / "state")

    def offsets(self) -> dict[tuple[str, int], int]:
        """The last offset that each changelog partition shows, by topic and partition."""
        found: dict[tuple[str, int], int] = {}
        for table in ("counts", "positions"):
            for message in self.group.read(self.changelog(table), self.group.numbers):
                found[message.topic(), message.partition()] = message.offset()
        return found

    def until_compacted(self, before: dict[tuple[str, int], int], *, tombstones: bool) -> int:
        """Waits until nothing that compaction can take is left up to these offsets; how many records are left there.

        Args:
            tombstones: Whether they stay.
        """

        def compacted() -> list[bytes]:
            old = [
                (message.topic(), message.partition(), message.key(), message.value())
                for table in ("counts", "positions")
                for message in self.group.read(self.changelog(table), self.group.numbers)
                if message.offset() <= before.get((message.topic(), message.partition()), -1)
            ]
            whole = len(old) == len({record[:3] for record in old})
            return [record[2] for record in old] if whole and (tombstones or all(r[3] is not None for r in old)) else []

        return len(until(compacted, 90, "the changelogs are compacted"))


@contextmanager
def compaction(group: FoldGroup, *, tombstones_live_ms: int) -> Iterator[None]:
    """Within, the broker compacts the changelogs of the group as soon as anything was written after."""
    topics = [f"{group.app}-{table}-changelog" for table in ("counts", "positions")]
    settings = {
        "segment.ms": "50",
        "min.cleanable.dirty.ratio": "0.0",
        "delete.retention.ms": str(tombstones_live_ms),
    }
    _configure(group.admin, ConfigResource.Type.BROKER, "1", {"log.cleaner.backoff.ms": "100"})
    for topic in topics:
        _configure(group.admin, ConfigResource.Type.TOPIC, topic, settings)
    try:
        yield
    finally:
        _configure(group.admin, ConfigResource.Type.BROKER, "1", {"log.cleaner.backoff.ms": None})


def _configure(admin: AdminClient, kind: ConfigResource.Type, name: str, settings: dict[str, str | None]) -> None:
    entries = [
        ConfigEntry(
            key,
            value,
            incremental_operation=AlterConfigOpType.DELETE if value is None else AlterConfigOpType.SET,
        )
        for key, value in settings.items()
    ]
    resource = ConfigResource(kind, name, incremental_configs=entries)
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(20)
