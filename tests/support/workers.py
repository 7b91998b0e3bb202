"""Real workers on a real broker, with everything around them in the test process: upstreams, receivers, a publisher."""

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
import pytest
from aiohttp import web
from confluent_kafka import Consumer, Message, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from app.devstack.kafka import free_port
from app.devstack.leash import leashed
from app.devstack.processes import Worker, module_command, module_environment
from app.devstack.receivers import Receiver, ReceiverKind
from app.devstack.stack import Upstreams, WorkerApi, worker_settings
from app.devstack.standins import Observations, Standin
from app.devstack.tally import EventKey
from app.publishing import KafkaConfig, KafkaEventPublisher, VaultEvent
from app.topics import Topics
from tests.support.canaries import CREDENTIALS, WATCH, encryption_key_entry

T = TypeVar("T")

DEADLINE_S = 90.0
"""Of every wait: the machine has two cores, and others are on them."""
ASK_AGAIN_S = 0.1
PUBLISH_BATCH = 50


async def until(condition: Callable[[], Awaitable[T]], what: str, deadline_s: float = DEADLINE_S) -> T:
    """Asks another process until the answer is true; that answer."""
    try:
        async with asyncio.timeout(deadline_s):
            while not (value := await condition()):
                await asyncio.sleep(ASK_AGAIN_S)
            return value
    except TimeoutError:
        raise AssertionError(f"not within {deadline_s:.0f} s: {what}") from None


async def fetch(url: str) -> tuple[int, Any]:
    """Status and body, decoded if it is JSON; 0 and None while nothing listens."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15)) as client,
            client.get(url) as answer,
        ):
            text = await answer.text()
    except (aiohttp.ClientError, TimeoutError, OSError):
        return 0, None
    return answer.status, json.loads(text) if answer.content_type.endswith(("/json", "+json")) else text


class TimedReceiver(Receiver):
    """A receiver that also remembers when each delivery was accepted, in seconds since 1970."""

    def __init__(self, kind: ReceiverKind, observations: Observations) -> None:
        super().__init__(kind, observations)
        self.accepted_at: defaultdict[str, list[float]] = defaultdict(list)

    async def _take(self, request: web.Request) -> web.Response:
        response = await super()._take(request)
        if response.status == 204:
            self.accepted_at[request.headers["webhook-id"]].append(time.time())
        return response


@dataclass(frozen=True)
class Hook:
    """A webhook made through the API, and the receiver behind it."""

    id: str
    pattern: str
    receiver: TimedReceiver

    def matches(self, event: VaultEvent) -> bool:
        """Whether the event is for it: written down here once more, independent of the program's matcher."""
        short = event.type.removeprefix("llm.data-vault.")
        return self.pattern in ("*", short, short.partition(".")[0] + ".*")

    def expected(self, events: Sequence[VaultEvent]) -> set[EventKey]:
        """The events that its receiver must see."""
        return {(event.source, event.id) for event in events if self.matches(event)}


class RunningWorker(Worker):
    """One worker process with its own data directory and ports."""

    def __init__(self, folder: Path, settings: Mapping[str, str], *, faust: bool = False) -> None:
        self.name = settings["INSTANCE_ID"]
        self.data_dir = Path(settings["DATA_DIR"])
        self.url = f"http://127.0.0.1:{settings['WEB_PORT']}"
        folder.mkdir(parents=True, exist_ok=True)
        script = str(Path(sys.executable).with_name("faust"))
        command = (
            leashed([script, "-A", "app.main", "worker", "-l", "info"]) if faust else module_command("app", "worker")
        )
        super().__init__(settings, folder, command)

    async def get(self, path: str) -> tuple[int, Any]:
        """Status and body of its web listener."""
        return await fetch(self.url + path)

    async def stats(self) -> dict[str, Any]:
        """`GET /v1/stats`; empty while there is no answer."""
        status, body = await self.get("/v1/stats")
        return body if status == 200 else {}

    async def ready(self) -> bool:
        """Whether it says so."""
        return (await self.get("/health/ready"))[0] == 200

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of one name that have these labels."""
        status, text = await self.get("/metrics")
        if status != 200:
            return 0.0
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal and returns at once."""
        assert self._process is not None
        self._process.send_signal(number)

    async def exit_code(self, within_s: float) -> int:
        """Waits for its end."""
        assert self._process is not None
        async with asyncio.timeout(within_s):
            return await self._process.wait()

    def held(self) -> frozenset[int]:
        """The numbers of its last assignment, as it keeps them on its disk."""
        try:
            return frozenset(json.loads((self.data_dir / "membership.json").read_bytes())["held"])
        except FileNotFoundError:
            return frozenset()

    def wipe(self) -> None:
        """Its disk is lost."""
        shutil.rmtree(self.data_dir)


class Deployment:
    """One application id on a broker: workers, what is around them, webhooks and events.

    Attributes:
        settings: Of all workers; may be changed before they start.
    """

    def __init__(self, brokers: str, app_id: str, folder: Path) -> None:
        self.brokers = brokers
        self.app_id = app_id
        self.topics = Topics(app_id, app_id)
        self.observations = Observations()
        self.upstreams = Upstreams.new(self.observations)
        self.hooks: list[Hook] = []
        self.workers: dict[str, RunningWorker] = {}
        self.settings: dict[str, str] = {
            "TOPIC_PREFIX": app_id,
            "WEBHOOKS__RETRY_SCHEDULE_S": "[0,1,1,2]",
            # Where upstreams are taken away, events that tell of it would stand between those that are counted.
            "HEALTH__DEGRADED_AFTER_S": "3600",
            # The stand-ins ask for none; they are there to be searched for.
            "GOVERNANCE__TOKEN": CREDENTIALS["dashboard token"],
            "POLICY__TOKEN": CREDENTIALS["policy token"],
            "REGISTRY__TOKEN": CREDENTIALS["registry token"],
        }
        self._folder = folder
        self._key = encryption_key_entry()
        self._standins: list[Standin] = []

    async def __aenter__(self) -> Self:
        for upstream in self.upstreams.all:
            await self._listen(upstream)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for worker in self.workers.values():
            await worker.kill()
        for standin in self._standins:
            await standin.stop()
        await asyncio.to_thread(WATCH.look_below, self._folder)

    async def _listen(self, standin: Standin) -> None:
        await standin.start()
        self._standins.append(standin)

    # -- workers

    def worker(self, name: str, *, faust: bool = False, **settings: str) -> RunningWorker:
        """A worker that is not started yet."""
        own = worker_settings(
            brokers=self.brokers,
            app_id=self.app_id,
            data_dir=self._folder / name / "data",
            web_port=free_port(),
            encryption_key=self._key,
            upstreams=self.upstreams,
        )
        worker = RunningWorker(
            self._folder / name, {**own, "INSTANCE_ID": name, **self.settings, **settings}, faust=faust
        )
        self.workers[name] = worker
        return worker

    async def start(self, *names: str) -> list[RunningWorker]:
        """Starts workers and waits until all of them are ready."""
        workers = [self.worker(name) for name in names]
        for worker in workers:
            await worker.start()
        for worker in workers:
            await self.ready(worker)
        return workers

    async def ready(self, worker: RunningWorker) -> None:
        """Waits until it is ready; at once an error when it ends instead."""
        await worker.while_alive(until(worker.ready, f"{worker.name} is ready"))

    async def idle(self) -> None:
        """Waits until no worker has any lag: every record of every topic is done."""

        left: dict[str, Any] = {}

        async def settled() -> bool:
            for name, worker in self.workers.items():
                stats = await worker.stats()
                left[name] = (stats["lag"] or stats["not_ready"]) if stats else "no answer"
            return not any(left.values())

        try:
            await until(settled, "no lag anywhere")
        except AssertionError:
            pytest.fail(f"lag, or why a worker is not ready: {left}")

    async def stop(self) -> list[int | None]:
        """SIGTERM to all at once; their exit codes. Who comes to its limit for a stop ends with 0, and fails here."""
        codes = await asyncio.gather(*(worker.stop() for worker in self.workers.values()))
        for worker in self.workers.values():
            assert "not everything ended within" not in worker.log.read_text(), worker.name
        return codes

    # -- webhooks and events

    async def hook(self, pattern: str, kind: ReceiverKind = "honest", receiver: TimedReceiver | None = None) -> Hook:
        """A webhook, made through the API of the first worker; for a receiver of that kind, or for the given one."""
        receiver = receiver or TimedReceiver(kind, self.observations)
        await self._listen(receiver)
        worker = next(iter(self.workers.values()))
        async with WorkerApi(worker.url, self.settings.get("API__ADMIN_TOKEN")) as api:
            webhook = await worker.while_alive(api.create_webhook(receiver.hook_url, [pattern]))
        receiver.trust(webhook["secret"])
        hook = Hook(webhook["id"], pattern, receiver)
        self.hooks.append(hook)
        return hook

    async def publish(self, events: Sequence[VaultEvent], *, per_s: float | None = None) -> None:
        """Publishes all events, all at once or so many a second."""
        config = KafkaConfig(brokers=[self.brokers], topic_prefix=self.topics.prefix)
        async with KafkaEventPublisher(config) as publisher:
            for first in range(0, len(events), PUBLISH_BATCH):
                result = await publisher.publish_batch(events[first : first + PUBLISH_BATCH])
                assert not result.errors
                if per_s is not None:
                    await asyncio.sleep(PUBLISH_BATCH / per_s)

    async def observed(self, holds: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
        """Waits for something that stand-ins see."""
        assert await self.observations.until(holds, deadline_s), f"not within {deadline_s:.0f} s: {what}"

    async def read(self, *topics: str) -> list[Message]:
        """Every committed record that is in the topics now."""
        return await asyncio.to_thread(read_topic, self.brokers, *topics)

    async def read_raw(self, *topics: str) -> list[Message]:
        """Every record that is in the topics now, also of transactions that were aborted."""
        return await asyncio.to_thread(read_topic, self.brokers, *topics, committed=False)

    async def verify_audit(self) -> list[dict[str, Any]]:
        """What `audit verify --topic` says of each partition, once it has ended with 0."""
        settings = {"BROKERS": self.brokers, "APP_ID": self.app_id, "TOPIC_PREFIX": self.topics.prefix}
        command = [sys.executable, "-m", "app", "audit", "verify", "--topic", "--json"]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=self._folder, env=module_environment(settings)
        )
        out, err = await process.communicate()
        assert process.returncode == 0, (out, err)
        partitions: list[dict[str, Any]] = json.loads(out)["partitions"]
        return partitions


@contextmanager
def _reader(brokers: str, *, committed: bool) -> Iterator[Consumer]:
    consumer = Consumer(
        {
            "bootstrap.servers": brokers,
            "group.id": "reads-without-a-group",
            "enable.auto.commit": False,
            "isolation.level": "read_committed" if committed else "read_uncommitted",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            # Only an empty answer says that the end is reached, and one that waits for a busy writer is never empty.
            "fetch.wait.max.ms": 10,
            "log_level": 0,
        }
    )
    try:
        yield consumer
    finally:
        consumer.close()


def read_topic(brokers: str, *topics: str, committed: bool = True) -> list[Message]:
    """Every committed record that is in the topics now, in the order of each partition."""
    found: list[Message] = []
    with _reader(brokers, committed=committed) as consumer:
        metadata = consumer.list_topics(timeout=20).topics
        todo = {(topic, partition) for topic in topics for partition in metadata[topic].partitions}
        consumer.assign([TopicPartition(topic, partition, 0) for topic, partition in sorted(todo)])
        while todo:
            for message in consumer.consume(500, 0.1):
                if message.error() is None:
                    found.append(message)
                else:
                    todo.discard((message.topic(), message.partition()))
    return found
