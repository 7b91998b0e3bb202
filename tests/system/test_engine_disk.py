"""A worker whose disk is bad: its rows are restored from the log, or it ends with one line; no count is ever off."""

import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from app.devstack.kafka import KafkaServer, free_port
from app.devstack.processes import module_environment
from tests.support import disk
from tests.support.fold import FoldGroup, FoldWorker, until
from tests.support.nemesis import seed_of_run
from tests.support.report import report

NUMBERS = 4
KEYS = 4_000
WRITE_BUFFER_BYTES = 64 << 10


@pytest.fixture
def group(kafka: KafkaServer, unique: Callable[[str], str], tmp_path: Path) -> Iterator[FoldGroup]:
    group = FoldGroup(kafka.bootstrap, unique("disk"), tmp_path, numbers=NUMBERS, wide=NUMBERS)
    yield group
    group.close()


def produce(group: FoldGroup, rounds: int) -> None:
    """So many records of each key, to the fold and to the relay."""
    producer = Producer({"bootstrap.servers": group.brokers, "linger.ms": 20, "log_level": 0})
    for _ in range(rounds):
        for key in range(KEYS):
            for topic in ("in", "relay"):
                producer.produce(f"{group.app}.{topic}", b"v-%d" % key, b"key-%06d" % key)
            producer.poll(0)
    assert producer.flush(60) == 0


def settle(group: FoldGroup, rounds: int) -> None:
    """Exact counts, everything relayed, and nothing taken for poison."""
    wanted = Counter({b"key-%06d" % key: rounds for key in range(KEYS)})
    until(lambda: group.counted().total() >= wanted.total(), 90, "everything counted")
    assert group.counted() == wanted
    until(lambda: len(group.relayed()) == KEYS and min(group.relayed().values()) >= rounds, 90, "everything relayed")
    assert group.read(f"{group.app}.quarantine", 1) == []


def warm(group: FoldGroup, **env: str) -> FoldWorker:
    """A worker that has stopped, with everything on its disk."""
    (worker,) = group.start("w1", WRITE_BUFFER_BYTES=str(WRITE_BUFFER_BYTES), INDEX="yes", **env)
    until(lambda: worker.ready, 90, "ready")
    produce(group, 1)
    settle(group, 1)
    assert worker.terminate() == 0
    return worker


def files(worker: FoldWorker, store: str, pattern: str) -> list[Path]:
    found = sorted((worker.dir / "state" / store).glob(pattern))
    assert found, f"{store} has no {pattern}"
    return found


def errors(worker: FoldWorker) -> list[str]:
    return [line for line in worker.log.splitlines() if re.search(r" app\.\S+ (ERROR|CRITICAL) ", line)]


@pytest.mark.kafka
def test_whatever_happened_to_the_files_of_a_worker_it_restores_them_and_counts_on(group: FoldGroup) -> None:
    worker, chance = warm(group), random.Random(seed_of_run())
    # Found when a row is read, long after the store was opened.
    assert disk.flip_blocks(worker.dir / "state" / "fold-0")
    for store, pattern, damage in (
        ("fold-1", "*.sst", disk.garble),
        ("fold-2", "MANIFEST-*", disk.truncate),
        ("fold-3", "CURRENT", disk.remove),
        ("relay-1", "*.sst", disk.remove),
        ("relay-2", "MANIFEST-*", disk.remove),
        ("relay-3", "CURRENT", disk.garble),
    ):
        damage(files(worker, store, pattern)[-1], chance)

    worker.start()
    until(lambda: worker.ready, 90, "ready again")
    produce(group, 1)

    settle(group, 2)
    # A manifest that ends early may still be that of an older state, which is as good.
    for store in ("fold-0", "fold-1", "fold-3", "relay-1", "relay-2", "relay-3"):
        assert re.search(rf"state/{store}: .*; it is removed and restored", worker.log), store
    assert re.search(r"number 0: opened again in .*StoreDamaged\(.*state/fold-0: Corruption", worker.log)
    assert not ended(worker)


@pytest.mark.kafka
def test_a_worker_whose_disk_is_full_ends_with_one_line_and_another_one_counts_on(group: FoldGroup) -> None:
    if not disk.mounts_are_possible():
        pytest.skip("this platform allows no mounts in a namespace of a user")
    state = group.path / "full" / "state"
    state.mkdir(parents=True)

    class OnASmallDisk(FoldWorker):
        command = disk.on_a_small_disk(FoldWorker.command, state, 8 << 10)

    group.workers["full"] = full = OnASmallDisk(group, "full", WRITE_BUFFER_BYTES=str(WRITE_BUFFER_BYTES))
    until(lambda: full.ready and len(full.numbers) == NUMBERS, 90, "ready")
    produce(group, 1)
    until(lambda: group.counted().total() >= KEYS, 90, "counted")

    disk.fill(Path(f"/proc/{full.process.pid}/root{state}"))
    rounds = until_it(group, lambda: ended(full))
    group.start("heir")

    settle(group, rounds)
    assert full.process.returncode == 70
    (line,) = errors(full)
    assert "No space left on device" in line
    assert f"store {state}" in line


@pytest.mark.kafka
def test_a_worker_whose_disk_is_full_stops_when_it_is_told_to(group: FoldGroup) -> None:
    if not disk.mounts_are_possible():
        pytest.skip("this platform allows no mounts in a namespace of a user")
    state = group.path / "stopped" / "state"
    state.mkdir(parents=True)

    class OnASmallDisk(FoldWorker):
        command = disk.on_a_small_disk(FoldWorker.command, state, 8 << 10)

    group.workers["stopped"] = worker = OnASmallDisk(group, "stopped")
    until(lambda: worker.ready and len(worker.numbers) == NUMBERS, 90, "ready")
    produce(group, 1)
    until(lambda: group.counted().total() >= KEYS, 90, "counted")
    disk.fill(Path(f"/proc/{worker.process.pid}/root{state}"))

    assert worker.terminate() == 0
    assert "the disk is full: stores are left as they are" in worker.log
    group.start("heir")
    settle(group, 1)


def until_it(group: FoldGroup, happens: Callable[[], bool]) -> int:
    """Produces until rows go to the disk and something comes of it; how many rounds in all."""
    for rounds in range(group.counted().total() // KEYS + 1, 100):
        produce(group, 1)
        until(lambda wanted=rounds * KEYS: happens() or group.counted().total() >= wanted, 90, "counted")
        if happens():
            return rounds
    raise AssertionError("it does not happen")


def ended(worker: FoldWorker) -> bool:
    return worker.process.poll() is not None


def refusal(command: tuple[str, ...], data_dir: Path) -> str:
    """The one line with which the worker refuses to start."""
    settings = {"BROKERS": f"127.0.0.1:{free_port()}", "DATA_DIR": str(data_dir)}
    environment = module_environment(settings)
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1, ended
    (line,) = ended.stderr.splitlines()
    return line


WORKER = (sys.executable, "-m", "app", "worker")


def test_a_full_disk_at_the_start_is_one_line_and_exit_1(tmp_path: Path) -> None:
    if not disk.mounts_are_possible():
        pytest.skip("this platform allows no mounts in a namespace of a user")
    assert "No space left on device" in refusal(disk.on_a_small_disk(WORKER, tmp_path, 64), tmp_path)


def test_a_read_only_directory_is_one_line_and_exit_1(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    data_dir.chmod(0o555)

    line = refusal(disk.without_privileges(WORKER), data_dir)

    assert f"DATA_DIR {data_dir} cannot be written: Permission denied" in line
    assert list(data_dir.iterdir()) == []


@pytest.mark.kafka
@pytest.mark.prove
def test_the_counts_of_an_engine_that_takes_a_disk_error_for_poison_are_short(group: FoldGroup) -> None:
    worker = warm(group)
    for number in range(NUMBERS):
        assert disk.flip_blocks(worker.dir / "state" / f"fold-{number}")

    worker.env["BROKEN"] = "disk_errors_are_poison"
    worker.start()
    produce(group, 1)

    until(lambda: group.read(f"{group.app}.quarantine", 1), 90, "something in quarantine")
    report("A disk error taken for poison", {"records in quarantine": len(group.read(f"{group.app}.quarantine", 1))})
