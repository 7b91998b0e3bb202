"""A steady load, and what workers make of it, by the broker's clock."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count, pairwise
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import Consumer, Producer, TopicPartition

from app.events import partition_for
from benchmarks.bench import BenchmarkFailed

__all__ = ["Observer", "Seen", "SteadyLoad", "first_after", "longest_pause_s"]

BEAT_S: Final = 0.02
KEYS_A_PARTITION: Final = 10
VALUE: Final = b"x" * 300
FLUSH_S: Final = 10.0
WAIT_POLL_S: Final = 0.05
RECENT_S: Final = 1.0


class _Background:
    """A thread for as long as the `with` block."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        raise NotImplementedError


class SteadyLoad(_Background):
    """Produces so many records a second, the same number into each partition; keys are in the partition of their hash.

    So what a worker sends under the key of its record is in the partition that has the record's number.
    """

    def __init__(self, brokers: str, topic: str, partitions: int, per_s: float) -> None:
        super().__init__()
        self._keys: list[list[bytes]] = [[] for _ in range(partitions)]
        for key in (b"k-%d" % number for number in count()):
            self._keys[partition_for(key, partitions)].append(key)
            if min(map(len, self._keys)) >= KEYS_A_PARTITION:
                break
        self._producer = Producer({"bootstrap.servers": brokers, "log_level": 0})
        self._topic, self._partitions, self._per_s = topic, partitions, per_s

    def _run(self) -> None:
        began_s, sent = time.monotonic(), 0
        while not self._stop.wait(BEAT_S):
            due = int((time.monotonic() - began_s) * self._per_s)
            for number in range(sent, due):
                partition, turn = number % self._partitions, number // self._partitions
                key = self._keys[partition][turn % KEYS_A_PARTITION]
                self._producer.produce(self._topic, VALUE, key, partition=partition)
            sent = due
            self._producer.poll(0)
        self._producer.flush(FLUSH_S)


@dataclass(frozen=True, slots=True)
class Seen:
    """One output: when the broker appended it, in seconds since 1970, its partition, and who wrote it."""

    at_s: float
    number: int
    worker: str


class Observer(_Background):
    """Reads a LogAppendTime topic whose values name the worker that wrote them."""

    def __init__(self, brokers: str, topic: str, partitions: int) -> None:
        super().__init__()
        self._seen: list[Seen] = []
        self._consumer = Consumer(
            {
                "bootstrap.servers": brokers,
                "group.id": "bench-observer",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 20,
                "log_level": 0,
            }
        )
        self._consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])

    def _run(self) -> None:
        while not self._stop.is_set():
            for message in self._consumer.consume(500, 0.05):
                if message.error() is None:
                    self._seen.append(_seen(message))
        self._consumer.close()

    @property
    def seen(self) -> list[Seen]:
        """Everything so far, ordered within each number."""
        return list(self._seen)

    def owners(self) -> dict[int, str]:
        """Who wrote last, of each number that wrote within the last second."""
        since_s = time.time() - RECENT_S
        return {seen.number: seen.worker for seen in self.seen if seen.at_s >= since_s}

    def until(self, holds: Callable[[], bool], what: str, deadline_s: float = 60.0) -> None:
        """Wait for what the outputs show.

        Raises:
            BenchmarkFailed: They have not within the time.
        """
        end_s = time.monotonic() + deadline_s
        while not holds():
            if time.monotonic() > end_s:
                raise BenchmarkFailed(f"not within {deadline_s:.0f} s: {what}; outputs come from {self.owners()}")
            time.sleep(WAIT_POLL_S)


def _seen(message: Any) -> Seen:
    return Seen(message.timestamp()[1] / 1e3, message.partition(), message.value().decode())


def first_after(seen: list[Seen], since_s: float, numbers: set[int], not_by: str | None = None) -> dict[int, float]:
    """When each of these numbers wrote first after that moment."""
    found: dict[int, float] = {}
    for one in seen:
        if one.number in numbers and one.at_s > since_s and one.worker != not_by:
            found[one.number] = min(one.at_s, found.get(one.number, one.at_s))
    return found


def longest_pause_s(seen: list[Seen], since_s: float, until_s: float, numbers: set[int]) -> float:
    """The longest time that any of these numbers wrote nothing, of pauses that touch the interval."""
    longest = 0.0
    for number in numbers:
        times = sorted(one.at_s for one in seen if one.number == number)
        pauses = [later - earlier for earlier, later in pairwise(times) if later > since_s and earlier < until_s]
        longest = max(longest, *pauses, 0.0)
    return longest
