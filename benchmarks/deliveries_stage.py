"""What the measurements of deliveries share: a receiver process, a worker process, webhooks, and a publisher."""

import asyncio
import json
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
from confluent_kafka import Producer

from app.devstack.kafka import free_port
from app.devstack.processes import Worker
from app.devstack.stack import encryption_key
from app.events import STRUCTURED_HEADERS, VaultEventType, format_time, new_event, topic_of
from app.webhooks.secrets import new_secret
from app.webhooks.signing import sign_headers
from benchmarks.bench import Bench, BenchmarkFailed
from benchmarks.neighbour import Neighbour
from benchmarks.process_cost import cpu_s, rss_mb

__all__ = ["IN_FLIGHT", "Publisher", "ReceiverProcess", "Stage", "make_event", "signed"]

SUBJECTS: Final = 1_000
IN_FLIGHT: Final = 100
CONCURRENT: Final = 256
NUMBERS: Final = 8
BODY_BYTES: Final = 450
# librdkafka refuses more than 100,000 that the broker has not taken.
QUEUED_EVENTS: Final = 50_000
READY_S: Final = 60.0
BEAT_S: Final = 0.005
EVENT_TYPE: Final = VaultEventType.ANONYMIZATION_STARTED
_NUMBER: Final = "@number@"
_SUBJECT: Final = "@subject@"
_NOTE: Final = "@note@"
_EPOCH: Final = "1970-01-01T00:00:00.000Z"


def make_event(number: int, run: str, strategy: str = "k-anonymity") -> tuple[bytes, bytes]:
    """Key and value of a valid event of 450 bytes, of one of 1,000 subjects, that says when it was made.

    A webhook can ask for events of one strategy. Cut from a template: what an event costs its maker is not measured.
    """
    subject = f"ds-{number * 7 % SUBJECTS:04d}"
    before_time, after_time, bare_bytes = _template(run, strategy)
    digits = str(number)
    note = "x" * (BODY_BYTES - bare_bytes - 2 * len(digits) - 2 * len(subject))
    value = (
        before_time.replace(_NUMBER, digits).replace(_SUBJECT, subject)
        + format_time(time.time_ns() // 1_000_000)
        + after_time.replace(_NUMBER, digits).replace(_SUBJECT, subject).replace(_NOTE, note)
    )
    return subject.encode(), value.encode()


@cache
def _template(run: str, strategy: str) -> tuple[str, str, int]:
    """What stands before the time and after it, and how many bytes an event has without what is put in."""
    text = new_event(
        id=f"{run}-{_NUMBER}",
        source="/vault/bench",
        type=str(EVENT_TYPE),
        subject=_SUBJECT,
        time=_EPOCH,
        data={"dataset_id": _SUBJECT, "job_id": f"{run}-{_NUMBER}", "strategy": strategy, "note": _NOTE},
    ).posted.decode()
    before_time, _, after_time = text.partition(_EPOCH)
    put_in = 2 * len(_NUMBER) + 2 * len(_SUBJECT) + len(_NOTE)
    return before_time, after_time, len(text) - put_in


def signed(body: bytes, run: str) -> dict[str, str]:
    """The headers of a first attempt, as the sender makes them of this body."""
    return dict(
        sign_headers(
            body,
            webhook_id=f"wh_{run}",
            delivery_id=f"dlv_{run}",
            event_id=f"{run}-0",
            event_type=run,
            attempt=1,
            timestamp_s=1_790_000_000,
            secrets=[new_secret(lambda count: bytes(range(count)))],
        )
    )


class ReceiverProcess(Neighbour):
    """See `post_receiver`."""

    def __init__(self) -> None:
        super().__init__("post_receiver")

    async def taken(self) -> Mapping[str, Mapping[str, float]]:
        """By path, since the last question: `count`, `p50_ms`, `p99_ms`."""
        told: dict[str, dict[str, float]] = await self.stats()
        return told


class Publisher:
    """Publishes events at a steady rate for as long as the `with` block; `per_s` may be changed.

    Args:
        strategies: One for each event, in turn.
    """

    def __init__(self, brokers: str, prefix: str, per_s: float, strategies: Sequence[str] = ("k-anonymity",)) -> None:
        self.per_s = per_s
        self._strategies = strategies
        self.published = 0
        self._run_name = secrets.token_hex(3)
        self._topic = topic_of(EVENT_TYPE, prefix)
        self._producer = Producer({"bootstrap.servers": brokers, "log_level": 0, "linger.ms": 2})
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()
        self._producer.flush(10)

    def burst(self, count: int) -> None:
        """Publish so many at once."""
        headers = list(STRUCTURED_HEADERS)
        for _ in range(count):
            # The thread may be at it, too, and a number used twice is an event published twice.
            with self._lock:
                number = self.published
                self.published += 1
            key, value = make_event(number, self._run_name, self._strategies[number % len(self._strategies)])
            while len(self._producer) >= QUEUED_EVENTS:
                self._producer.poll(BEAT_S)
            self._producer.produce(self._topic, value, key, headers=headers)
        self._producer.poll(0)

    def _run(self) -> None:
        owed, last_s = 0.0, time.perf_counter()
        while not self._ending.wait(BEAT_S):
            now_s = time.perf_counter()
            owed += (now_s - last_s) * self.per_s
            last_s = now_s
            self.burst(int(owed))
            owed -= int(owed)


class Stage:
    """One worker with its own application id; the other integrations are off.

    Attributes:
        prefix: Of the topics.
    """

    def __init__(self, bench: Bench, **settings: str) -> None:
        self.brokers = bench.brokers
        self.folder: Path = bench.new_folder(f"stage-{secrets.token_hex(3)}")
        self.prefix = self.folder.name
        self.url = f"http://127.0.0.1:{free_port()}"
        self.worker = Worker(
            {
                "BROKERS": bench.brokers,
                "APP_ID": self.prefix,
                "TOPIC_PREFIX": self.prefix,
                "PARTITIONS": str(NUMBERS),
                "DATA_DIR": str(self.folder / "data"),
                "WEB_PORT": self.url.rpartition(":")[2],
                "STATS_PORT": "0",
                "LOG__LEVEL": "warning",
                "WEBHOOKS__MAX_IN_FLIGHT": str(IN_FLIGHT),
                "WEBHOOKS__MAX_CONCURRENT": str(CONCURRENT),
                "WEBHOOKS__ALLOW_HTTP": "true",
                "WEBHOOKS__ALLOW_TARGETS": '["127.0.0.0/8"]',
                "WEBHOOKS__ENCRYPTION_KEYS": json.dumps([encryption_key()]),
                **settings,
            },
            self.folder,
        )

    async def __aenter__(self) -> Self:
        await self.worker.start()
        self._session = aiohttp.ClientSession(self.url)
        await self.until_ready()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()
        await self.worker.kill()

    async def until_ready(self, within_s: float = READY_S) -> None:
        """Until the worker serves.

        Raises:
            TimeoutError: It does not in time.
        """
        async with asyncio.timeout(within_s):
            while not await self._ready():  # noqa: ASYNC110  # another process, which has no way to call us
                await asyncio.sleep(0.1)

    async def _ready(self) -> bool:
        try:
            async with self._session.get("/health/ready") as answer:
                return answer.ok
        except aiohttp.ClientError:
            return False

    async def webhook(self, url: str, events: Sequence[str] = ("anonymization.started",), **more: Any) -> str:
        """Make a webhook; its id.

        Raises:
            BenchmarkFailed: The worker did not.
        """
        body = {"url": url, "events": list(events), **more}
        async with self._session.post("/v1/webhooks", json=body) as answer:
            made = await answer.json()
            if answer.status != 201:  # the status says what it is
                raise BenchmarkFailed(f"no webhook: {answer.status} {made}")
            return str(made["id"])

    def cpu_s(self) -> float:
        """Processor seconds of the worker so far."""
        return cpu_s(self._pid())

    def rss_mb(self) -> float:
        """Memory of the worker."""
        return rss_mb(self._pid())

    def _pid(self) -> int:
        if self.worker.pid is None:
            raise BenchmarkFailed("the worker has ended")
        return self.worker.pid
