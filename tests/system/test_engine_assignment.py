"""Numbers are dealt out whole, evenly, and come back to whoever had them."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.devstack.kafka import KafkaServer
from tests.support.fold import FoldGroup, FoldWorker, until

pytestmark = pytest.mark.kafka


@pytest.fixture
def group(kafka: KafkaServer, unique: Callable[[str], str], tmp_path: Path) -> Iterator[FoldGroup]:
    group = FoldGroup(kafka.bootstrap, unique("deal"), tmp_path, numbers=8)
    yield group
    group.close()


def dealt(workers: list[FoldWorker]) -> list[int]:
    """Sizes, largest first, once all agree; empty before."""
    statuses = [w.status for w in workers]
    if not all(s.get("ready") for s in statuses) or len({str(s["owners"]) for s in statuses}) != 1:
        return []
    held = [n for s in statuses for n in s["numbers"]]
    if sorted(held) != list(range(8)):
        return []
    return sorted((len(s["numbers"]) for s in statuses), reverse=True)


def whole(workers: list[FoldWorker], wide: int) -> bool:
    """Every partition of every topic is with the owner of its number, also where counts differ."""
    topics = {"in": wide, "small": 3, "relay": 8}
    seen = set()
    for worker in workers:
        for number, partitions in worker.status["partitions"].items():
            for topic, partition in partitions:
                assert partition % 8 == int(number)
                seen.add((topic.rsplit(".", 1)[1], partition))
    return seen == {(topic, p) for topic, count in topics.items() for p in range(count)}


def test_three_workers_two_and_three_again_always_whole_and_even(group: FoldGroup) -> None:
    workers = group.start("w1", "w2", "w3")
    until(lambda: dealt(workers) == [3, 3, 2], what="3, 3, 2")
    assert whole(workers, group.wide)
    before = {w.name: set(w.numbers) for w in workers}

    workers[2].kill()
    until(lambda: dealt(workers[:2]) == [4, 4], what="4, 4")
    assert whole(workers[:2], group.wide)
    for worker in workers[:2]:
        assert before[worker.name] <= set(worker.numbers)

    workers[2].start()
    until(lambda: dealt(workers) == [3, 3, 2], what="3, 3, 2 again")
    assert whole(workers, group.wide)

    group.produce(0, 500)
    until(lambda: group.counted().total() == 1000, what="all partitions consumed")


def test_a_worker_without_a_number_is_a_ready_spare(group: FoldGroup) -> None:
    names = [f"w{i}" for i in range(9)]
    workers = group.start(*names)

    until(lambda: dealt(workers) == [1] * 8 + [0], what="one each, and a spare")


def test_a_second_process_on_one_data_dir_exits_with_one_line(group: FoldGroup) -> None:
    (worker,) = group.start("w1")
    until(lambda: worker.ready, what="ready")

    second = subprocess.run(
        [sys.executable, "-m", "tests.system.fold_worker"],
        env={
            "APP": group.app,
            "BROKERS": group.brokers,
            "NUMBERS": "8",
            "DATA_DIR": str(worker.dir),
            "PATH": "",
        },
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert second.returncode == 1
    assert second.stderr.count("\n") == 1
    assert "in use by another process" in second.stderr
