"""A vault's working day, small: events of all 22 types with plausible payloads, and a few records that are broken.

The same seed gives the same events, byte for byte. What they must lead to is counted in `app.devstack.tally`, from the
events alone.
"""

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import orjson

from app.events import VaultEventType, encode_structured, format_time, record_key, topic_of
from app.publishing import VaultEvent, checked

__all__ = ["MIN_EVENTS", "BrokenRecord", "Workload", "busiest_partition_bytes", "make_workload"]

MIN_EVENTS: Final = 23
"""One of each type, and a second dataset, which stays."""
EVENT_SPACING_MS: Final = 20
DATASETS_PER_EVENT: Final = 0.04
WAITING_ROW_BYTES: Final = 350
"""A row of a delivery that waits, besides the event in it."""
ENDED_ROW_BYTES: Final = 450

Payload = dict[str, Any]


@dataclass(frozen=True, slots=True)
class BrokenRecord:
    """A record that must end in quarantine.

    Attributes:
        reason: The quarantine reason of contracts 9.2 that it must get.
    """

    topic: str
    key: bytes
    value: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Workload:
    """What the demo publishes."""

    events: tuple[VaultEvent, ...]
    broken: tuple[BrokenRecord, ...]


@dataclass(frozen=True, slots=True)
class _Scene:
    """What an event may speak of."""

    rng: random.Random
    number: int
    time: str
    dataset: str

    def pick(self, *choices: Any) -> Any:
        return self.rng.choice(choices)

    def count(self) -> int:
        return self.rng.randint(1, 50_000)

    def id(self, kind: str) -> str:
        return f"{kind}-{self.rng.getrandbits(32):08x}"

    @property
    def person(self) -> str:
        return f"user-{self.rng.randint(1, 40)}"

    @property
    def policy(self) -> str:
        return f"pol-{self.rng.randint(1, 9)}"


def _dataset_created(scene: _Scene) -> Payload:
    return {
        "dataset_id": scene.dataset,
        "name": f"{scene.pick('claims', 'support-chats', 'contracts', 'clinical-notes')} {scene.number}",
        "version": "1.0.0",
        "tenant_id": f"tenant-{scene.rng.randint(1, 5)}",
        "created_by": scene.person,
        "schema": {
            "fields": [{"name": "text", "type": "string"}, {"name": "label", "type": scene.pick("int", "string")}]
        },
        "tags": ["nlp", {"key": "stage", "value": scene.pick("raw", "gold")}],
        "classification": scene.pick("public", "internal", "pii"),
    }


def _access(scene: _Scene) -> Payload:
    return {
        "principal_id": scene.person,
        "principal_type": "user",
        "resource_id": scene.dataset,
        "resource_type": "dataset",
        "action": scene.pick("read", "write", "export"),
    }


def _violation(scene: _Scene) -> Payload:
    return {
        "policy_id": scene.policy,
        "resource_id": scene.dataset,
        "principal_id": scene.person,
        "action": "export",
        "severity": scene.pick("low", "medium", "high", "critical"),
        "message": "export outside of the permitted region",
    }


_TYPE: Final = VaultEventType
_BUILDERS: Final[MappingProxyType[VaultEventType, tuple[int, Callable[[_Scene], Payload]]]] = MappingProxyType(
    {
        _TYPE.DATASET_CREATED: (0, _dataset_created),
        _TYPE.DATASET_DELETED: (0, lambda s: {"dataset_id": s.dataset, "deleted_by": s.person, "reason": "expired"}),
        _TYPE.DATASET_UPDATED: (
            8,
            lambda s: {"dataset_id": s.dataset, "version": f"1.{s.number}.0", "changed_fields": ["version"]},
        ),
        _TYPE.DATASET_ARCHIVED: (1, lambda s: {"dataset_id": s.dataset, "archived_by": s.person}),
        _TYPE.VERSION_CREATED: (
            8,
            lambda s: {"dataset_id": s.dataset, "version_id": s.id("ver"), "commit_hash": s.id("c"), "branch": "main"},
        ),
        _TYPE.VERSION_TAGGED: (
            3,
            lambda s: {"dataset_id": s.dataset, "version_id": s.id("ver"), "tag": s.pick("release", "candidate")},
        ),
        _TYPE.BRANCH_CREATED: (3, lambda s: {"dataset_id": s.dataset, "branch": s.id("work"), "from": "main"}),
        _TYPE.BRANCH_MERGED: (
            2,
            lambda s: {"dataset_id": s.dataset, "source_branch": s.id("work"), "target_branch": "main"},
        ),
        _TYPE.RECORDS_INGESTED: (
            16,
            lambda s: {"dataset_id": s.dataset, "record_count": s.count(), "batch_id": s.id("batch")},
        ),
        _TYPE.RECORDS_DELETED: (3, lambda s: {"dataset_id": s.dataset, "record_count": 1, "reason": "erasure"}),
        _TYPE.RECORDS_EXPORTED: (
            4,
            lambda s: {"dataset_id": s.dataset, "record_count": s.count(), "format": s.pick("jsonl", "parquet")},
        ),
        _TYPE.ANONYMIZATION_STARTED: (
            3,
            lambda s: {"dataset_id": s.dataset, "job_id": s.id("job"), "strategy": s.pick("mask", "tokenize")},
        ),
        _TYPE.ANONYMIZATION_COMPLETED: (
            3,
            lambda s: {"dataset_id": s.dataset, "job_id": s.id("job"), "status": "completed", "duration_ms": s.count()},
        ),
        _TYPE.PII_DETECTED: (
            6,
            lambda s: {"dataset_id": s.dataset, "pii_types": [s.pick("email", "phone", "name")], "detector": "ner"},
        ),
        _TYPE.ACCESS_GRANTED: (10, _access),
        _TYPE.ACCESS_REVOKED: (4, _access),
        _TYPE.ACCESS_DENIED: (5, lambda s: {**_access(s), "reason": "no matching policy"}),
        _TYPE.POLICY_VIOLATION: (4, _violation),
        _TYPE.RETENTION_EXPIRED: (
            2,
            lambda s: {"dataset_id": s.dataset, "policy_id": s.policy, "retention_days": s.pick(30, 90, 365)},
        ),
        _TYPE.COMPLIANCE_ALERT: (
            2,
            lambda s: {"framework": s.pick("gdpr", "hipaa"), "severity": "high", "message": "a review is overdue"},
        ),
        _TYPE.HEALTH_DEGRADED: (4, lambda s: {"component": s.pick("storage", "ner"), "latency_ms": s.count()}),
        _TYPE.HEALTH_RESTORED: (4, lambda s: {"component": s.pick("storage", "ner"), "duration_s": s.count()}),
    }
)
"""Weight and payload of each type; datasets are created and deleted by the plot, not by chance."""


def make_workload(count: int, *, seed: int, start_ms: int, prefix: str = "vault") -> Workload:
    """Events of all 22 types and five broken records.

    Datasets are created first, then spoken of, and a few are deleted last, so that every later event has a dataset.

    Args:
        count: How many events, at least `MIN_EVENTS`.
        seed: The same one gives the same events.
        start_ms: Time of the first event; the others follow.
        prefix: Of the topics that the broken records are for.

    Raises:
        ValueError: `count` is too small for one event of each type.
    """
    if count < MIN_EVENTS:
        raise ValueError(f"events: expected at least {MIN_EVENTS}, so that each type occurs, not {count}")
    rng = random.Random(seed)  # noqa: S311 - a workload, not a secret
    datasets = [f"ds-{rng.getrandbits(40):010x}" for _ in range(max(2, round(count * DATASETS_PER_EVENT)))]
    deleted = datasets[: max(1, len(datasets) // 10)]
    middle = count - len(datasets) - len(deleted)
    weighted = [kind for kind, (weight, _) in _BUILDERS.items() for _ in range(weight)]
    kinds = [kind for kind, (weight, _) in _BUILDERS.items() if weight]
    kinds += rng.choices(weighted, k=middle - len(kinds))
    rng.shuffle(kinds)
    plot = [(_TYPE.DATASET_CREATED, dataset) for dataset in datasets]
    plot += [(kind, rng.choice(datasets)) for kind in kinds]
    plot += [(_TYPE.DATASET_DELETED, dataset) for dataset in deleted]
    events = tuple(
        _event(kind, _Scene(rng, number, format_time(start_ms + number * EVENT_SPACING_MS), dataset))
        for number, (kind, dataset) in enumerate(plot)
    )
    return Workload(events, _broken(rng, prefix))


def busiest_partition_bytes(workload: Workload) -> int:
    """An upper estimate of what the workload writes to the partition of its busiest webhook, the one of everything.

    Its deliveries all have one key. Each is an intent, and in the changelog of deliveries at most a row with its body
    while it waits and a row without at the end; a delivery that is repeated to another webhook on the same partition
    adds a few rows more, which the sizes below make room for.
    """
    posted_bytes = sum(len(encode_structured(checked(event))) for event in workload.events)
    return 2 * posted_bytes + len(workload.events) * (WAITING_ROW_BYTES + ENDED_ROW_BYTES)


def _event(kind: VaultEventType, scene: _Scene) -> VaultEvent:
    service = str(kind).split(".")[2]
    return VaultEvent(
        id=str(uuid.UUID(int=scene.rng.getrandbits(128), version=4)),
        source=f"/vault/{service}",
        type=str(kind),
        time=scene.time,
        data=_BUILDERS[kind][1](scene),
        extensions={"correlationid": scene.id("req")},
    )


def _broken(rng: random.Random, prefix: str) -> tuple[BrokenRecord, ...]:
    def record(kind: VaultEventType, reason: str, change: Callable[[bytes], bytes]) -> BrokenRecord:
        whole = checked(_event(kind, _Scene(rng, 0, "2026-01-01T00:00:00.000Z", "ds-broken")))
        return BrokenRecord(topic_of(kind, prefix), record_key(whole), change(encode_structured(whole)), reason)

    return (
        record(_TYPE.RECORDS_INGESTED, "invalid_envelope", lambda value: value[: len(value) // 2]),
        record(_TYPE.VERSION_CREATED, "invalid_envelope", _without("source")),
        record(_TYPE.ACCESS_GRANTED, "invalid_envelope", lambda value: b'{"id":"twice",' + value[1:]),
        record(_TYPE.PII_DETECTED, "unknown_type", _with("type", "llm.data-vault.pii.imagined")),
        record(_TYPE.DATASET_UPDATED, "invalid_data", _with("data", {"version": "2.0.0"})),
    )


def _without(name: str) -> Callable[[bytes], bytes]:
    return lambda value: orjson.dumps({key: item for key, item in orjson.loads(value).items() if key != name})


def _with(name: str, item: Any) -> Callable[[bytes], bytes]:
    return lambda value: orjson.dumps({**orjson.loads(value), name: item})
