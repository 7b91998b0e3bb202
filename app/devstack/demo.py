"""The demo: a real workload through a real worker, which is killed in the middle, counted at the other ends.

`Demo.run` is the plot; what must come out is in `app.devstack.tally`. The broker is started by the caller; everything
else is started and ended here.
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from aiokafka import AIOKafkaProducer
from confluent_kafka import Consumer, TopicPartition

from app.devstack.broker import RunningBroker
from app.devstack.embedded import EMBEDDED_MAX_PARTITION_BYTES, EMBEDDED_PARTITIONS
from app.devstack.kafka import free_port
from app.devstack.processes import Worker
from app.devstack.receivers import Receiver
from app.devstack.stack import Upstreams, WorkerApi, encryption_key, listening, worker_settings
from app.devstack.standins import Observations
from app.devstack.tally import (
    FLAKY_PATTERN,
    HANGING_PATTERN,
    HONEST_PATTERN,
    EventKey,
    Observed,
    Result,
    expect,
    settle,
)
from app.devstack.workload import BrokenRecord, Workload, busiest_partition_bytes, make_workload
from app.integrations.verification import verify
from app.publishing import BatchPublishResult, KafkaConfig, KafkaEventPublisher
from app.topics import Topics, client_config, plan

__all__ = ["Demo", "DemoError", "Display", "demo_workload"]

APP_ID: Final = "vault-stream-demo"
RETRY_SCHEDULE_S: Final = "[0,1,1,2]"
HTTP_TIMEOUT_S: Final = "3"
"""Of the worker: the hanging receiver costs each attempt this much."""
KILL_AT: Final = 0.4
"""The worker is killed when the honest receiver has this part of all events."""
PUBLISH_BATCH: Final = 100
DEADLINE_S: Final = 90.0
DEADLINE_PER_EVENT_S: Final = 0.02
STALL_S: Final = 25.0
"""Nothing that is counted moved for so long: the worker cannot get there. Well above a rebalance and all retries."""
ASK_AGAIN_S: Final = 0.3
WAITING_STATUSES: Final = frozenset({"pending", "retrying", "failed"})

T = TypeVar("T")


class DemoError(Exception):
    """The demo could not be played to its end; one line says why."""


class Display(Protocol):
    """Where the demo shows what it does."""

    def say(self, line: str) -> None:
        """A step began."""

    def count(self, what: str, done: int, total: int) -> None:
        """So far."""


@dataclass(frozen=True, slots=True)
class _Receivers:
    honest: Receiver
    flaky: Receiver
    hanging: Receiver

    @property
    def all(self) -> tuple[Receiver, ...]:
        return (self.honest, self.flaky, self.hanging)


def demo_workload(broker: RunningBroker, events: int, *, seed: int) -> Workload:
    """The workload, refused if the broker would quietly forget the beginning of it.

    Raises:
        DemoError: The embedded cluster cannot hold it.
        ValueError: Too few events for one of each type.
    """
    workload = make_workload(events, seed=seed, start_ms=time.time_ns() // 1_000_000)
    size_bytes = busiest_partition_bytes(workload)
    if broker.kind == "embedded" and size_bytes > EMBEDDED_MAX_PARTITION_BYTES:
        fits = events * EMBEDDED_MAX_PARTITION_BYTES // size_bytes
        raise DemoError(
            f"--events {events} would put {size_bytes / 1e6:.1f} MB on one partition, and the embedded cluster forgets "
            f"records beyond {EMBEDDED_MAX_PARTITION_BYTES / 1e6:.0f} MB: give at most {fits // 100 * 100}, "
            "or --broker kafka"
        )
    return workload


class Demo:
    """One run.

    Args:
        broker: A fresh one.
        workload: From `demo_workload`.
        folder: For the worker's data and log.
        display: Told of every step.
    """

    def __init__(self, broker: RunningBroker, workload: Workload, folder: Path, display: Display) -> None:
        self._broker = broker
        self._workload = workload
        self._display = display
        self._expected = expect(workload.events)
        self._observations = Observations(self._show)
        self._upstreams = Upstreams.new(self._observations)
        self._receivers = _Receivers(
            Receiver("honest", self._observations),
            Receiver("flaky", self._observations),
            Receiver("hanging", self._observations),
        )
        self._folder = folder
        self._topics = Topics("vault", APP_ID)
        self._deadline_s = DEADLINE_S + DEADLINE_PER_EVENT_S * len(workload.events)

    async def run(self) -> Result:
        """Plays the demo and says how it ended; everything that it started is gone when it returns.

        Raises:
            DemoError: An event could not be published, or the worker did not get to the middle.
            ProcessEndedError: The worker ended by itself.
            ApiRefusedError: The worker's API refused something.
        """
        specs = plan(self._topics, partitions=EMBEDDED_PARTITIONS, replication=1)
        self._broker.create_topics(specs)
        async with listening(*self._upstreams.all, *self._receivers.all):
            web_port = free_port()
            worker = Worker(self._settings(web_port), self._folder)
            async with WorkerApi(f"http://127.0.0.1:{web_port}") as api:
                try:
                    return await self._play(worker, api)
                finally:
                    await worker.stop()

    async def _play(self, worker: Worker, api: WorkerApi) -> Result:
        self._display.say("starting a worker")
        await worker.start()
        await worker.while_alive(api.ready())
        hanging_id = await worker.while_alive(self._create_webhooks(api))
        self._display.say(
            f"publishing {len(self._workload.events)} events and {len(self._workload.broken)} broken records"
        )
        publishing = asyncio.create_task(self._publish())
        try:
            if not await worker.while_alive(self._middle(publishing)):
                raise DemoError(_given_up(worker))
            self._display.say("kill -9 of the worker, and a new one")
            await worker.kill()
            await worker.start()
            broken = await worker.while_alive(self._published(publishing))
        finally:
            publishing.cancel()
        await worker.while_alive(api.ready())
        self._display.say("waiting for the rest")
        patience_s = self._deadline_s
        if not await worker.while_alive(self._everything()):
            self._display.say(_given_up(worker))
            patience_s = 0.0
        waiting = await worker.while_alive(self._waiting(api, hanging_id, patience_s))
        quarantined = await asyncio.to_thread(
            read_quarantine, self._broker.bootstrap, self._topics.quarantine, set(broken)
        )
        return settle(self._expected, broken, self._observed(waiting, quarantined))

    def _settings(self, web_port: int) -> dict[str, str]:
        return {
            **worker_settings(
                brokers=self._broker.bootstrap,
                app_id=APP_ID,
                data_dir=self._folder / "data",
                web_port=web_port,
                encryption_key=encryption_key(),
                upstreams=self._upstreams,
            ),
            "WEBHOOKS__RETRY_SCHEDULE_S": RETRY_SCHEDULE_S,
            "WEBHOOKS__TIMEOUT_S": HTTP_TIMEOUT_S,
            "HEALTH__DEGRADED_AFTER_S": "3600",  # an event of our own would be one that nobody counted on
        }

    async def _create_webhooks(self, api: WorkerApi) -> str:
        patterns = zip(self._receivers.all, (HONEST_PATTERN, FLAKY_PATTERN, HANGING_PATTERN), strict=True)
        webhook_id = ""
        for receiver, pattern in patterns:
            webhook = await api.create_webhook(receiver.hook_url, [pattern])
            receiver.trust(webhook["secret"])
            webhook_id = webhook["id"]
        return webhook_id

    async def _publish(self) -> dict[str, BrokenRecord]:
        """Publishes everything, the broken records in between; returns those by where the broker put them."""
        broken: dict[str, BrokenRecord] = {}
        events, records = self._workload.events, self._workload.broken
        stretch = math.ceil(len(events) / (len(records) + 1))
        producer = AIOKafkaProducer(bootstrap_servers=self._broker.bootstrap, acks="all")
        await producer.start()
        try:
            async with KafkaEventPublisher(KafkaConfig(brokers=[self._broker.bootstrap])) as publisher:
                for number, record in enumerate((*records, None)):
                    for first in range(number * stretch, min((number + 1) * stretch, len(events)), PUBLISH_BATCH):
                        last = min(first + PUBLISH_BATCH, (number + 1) * stretch, len(events))
                        _must_succeed(await publisher.publish_batch(events[first:last]))
                        self._display.count("published", last, len(events))
                    if record is not None:
                        sent = await producer.send_and_wait(record.topic, record.value, record.key)
                        broken[f"{sent.topic}/{sent.partition}/{sent.offset}"] = record
        finally:
            await producer.stop()
        return broken

    async def _middle(self, publishing: asyncio.Task[dict[str, BrokenRecord]]) -> bool:
        """Returns when the worker is in the midst of its work; False if it does not get there."""
        enough = KILL_AT * len(self._workload.events)
        publishing.add_done_callback(lambda _task: self._observations.notify())
        accepted = self._receivers.honest.accepted
        reached = await self._reached(
            lambda: len(accepted) >= enough or (publishing.done() and publishing.exception() is not None)
        )
        if publishing.done():
            publishing.result()
        return reached

    async def _published(self, publishing: asyncio.Task[dict[str, BrokenRecord]]) -> dict[str, BrokenRecord]:
        return await publishing

    async def _everything(self) -> bool:
        """Returns when all that is expected was observed; False if it does not come, and what is missing is lost."""
        expected, upstreams = self._expected, self._upstreams

        def all_there() -> bool:
            return (
                _has(self._receivers.honest.accepted, expected.honest)
                and _has(self._receivers.flaky.accepted, expected.flaky)
                and _has(upstreams.dashboard.events, expected.audited)
                and _has(upstreams.policy.violations.keys(), expected.violations)
                and _has(upstreams.registry.datasets.keys(), expected.datasets)
                and expected.gone.isdisjoint(upstreams.registry.datasets)
            )

        return await self._reached(all_there)

    async def _reached(self, holds: Callable[[], bool]) -> bool:
        """Waits until `holds()`; False at the deadline, or when nothing that is counted moved for `STALL_S`."""
        deadline_s = time.monotonic() + self._deadline_s
        while not holds():
            if not await self._moved(holds, min(STALL_S, deadline_s - time.monotonic())):
                return False
        return True

    async def _moved(self, holds: Callable[[], bool], timeout_s: float) -> bool:
        """Waits until `holds()` or something that is counted moved; False when neither did."""
        before = self._counts()
        return await self._observations.until(lambda: holds() or self._counts() != before, timeout_s)

    def _counts(self) -> tuple[int, ...]:
        upstreams = self._upstreams
        return (
            len(self._receivers.honest.accepted),
            len(self._receivers.flaky.accepted),
            len(upstreams.dashboard.events),
            len(upstreams.policy.violations),
            len(upstreams.registry.datasets),
        )

    async def _waiting(self, api: WorkerApi, webhook_id: str, patience_s: float) -> set[EventKey]:
        """The events that the API shows as waiting or failed; asks until all are there, or `patience_s` have passed."""
        found: set[EventKey] = set()
        deadline_s = time.monotonic() + patience_s
        while True:
            for delivery in await api.deliveries(webhook_id):
                if delivery["status"] in WAITING_STATUSES:
                    found.add((delivery["event_source"], delivery["event_id"]))
            self._display.count("waiting", len(found & self._expected.hanging), len(self._expected.hanging))
            if _has(found, self._expected.hanging) or time.monotonic() > deadline_s:
                return found
            await asyncio.sleep(ASK_AGAIN_S)

    def _observed(self, waiting: set[EventKey], quarantined: dict[str, str]) -> Observed:
        receivers, dashboard = self._receivers, self._upstreams.dashboard
        return Observed(
            honest=receivers.honest.accepted,
            flaky=receivers.flaky.accepted,
            waiting=waiting,
            audited=dashboard.events,
            violations=self._upstreams.policy.violations.keys(),
            datasets=self._upstreams.registry.datasets.keys(),
            quarantined=quarantined,
            duplicates=sum(receiver.duplicates for receiver in receivers.all),
            signatures_bad=sum(receiver.signatures_bad for receiver in receivers.all),
            bodies_changed=sum(receiver.bodies_changed for receiver in receivers.all) + dashboard.changed,
            chain_ok=chain_holds(dashboard.chain()),
        )

    def _show(self) -> None:
        expected, upstreams = self._expected, self._upstreams
        show = self._display.count
        show("delivered", len(self._receivers.honest.accepted), len(expected.honest))
        show("delivered after failures", len(self._receivers.flaky.accepted), len(expected.flaky))
        show("audited", len(upstreams.dashboard.events & expected.audited), len(expected.audited))
        show("violations reported", len(upstreams.policy.violations), len(expected.violations))
        show("datasets registered", len(upstreams.registry.datasets), len(expected.datasets))


def chain_holds(entries: Sequence[dict[str, Any]]) -> bool:
    """Whether the audit chain holds in every partition, from its very first entry on.

    Args:
        entries: What the dashboard accepted, in the order of each partition.
    """
    verdicts = verify(entries)
    return bool(verdicts) and all(verdict.ok and verdict.from_start for verdict in verdicts)


def read_quarantine(bootstrap: str, topic: str, wanted: set[str], *, timeout_s: float = 15.0) -> dict[str, str]:
    """Reasons by record key, of everything in the quarantine topic. Blocks.

    Args:
        bootstrap: The broker.
        topic: The quarantine topic.
        wanted: Keys to wait for.
        timeout_s: How long to wait for them.
    """
    consumer = Consumer({**client_config(bootstrap), "group.id": "demo-quarantine", "enable.auto.commit": False})
    try:
        partitions = consumer.list_topics(topic, timeout=timeout_s).topics[topic].partitions
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        found: dict[str, str] = {}
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            message = consumer.poll(1.0)
            if message is None and wanted <= found.keys():
                break
            if message is None or message.error() is not None:
                continue
            headers = dict(message.headers() or [])
            found[bytes(message.key() or b"").decode()] = bytes(headers.get("vs-reason", b"")).decode()
        return found
    finally:
        consumer.close()


def _has(observed: AbstractSet[T], wanted: frozenset[T]) -> bool:
    return len(observed) >= len(wanted) and wanted <= observed


def _given_up(worker: Worker) -> str:
    cause = worker.last_error()
    return f"gave up waiting; {'the worker logged no error' if cause is None else f'the worker says: {cause}'}"


def _must_succeed(result: BatchPublishResult) -> None:
    for failure in result.errors:
        raise DemoError(f"cannot publish {failure}")
