"""A steady load."""

import threading
import time
from types import TracebackType
from typing import Self

from confluent_kafka import Producer

TICK_S = 0.02


class Feed:
    """Records `first` and after, `per_s` of them, into each of the topics, until stopped; as `FoldGroup.produce` makes.

    Attributes:
        produced: How many are on their way; all are acknowledged after `stop`.
    """

    def __init__(self, brokers: str, topics: list[str], per_s: float, *, first: int = 0) -> None:
        self.produced, self.per_s = first, per_s
        self._topics = topics
        # It goes on over a broker that dies and comes back, and sends nothing twice.
        self._producer = Producer(
            {
                "bootstrap.servers": brokers,
                "linger.ms": 5,
                "enable.idempotence": True,
                "message.timeout.ms": 0,
                "log_level": 0,
            }
        )
        self._stopped = threading.Event()
        self._failed: list[str] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> int:
        """How many were produced; all of them are in Kafka."""
        if not self._stopped.is_set():
            self._stopped.set()
            self._thread.join()
            assert self._producer.flush(60) == 0
            assert self._failed == []
        return self.produced

    def _run(self) -> None:
        began, first = time.monotonic(), self.produced
        while not self._stopped.wait(TICK_S):
            due = first + int((time.monotonic() - began) * self.per_s)
            for i in range(self.produced, due):
                for topic in self._topics:
                    self._producer.produce(topic, b"v-%d" % i, b"k-%d" % (i % 97), on_delivery=self._told)
            self.produced = max(self.produced, due)
            self._producer.poll(0)

    def _told(self, error: object, _message: object) -> None:
        if error is not None:
            self._failed.append(str(error))
