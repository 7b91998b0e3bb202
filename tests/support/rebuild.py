"""Tables as the changelogs alone have them, against what workers left on their disks. Independent of the engine."""

import struct
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import rocksdict
from confluent_kafka import Message

from app.engine import Table
from tables.audit import AUDIT
from tables.datasets import DATASETS
from tables.decisions import DECISIONS
from tables.deliveries import DELIVERIES
from tables.positions import POSITIONS
from tables.webhooks import WEBHOOKS
from tests.support.workers import read_topic

AGENTS: dict[str, tuple[Table, ...]] = {
    "router": (POSITIONS,),
    "violations": (POSITIONS,),
    "decisions": (DECISIONS,),
    "webhooks": (DELIVERIES, WEBHOOKS),
    "governance": (AUDIT,),
    "registry": (DATASETS,),
}
APPLIED = b"\xffapplied/"

Rows = dict[bytes, bytes]


@dataclass
class Comparison:
    """What was compared, and what differed."""

    stores: int = 0
    rows: int = 0
    current: set[tuple[str, int]] = field(default_factory=set)
    """Agents and numbers of which some disk has everything that the changelogs have."""
    differences: list[str] = field(default_factory=list)


class Changelogs(Protocol):
    """Where the changelogs of a deployment are."""

    def changelog(self, table: str) -> str:
        """The topic of a table."""


class Rebuild:
    """The committed changelogs of a deployment, ours unless it has other agents. Blocks while it reads them."""

    def __init__(self, brokers: str, topics: Changelogs, agents: Mapping[str, tuple[Table, ...]] | None = None) -> None:
        self._logs: defaultdict[tuple[str, int], list[Message]] = defaultdict(list)
        self._topics = topics
        self.agents = AGENTS if agents is None else agents
        tables = {table for tables in self.agents.values() for table in tables}
        for message in read_topic(brokers, *(topics.changelog(table.name) for table in tables)):
            self._logs[message.topic(), message.partition()].append(message)

    def rows(self, agent: str, number: int, applied: dict[str, int] | None = None) -> Rows:
        """Rows, engine rows and index of one agent's number, up to these offsets; None: all there is."""
        rows: Rows = {}
        for table in self.agents[agent]:
            topic = self._topics.changelog(table.name)
            for message in self._logs[topic, number]:
                if applied is not None and message.offset() >= applied.get(topic, 0):
                    break
                key = _store_key(agent, table, message.key())
                if key is None:
                    continue
                if message.value() is None:
                    rows.pop(key, None)
                else:
                    rows[key] = message.value()
        index = {
            place: key
            for table in self.agents[agent]
            for key, value in rows.items()
            if key[0] == table.prefix
            for place in table.index_of(key, value)
        }
        return rows | index

    def compare(self, *data_dirs: Path) -> Comparison:
        """Every store on these disks with the rebuild, byte for byte."""
        result = Comparison()
        for store in sorted(path for data_dir in data_dirs for path in (data_dir / "state").iterdir()):
            agent, _, number = store.name.rpartition("-")
            found, applied = read_store(store)
            wanted = self.rows(agent, int(number), applied)
            result.stores += 1
            result.rows += len(wanted)
            wrong = {key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key)}
            result.differences += [f"{store}: {key!r}" for key in sorted(wrong)]
            if found == self.rows(agent, int(number)):
                result.current.add((agent, int(number)))
        return result


def read_store(path: Path) -> tuple[Rows, dict[str, int]]:
    """Everything in a store but its notes about this copy; and the applied offset of each changelog."""
    database = rocksdict.Rdict(
        str(path), rocksdict.Options(raw_mode=True), access_type=rocksdict.AccessType.read_only()
    )
    everything: Rows = {}
    rows = database.iter()
    rows.seek_to_first()
    while rows.valid():
        everything[rows.key()] = rows.value()
        rows.next()
    # It ends without a word at what it cannot read.
    rows.status()
    del rows
    database.close()
    applied = {
        key.removeprefix(APPLIED).decode(): struct.unpack(">q", value)[0]
        for key, value in everything.items()
        if key.startswith(APPLIED)
    }
    return {key: value for key, value in everything.items() if key[0] != 0xFF}, applied


def _store_key(agent: str, table: Table, key: bytes) -> bytes | None:
    """Where a changelog record lies in the store; None: it is an engine row of another agent."""
    if key[:1] != b"\x00":
        return table.prefix_byte + key
    return key if key.endswith(b"/" + agent.encode()) else None
