"""Two workers whose replays are asked for over HTTP; what a replay does is played."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from app.engine import Owner, Ownership, Replica
from app.events import decode_structured
from app.replays import Replay, Replays
from app.settings import ApiSettings
from app.web import Forwarder
from app.web.replays import ReplaysApi, replay_routes
from app.webhooks.model import WebhookRow
from app.webhooks.replay import Selection
from app.webhooks.replay_request import ReplayLimits
from tables.delivery_queries import Readers
from tables.webhooks import WEBHOOKS, webhook_key
from tests.support.listening import Answer, Caller, listening
from tests.support.memory_unit import START_MS
from tests.support.rows_reader import RowsReader
from tests.support.webhooks import TOPICS, webhook_row

DEADLINE_S = 10.0
COUNT = 4
MINE = {"w.a": (0, 1), "w-b": (2,)}
NOBODYS = 3
SINCE = {"since": "2025-06-15T00:00:00Z"}
DAY_MS = 86_400_000


class Played:
    """A run that goes on until it is let go, or until something is wrong with it."""

    def __init__(self, replay: Replay, selection: Selection) -> None:
        self.replay = replay
        self.selection = selection
        self.let_go = asyncio.Event()
        self.error: Exception | None = None

    async def run(self) -> None:
        self.replay.progress.total = 100
        self.replay.progress.scanned = 40
        await self.let_go.wait()
        if self.error is not None:
            raise self.error
        self.replay.progress.scanned = 100


class Worker:
    """A worker with some of the numbers.

    Attributes:
        told: The events for the auditors.
        failure: What a send raises.
    """

    def __init__(self, name: str, numbers: Sequence[int]) -> None:
        self.numbers = set(numbers)
        self.readers = Readers()
        self.ownership = Ownership(COUNT, lambda number: number in self.numbers)
        self.forwarder = Forwarder(self.ownership)
        self.replica: Replica[WebhookRow] = Replica(WEBHOOKS, "changelog", 1)
        self.runs: dict[str, Played] = {}
        self.told: list[dict[str, Any]] = []
        self.failure: Exception | None = None
        self.now_ms = START_MS
        self.replays = Replays(name, self._run, self._clock)
        self.caller: Caller

    def _clock(self) -> int:
        self.now_ms += 1
        return self.now_ms

    def _run(self, replay: Replay, selection: Selection) -> Any:
        self.runs[replay.id] = Played(replay, selection)
        return self.runs[replay.id]

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()
    ) -> tuple[int, int]:
        if self.failure is not None:
            raise self.failure
        event = decode_structured(value or b"")
        self.told.append({"topic": topic, "type": event.type, "id": event.id, **event.data})
        return 0, 0

    async def state(self, replay_id: str, state: str) -> Replay:
        """The replay, once it is in that state."""
        replay = self.replays.get(replay_id)
        assert replay is not None
        async with asyncio.timeout(DEADLINE_S):
            while replay.progress.state != state:
                await asyncio.sleep(0)
        return replay


class Cluster:
    """Two workers, one of which has a dot in its name; number 3 has no owner."""

    def __init__(self) -> None:
        self.readers = {number: RowsReader() for number in range(COUNT)}
        self.workers = {name: Worker(name, numbers) for name, numbers in MINE.items()}

    def webhook_of(self, number: int, **changes: Any) -> str:
        """A webhook of that number, known everywhere."""
        ownership = self.workers["w.a"].ownership
        id_ = next(f"wh_{n}" for n in range(1000) if ownership.number_of(f"wh_{n}".encode()) == number)
        row = webhook_row(id_, **changes)
        self.readers[number].rows.put(WEBHOOKS, webhook_key(id_), row)
        for worker in self.workers.values():
            worker.replica.rows[webhook_key(id_)] = row
        return id_

    @asynccontextmanager
    async def running(self, tokens: ApiSettings | None = None, **urls: str) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            owners: dict[int, Owner] = {}
            for name, worker in self.workers.items():
                for number in worker.numbers:
                    worker.readers.opened(number, self.readers[number])
                stack.push_async_callback(worker.forwarder.close)
                stack.push_async_callback(worker.replays.close)
                api = ReplaysApi(
                    replays=worker.replays,
                    replica=worker.replica,
                    readers=worker.readers,
                    ownership=worker.ownership,
                    forwarder=worker.forwarder,
                    outputs=worker,
                    events=TOPICS.events,
                    source="/vault-stream/test",
                    limits=ReplayLimits(TOPICS.vault, DAY_MS),
                    now_ms=lambda: START_MS + 1000,
                )
                worker.caller = await stack.enter_async_context(listening(replay_routes(api), tokens))
                url = urls.get(name.replace("-", "_"), worker.caller.url)
                owners |= dict.fromkeys(worker.numbers, Owner(name, url))
            for worker in self.workers.values():
                worker.ownership.update(owners)
            yield

    async def call(self, worker: str, method: str, path: str, body: Any = None, **named: Any) -> Answer:
        return await self.workers[worker].caller.call(method, path, body, **named)

    async def ask(self, worker: str, webhook_id: str, body: Any = None, **named: Any) -> Answer:
        return await self.call(worker, "POST", f"/v1/webhooks/{webhook_id}/replay", body or SINCE, **named)
