"""The rights that Kafka must give, once: the command, the user for Strimzi and the table in docs/security.md are these.

`Read` and `Write` of Kafka's authorizer imply `Describe`, and `Write` on a topic implies the idempotent producer, so a
worker is given neither: a right that nobody would miss is one too many.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.topics.names import Topics

__all__ = ["Acl", "AclRole", "acls_of", "kafka_acls"]


class AclRole(StrEnum):
    """Who is given rights."""

    WORKER = "worker"
    TOPICS = "topics"
    PUBLISHER = "publisher"


@dataclass(frozen=True, slots=True)
class Acl:
    """One right.

    Attributes:
        why: What is done with it.
        prefix: Whether it holds for every name that begins so, rather than for that name alone.
    """

    resource: Literal["topic", "group", "transactionalId"]
    name: str
    operation: Literal["Read", "Write", "Create", "Describe", "DescribeConfigs"]
    why: str
    prefix: bool = True

    def __str__(self) -> str:
        return f"{self.operation} on {self.resource} {self.name}{'*' if self.prefix else ''}"


def acls_of(role: AclRole, topics: Topics) -> tuple[Acl, ...]:
    """The rights of a role, for the topics of one deployment."""
    return _ROLES[role](topics)


def kafka_acls(acl: Acl, principal: str) -> str:
    """What follows `kafka-acls --bootstrap-server …` to give a right."""
    kind = {"transactionalId": "--transactional-id"}.get(acl.resource, f"--{acl.resource}")
    pattern = " --resource-pattern-type prefixed" if acl.prefix else ""
    return (
        f"--add --allow-principal {shlex.quote(principal)} --operation {acl.operation} {kind} {shlex.quote(acl.name)}"
        + pattern
    )


_COMPARES: Final = "each start compares partitions, retention, compaction and size limits with the plan"


def _worker(topics: Topics) -> tuple[Acl, ...]:
    own, logged = f"{topics.prefix}.", f"{topics.app_id}-"
    return (
        Acl("topic", own, "Read", "events, deliveries, commands, audit, registry, quarantine"),
        Acl("topic", own, "Write", "the same; vault topics by `POST /v1/events` and by what is republished"),
        Acl("topic", own, "DescribeConfigs", _COMPARES),
        Acl("topic", logged, "Read", "tables and positions are restored from the changelogs"),
        Acl("topic", logged, "Write", "checkpoints"),
        Acl("topic", logged, "DescribeConfigs", _COMPARES),
        Acl("group", topics.app_id, "Read", "workers share the partitions out; offsets are copied there", prefix=False),
        Acl("transactionalId", logged, "Write", "checkpoints, what is republished, `positions reset`"),
    )


def _topics(topics: Topics) -> tuple[Acl, ...]:
    names = (f"{topics.prefix}.", f"{topics.app_id}-")
    return (
        *(Acl("topic", name, "Create", "topics that are missing") for name in names),
        *(Acl("topic", name, "Describe", "which are there") for name in names),
        *(Acl("topic", name, "DescribeConfigs", "how they are configured") for name in names),
    )


def _publisher(topics: Topics) -> tuple[Acl, ...]:
    return (
        Acl("topic", f"{topics.prefix}.llm-", "Write", "a topic for each type"),
        Acl("topic", topics.events, "Write", "the layout `single`", prefix=False),
    )


_ROLES: Final[dict[AclRole, Callable[[Topics], tuple[Acl, ...]]]] = {
    AclRole.WORKER: _worker,
    AclRole.TOPICS: _topics,
    AclRole.PUBLISHER: _publisher,
}
