"""The records that all contenders read: valid vault events of 450 bytes, in one topic of 8 partitions."""

import random
from collections.abc import Iterator
from typing import Final

from app.events import STRUCTURED_HEADERS, VaultEventType, new_event, partition_for, topic_of
from benchmarks.filling import fill

__all__ = ["EVENT_TYPE", "PARTITIONS", "PREFIX", "RECORD_BYTES", "SOURCE_TOPIC", "make_records", "preload"]

PREFIX: Final = "bench"
PARTITIONS: Final = 8
RECORD_BYTES: Final = 450
DATASETS: Final = 1_000
# Of this type the router makes one audit record and one intent for each webhook, and nothing else.
EVENT_TYPE: Final = VaultEventType.ANONYMIZATION_STARTED
SOURCE_TOPIC: Final = topic_of(EVENT_TYPE, PREFIX)

_ID: Final = "########"
_WORDS: Final = [
    *("a", "again", "all", "by", "column", "columns", "customer", "customers", "export", "for", "from", "job"),
    *("masked", "names", "nightly", "of", "on", "one", "partition", "partner", "quarter", "region", "replaced"),
    *("request", "row", "rows", "sample", "share", "started", "table", "team", "the", "to", "under", "week", "without"),
]


def make_records(count: int) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of as many records; every event has an id of its own and one of 1,000 datasets."""
    rng = random.Random(1)
    datasets = [f"ds-{number:04d}" for number in range(DATASETS)]
    pieces = [_event(dataset, rng).split(_ID.encode()) for dataset in datasets]
    keys = [dataset.encode() for dataset in datasets]
    for number in range(count):
        at = number * 7 % DATASETS
        yield keys[at], (b"%08x" % number).join(pieces[at])


def _event(dataset: str, rng: random.Random) -> bytes:
    """An event of that dataset, with `_ID` in the places of its own id, filled up with words to `RECORD_BYTES`."""
    words = " ".join(rng.choice(_WORDS) for _ in range(RECORD_BYTES))
    bare = _posted(dataset, rng, "")
    return _posted(dataset, rng, words[: RECORD_BYTES - len(bare)])


def _posted(dataset: str, rng: random.Random, note: str) -> bytes:
    event = new_event(
        id=f"evt-{_ID}",
        source="/vault/anonymizer/eu-1",
        type=EVENT_TYPE,
        subject=dataset,
        time=f"2026-01-31T23:{rng.randrange(10, 60)}:{rng.randrange(10, 60)}.{rng.randrange(100, 1000)}Z",
        data={
            "dataset_id": dataset,
            "job_id": f"job-{_ID}",
            "policy_id": f"pol-{rng.randrange(10)}",
            "strategy": "k-anonymity",
            "requested_by": f"user-{rng.randrange(100, 1000)}",
            "record_count": rng.randrange(10_000, 100_000),
            "note": note,
        },
    )
    return event.posted


def preload(brokers: str, count: int) -> None:
    """Fill the source topic, uncompressed, and wait until it is all there.

    Raises:
        BenchmarkFailed: The broker has not taken it all.
    """
    records = ((partition_for(key, PARTITIONS), key, value) for key, value in make_records(count))
    fill(brokers, SOURCE_TOPIC, records, STRUCTURED_HEADERS)
