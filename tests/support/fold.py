"""A group of fold workers on a real broker, and what became of their records."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60.0


def until(condition: Callable[[], Any], deadline_s: float = DEADLINE_S, what: str = "") -> Any:
    """Poll until it is true; its value."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {deadline_s:.0f} s: {what or condition}")


def folded(total: int, topics: int, keys: int = 97) -> Counter[bytes]:
    """What `FoldGroup.produce(0, total)` into so many folded topics counts."""
    counts: Counter[bytes] = Counter()
    for i in range(total):
        counts[b"k-%d" % (i % keys)] += topics
    return counts


class FoldWorker:
    """One process; `status` is what it last said of itself."""

    command: tuple[str, ...] = (sys.executable, "-m", "tests.system.fold_worker")

    def __init__(self, group: "FoldGroup", name: str, **env: str) -> None:
        self.group, self.name, self.env = group, name, env
        self.dir = group.path / name
        self.start()

    def start(self) -> None:
        (self.dir / "status.json").unlink(missing_ok=True)
        with (self.group.path / f"{self.name}.log").open("a") as log:
            self.process = subprocess.Popen(
                (*self.command[:-1], self.env.get("MODULE", self.command[-1])),
                cwd=ROOT,
                stdout=log,
                stderr=log,
                env=os.environ
                | {
                    "APP": self.group.app,
                    "BROKERS": self.group.brokers,
                    "NUMBERS": str(self.group.numbers),
                    "DATA_DIR": str(self.dir),
                    "NAME": self.name,
                }
                | self.env,
            )

    @property
    def status(self) -> dict[str, Any]:
        try:
            return json.loads((self.dir / "status.json").read_bytes())
        except (OSError, ValueError):
            return {}

    @property
    def reasons(self) -> list[str]:
        return list(self.status.get("reasons", []))

    @property
    def log(self) -> str:
        return (self.group.path / f"{self.name}.log").read_text()

    @property
    def stopped(self) -> bool:
        """Whether a SIGSTOP has reached it."""
        return " T " in Path(f"/proc/{self.process.pid}/stat").read_text()

    @property
    def ready(self) -> bool:
        return bool(self.status.get("ready"))

    @property
    def failed_checkpoints(self) -> int:
        return int(self.status.get("failed_checkpoints", 0))

    @property
    def tasks(self) -> int:
        return int(self.status["tasks"])

    @property
    def sockets(self) -> int:
        """Open sockets of the process, as the kernel counts them."""
        links = [link for link in Path(f"/proc/{self.process.pid}/fd").iterdir() if link.is_symlink()]
        found = 0
        for link in links:
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                found += str(link.readlink()).startswith("socket:")
        return found

    @property
    def numbers(self) -> list[int]:
        return list(self.status.get("numbers", []))

    def arm(self, fault: str) -> None:
        """Arm a fault point from now on."""
        new = self.dir / "fault.new"
        new.write_text(fault)
        new.replace(self.dir / "fault")
        until(lambda: not (self.dir / "fault").exists(), what=f"{fault} is armed")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def terminate(self) -> int:
        self.process.terminate()
        return self.process.wait(30)

    def wipe(self) -> None:
        shutil.rmtree(self.dir / "state", ignore_errors=True)


class FoldGroup:
    """Topics, workers, input and results of one application id."""

    def __init__(self, brokers: str, app: str, path: Path, numbers: int, wide: int = 12) -> None:
        self.brokers, self.app, self.path, self.numbers, self.wide = brokers, app, path, numbers, wide
        self.workers: dict[str, FoldWorker] = {}
        self.admin = AdminClient({"bootstrap.servers": brokers, "log_level": 0})
        topics = [NewTopic(f"{app}.in", wide, 1), NewTopic(f"{app}.small", 3, 1), NewTopic(f"{app}.quarantine", 1, 1)]
        topics += [NewTopic(f"{app}.{name}", numbers, 1) for name in ("relay", "out")]
        topics += [
            NewTopic(f"{app}-{table}-changelog", numbers, 1, config={"cleanup.policy": "compact"})
            for table in ("counts", "positions")
        ]
        for future in self.admin.create_topics(topics).values():
            future.result(20)

    def start(self, *names: str, **env: str) -> list[FoldWorker]:
        for name in names:
            self.workers[name] = FoldWorker(self, name, **env)
        return [self.workers[name] for name in names]

    def close(self) -> None:
        for worker in self.workers.values():
            worker.signal(signal.SIGCONT) if worker.process.poll() is None else None
            worker.kill()

    def produce(
        self, first: int, count: int, topics: tuple[str, ...] = ("in", "small", "relay"), keys: int = 97
    ) -> None:
        producer = Producer({"bootstrap.servers": self.brokers, "linger.ms": 20, "log_level": 0})
        for i in range(first, first + count):
            for topic in topics:
                producer.produce(f"{self.app}.{topic}", b"v-%d" % i, b"k-%d" % (i % keys))
            if i % 500 == 0:
                producer.poll(0)
        assert producer.flush(30) == 0

    def read(self, topic: str, partitions: int) -> list[Any]:
        consumer = Consumer(
            {
                "bootstrap.servers": self.brokers,
                "group.id": f"read-{time.time_ns()}",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                # Only an empty answer says that the end is reached.
                "fetch.wait.max.ms": 10,
                "log_level": 0,
            }
        )
        consumer.assign([TopicPartition(topic, p, 0) for p in range(partitions)])
        found, ended = [], 0
        while ended < partitions:
            for message in consumer.consume(1000, 0.1):
                if message.error():
                    ended += 1
                else:
                    found.append(message)
        consumer.close()
        return found

    def changelog(self) -> dict[tuple[int, bytes], bytes]:
        """The fold of the counts changelog: the truth."""
        rows: dict[tuple[int, bytes], bytes] = {}
        for message in self.read(f"{self.app}-counts-changelog", self.numbers):
            key = (message.partition(), message.key())
            if message.value() is None:
                rows.pop(key, None)
            else:
                rows[key] = message.value()
        return rows

    def counted(self) -> Counter[bytes]:
        """Records folded a key; a key may live in several numbers, as the input topics have other partition counts."""
        counts: Counter[bytes] = Counter()
        for (_, key), value in self.changelog().items():
            if key[:1] != b"\x00":
                counts[key] += msgspec.msgpack.decode(value[1:])["n"]
        return counts

    def delete_everything(self, topic: str, partitions: int) -> None:
        """As retention does, in all its partitions at once."""
        everything = [TopicPartition(topic, partition, -1) for partition in range(partitions)]
        for future in self.admin.delete_records(everything).values():
            future.result(20)

    def relayed(self) -> Counter[bytes]:
        return Counter(message.value() for message in self.read(f"{self.app}.out", self.numbers))
