"""What is on a worker's disk is the fold of its changelogs, byte for byte, whatever happened to worker, disk or log."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from app.devstack.kafka import KafkaServer
from tests.support.digest import Digest, compaction
from tests.support.fold import FoldGroup, FoldWorker, until
from tests.support.nemesis import Nemesis, seed_of_run
from tests.support.report import report

pytestmark = pytest.mark.kafka

NUMBERS = 4
KEYS = 400
SESSION_S = 6.0
ENV = {"INDEX": "yes", "WRITE_BUFFER_BYTES": str(64 << 10), "SESSION": f"{SESSION_S:.0f}"}
WEEK_MS = 7 * 86_400_000


class Ledger:
    """Records of one topic, some of which delete their key; and what must come of them."""

    def __init__(self, group: FoldGroup, seed: int) -> None:
        self.group, self._chance = group, random.Random(seed)
        self.counts: Counter[bytes] = Counter()
        self.records = self.deleted = 0
        self._producer = Producer({"bootstrap.servers": group.brokers, "linger.ms": 20, "log_level": 0})

    def write(self, count: int) -> None:
        for _ in range(count):
            key = b"key-%04d" % self._chance.randrange(KEYS)
            self._put(key, b"delete" if self._chance.random() < 0.1 else b"count")
        assert self._producer.flush(60) == 0

    def delete(self, first: int, last: int) -> None:
        for number in range(first, last):
            self._put(b"key-%04d" % number, b"delete")
        assert self._producer.flush(60) == 0

    def _put(self, key: bytes, value: bytes) -> None:
        self._producer.produce(f"{self.group.app}.in", value, key)
        self._producer.poll(0)
        self.records += 1
        if value == b"delete":
            self.deleted += 1
            self.counts.pop(key, None)
        else:
            self.counts[key] += 1

    def settle(self) -> None:
        until(lambda: self.group.counted() == self.counts, 90, "counted exactly")


@pytest.fixture
def group(kafka: KafkaServer, unique: Callable[[str], str], tmp_path: Path) -> Iterator[FoldGroup]:
    group = FoldGroup(kafka.bootstrap, unique("digest"), tmp_path, numbers=NUMBERS, wide=NUMBERS)
    yield group
    group.close()


@pytest.fixture
def ledger(group: FoldGroup) -> Ledger:
    return Ledger(group, seed_of_run())


def all_ready(*workers: FoldWorker) -> None:
    until(lambda: all(w.ready for w in workers) and sum(len(w.numbers) for w in workers) == NUMBERS, 90, "ready")


def stop(*workers: FoldWorker) -> None:
    for worker in workers:
        until(lambda worker=worker: worker.status, 90, "it has started")
        assert worker.terminate() == 0


def restored(group: FoldGroup, name: str) -> None:
    """Starts a stopped worker alone, until it has everything, and stops it again."""
    worker = group.workers[name]
    worker.start()
    all_ready(worker)
    stop(worker)


@pytest.mark.parametrize(
    ("rounds", "records"),
    [pytest.param(1, 1_500, id="short"), pytest.param(6, 4_000, id="full", marks=pytest.mark.prove)],
)
def test_a_disk_that_was_kept_and_one_that_was_wiped_both_hold_the_fold_of_the_log(
    group: FoldGroup, ledger: Ledger, rounds: int, records: int
) -> None:
    digest, nemesis = Digest(group), Nemesis(group, seed_of_run(), session_s=SESSION_S)
    workers = group.start("w1", "w2", **ENV)
    all_ready(*workers)
    deeds = [nemesis.kill, nemesis.restart, lambda: nemesis.kill(wipe=True)]
    if rounds > 1:
        deeds.append(nemesis.zombie)
    for _ in range(rounds):
        nemesis.random.shuffle(deeds)
        for deed in deeds:
            ledger.write(records)
            deed()
    ledger.settle()
    all_ready(*workers)
    stop(*workers)

    truth = digest.everything()
    kept = digest.compare("w1", "w2")
    assert kept.differences == []
    assert kept.current == truth.keys()
    workers[0].wipe()
    restored(group, "w1")
    assert digest.on_disk("w1") == truth
    report(
        "Disks are the fold of the log",
        {
            "records": ledger.records,
            "deletions among them": ledger.deleted,
            "deeds": nemesis.done,
            "stores compared, stale copies included": kept.stores,
            "rows, engine rows and index keys compared": kept.rows,
            "differences": len(kept.differences),
        },
    )


def test_a_compacted_log_restores_the_same_rows_on_a_wiped_disk_and_on_an_old_one(
    group: FoldGroup, ledger: Ledger, tmp_path: Path
) -> None:
    digest = Digest(group)
    (worker,) = group.start("w1", **ENV)
    all_ready(worker)
    ledger.write(1_000)
    ledger.settle()
    stop(worker)
    digest.keep("w1", tmp_path / "old")

    worker.start()
    ledger.write(1_000)
    ledger.delete(0, 50)
    ledger.settle()
    long = digest.offsets()
    with compaction(group, tombstones_live_ms=WEEK_MS):
        ledger.write(200)
        ledger.settle()
        left = digest.until_compacted(long, tombstones=True)
    stop(worker)
    truth = digest.everything()
    assert digest.on_disk("w1") == truth

    worker.wipe()
    restored(group, "w1")
    assert digest.on_disk("w1") == truth

    # Its offset lies in what was compacted, and rows that it has were deleted since.
    digest.put_back("w1", tmp_path / "old")
    restored(group, "w1")
    assert digest.on_disk("w1") == truth
    assert "removed and restored" not in worker.log
    report("Compacted changelogs", {"offsets before": sum(long.values()) + len(long), "records left of them": left})


def old_disk_after_its_tombstones_are_gone(group: FoldGroup, ledger: Ledger, old: Path, **env: str) -> Digest:
    digest = Digest(group)
    (worker,) = group.start("w1", **ENV)
    all_ready(worker)
    ledger.write(500)
    ledger.settle()
    stop(worker)
    digest.keep("w1", old)

    worker.start()
    ledger.delete(0, KEYS // 2)
    ledger.settle()
    long = digest.offsets()
    with compaction(group, tombstones_live_ms=0):
        # The first pass keeps tombstones and says until when; the second takes them.
        for _ in range(3):
            ledger.write(20)
            ledger.settle()
        digest.until_compacted(long, tombstones=False)
    stop(worker)
    digest.put_back("w1", old)
    worker.env |= env
    restored(group, "w1")
    return digest


def test_a_disk_that_is_older_than_tombstones_live_is_restored_from_nothing(
    group: FoldGroup, ledger: Ledger, tmp_path: Path
) -> None:
    digest = old_disk_after_its_tombstones_are_gone(group, ledger, tmp_path / "old", STALE_AFTER="1")

    assert digest.on_disk("w1") == digest.everything()
    assert "unused for too long to trust its tombstones" in group.workers["w1"].log


@pytest.mark.prove
def test_a_disk_that_is_trusted_for_longer_keeps_rows_that_were_deleted(
    group: FoldGroup, ledger: Ledger, tmp_path: Path
) -> None:
    digest = old_disk_after_its_tombstones_are_gone(group, ledger, tmp_path / "old", STALE_AFTER="600000")

    truth, found = digest.everything(), digest.on_disk("w1")
    left = sum(len(found[of].keys() - truth[of].keys()) for of in truth)
    assert left
    report("Tombstones compacted away before an old disk saw them", {"rows and index keys that should be gone": left})


@pytest.mark.prove
def test_a_disk_is_ahead_of_the_log_if_rows_are_written_before_the_changelog(group: FoldGroup, ledger: Ledger) -> None:
    (worker,) = group.start("w1", BROKEN="rows_before_changelog", FAULT="checkpoint:begun:8:kill", **ENV)
    all_ready(worker)
    for _ in range(8):
        ledger.write(100)
        until(lambda: worker.process.poll() is not None or group.counted() == ledger.counts, 90, "counted or dead")
    until(lambda: worker.process.poll() is not None, 90, "killed")

    compared = Digest(group).compare("w1")

    assert compared.differences
    report("Rows written before the changelog", {"rows that differ": len(compared.differences)})
