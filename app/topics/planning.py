"""What each topic must look like, and how a broker's topics compare (architecture 2, contracts 8.1)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Protocol

from app.topics.names import TABLES, Topics

DAY_MS: Final = 24 * 60 * 60 * 1000
RECORD_MAX_BYTES: Final = 1024 * 1024 + 12
"""What Kafka allows by default (1 MiB and the header of a batch): a row is 512 KiB at most, an event 256 KiB."""
QUARANTINE_MAX_BYTES: Final = 2 * 1024 * 1024
"""A source record of 1 MiB plus our headers must fit, or the router would stand on it for ever (contracts 9.2)."""

THREE_BROKERS: Final = 3
"""From this many brokers on, one replica should be somebody's decision."""

AT_LEAST: Final = frozenset({"retention.ms", "delete.retention.ms", "max.message.bytes", "min.insync.replicas"})
"""Settings of which more than the plan asks for is no difference."""

_FORGETTING: Final = frozenset({"retention.ms", "retention.bytes", "message.timestamp.type"})
"""What decides how long an invalidation is there for a worker that starts, and from when on it counts."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """What one topic must look like.

    Attributes:
        foreign: the vault's services own it: any number of partitions will do, and of the configuration only the
            retention is our business.
    """

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]
    foreign: bool = False


@dataclass(frozen=True, slots=True)
class ExistingTopic:
    """What a broker says of a topic; `config` is None where the broker does not describe topics."""

    partitions: int
    replication: int
    config: Mapping[str, str] | None = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Difference:
    """One way in which the broker differs from the plan; `what` is `topic`, `partitions`, … or a setting's name."""

    topic: str
    what: str
    wanted: str
    found: str | None

    @property
    def missing(self) -> bool:
        """Whether the topic is not there at all: the one difference that `apply` removes."""
        return self.what == "topic"

    def __str__(self) -> str:
        if self.missing:
            return f"{self.topic}: missing ({self.wanted})"
        return f"{self.topic}: {self.what} is {self.found}, wanted {self.wanted}"


class TopicBroker(Protocol):
    """What `check` and `apply` need of a broker; `TopicAdmin` is the real one."""

    def existing(self, names: Sequence[str]) -> Mapping[str, ExistingTopic]: ...  # noqa: D102 - see TopicAdmin
    def create(self, specs: Sequence[TopicSpec]) -> None: ...  # noqa: D102 - see TopicAdmin


def plan(
    topics: Topics, *, partitions: int, replication: int, audit_retention_d: float = 365, policy_ttl_s: float = 300
) -> tuple[TopicSpec, ...]:
    """All topics of architecture 2 with their partitions, replication and configuration.

    Args:
        topics: the names.
        partitions: N, the number of numbers; every topic of ours has it, but `policy.invalidations`, which has one.
        replication: copies of each partition.
        audit_retention_d: days that the audit topic is kept.
        policy_ttl_s: the longest time that a policy decision may be cached; invalidations are kept twice as long.
    """
    durable = {
        "min.insync.replicas": str(max(1, replication - 1)),
        "unclean.leader.election.enable": "false",
    }

    def spec(
        name: str,
        days: float,
        extra: Mapping[str, str] | None = None,
        *,
        count: int = partitions,
        foreign: bool = False,
    ) -> TopicSpec:
        config = {
            "cleanup.policy": "delete",
            "retention.ms": str(round(days * DAY_MS)),
            "max.message.bytes": str(RECORD_MAX_BYTES),
            **durable,
            **(extra or {}),
        }
        return TopicSpec(name, count, replication, MappingProxyType(config), foreign)

    whole = {"retention.bytes": "-1"}  # brokers may have a default
    broker_clock = {"message.timestamp.type": "LogAppendTime"}
    compacted = {
        "cleanup.policy": "compact",
        "min.cleanable.dirty.ratio": "0.1",
        "delete.retention.ms": str(7 * DAY_MS),
        "max.message.bytes": str(RECORD_MAX_BYTES),
        **durable,
    }
    return (
        *(spec(name, 7, foreign=True) for name in topics.vault),
        spec(topics.deliveries, 7),
        spec(topics.commands, 7, broker_clock),
        spec(topics.attempts, 30),
        spec(topics.dead_letters, 30),
        spec(topics.audit, audit_retention_d, whole),
        spec(topics.violations, 30),
        spec(topics.decisions, 7),
        spec(topics.invalidations, 2 * policy_ttl_s * 1000 / DAY_MS, broker_clock | whole, count=1),
        spec(topics.registry_datasets, 7),
        spec(topics.registry_changes, 30),
        spec(topics.quarantine, 30, {"max.message.bytes": str(QUARANTINE_MAX_BYTES)}),
        *(TopicSpec(topics.changelog(name), partitions, replication, MappingProxyType(compacted)) for name in TABLES),
    )


def check(specs: Iterable[TopicSpec], broker: TopicBroker) -> tuple[Difference, ...]:
    """How the broker differs from the plan, in the plan's order; empty when nothing is to do.

    More than the plan asks for (a longer retention, more replicas) is no difference. Of a topic that the broker does
    not describe (the embedded cluster, which also counts partitions its own way) only the presence is checked.
    """
    wanted = tuple(specs)
    found = broker.existing([spec.name for spec in wanted])
    return tuple(difference for spec in wanted for difference in _compare(spec, found.get(spec.name)))


def apply(specs: Iterable[TopicSpec], broker: TopicBroker) -> tuple[Difference, ...]:
    """Creates the topics that are missing; returns the differences that remain, which are for an operator to judge.

    Raises:
        TopicCreationError: the broker refused at least one; the others exist.
        BrokerUnreachableError: no broker answered.
    """
    wanted = tuple(specs)
    differences = check(wanted, broker)
    missing = {difference.topic for difference in differences if difference.missing}
    if not missing:
        return differences
    broker.create([spec for spec in wanted if spec.name in missing])
    return check(wanted, broker)


def refusal(difference: Difference, topics: Topics, brokers: str) -> str | None:
    """Why no worker may start while this differs, and what to do, in one line; None: it may.

    Args:
        brokers: `host:port`, separated by commas.
    """
    if difference.what == "partitions":
        return f"{difference}; another number of partitions means another VAULT_STREAM_APP_ID"
    if difference.topic != topics.invalidations or difference.what not in _FORGETTING:
        return None
    return (
        f"{difference}; a worker that starts would not know of a revocation that ends a kept decision. Run"
        f" kafka-configs.sh --bootstrap-server {brokers} --alter --entity-type topics"
        f" --entity-name {difference.topic} --add-config {difference.what}={difference.wanted}"
    )


def warnings(*, replication: int, broker_count: int) -> tuple[str, ...]:
    """What an operator should know about the plan before trusting it, one line each."""
    if replication == 1 and broker_count >= THREE_BROKERS:
        loss = f"REPLICATION is 1 on {broker_count} brokers: the loss of one broker loses partitions"
        return (f"{loss}. Set VAULT_STREAM_REPLICATION=3.",)
    return ()


def _compare(spec: TopicSpec, found: ExistingTopic | None) -> Iterable[Difference]:
    if found is None:
        yield Difference(spec.name, "topic", f"{spec.partitions} partitions, replication {spec.replication}", None)
        return
    if found.config is None:
        return
    if found.partitions != spec.partitions and not spec.foreign:
        yield Difference(spec.name, "partitions", str(spec.partitions), str(found.partitions))
    if found.replication < spec.replication and not spec.foreign:
        yield Difference(spec.name, "replication", str(spec.replication), str(found.replication))
    for key, value in spec.config.items():
        if spec.foreign and key != "retention.ms":
            continue
        has = found.config.get(key)
        if not _satisfies(key, has, value):
            yield Difference(spec.name, key, value, "unset" if has is None else has)


def _satisfies(key: str, found: str | None, wanted: str) -> bool:
    if found is None or found == wanted:
        return found == wanted
    if key in AT_LEAST:
        forever = key == "retention.ms" and found == "-1"
        return forever or int(found) >= int(wanted)
    with contextlib.suppress(ValueError):  # brokers print 0.1 in their own way
        return float(found) == float(wanted)
    return False
