"""Parts for tests of the webhooks agent: a scripted receiver, intents, and one opened number."""

from __future__ import annotations

import asyncio
import base64
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import orjson

from agents.webhooks import WebhooksDeps, WebhooksProcessor
from app.engine import Record
from app.events import delivery_id as delivery_id_of
from app.topics import Topics
from app.webhooks.commands import Command, Op, WebhookPatch, encode_command
from app.webhooks.derived import Publisher
from app.webhooks.intents import IntentReason
from app.webhooks.model import DeliveryRow, SealedSecret, WebhookRow
from app.webhooks.owned import DeliveryOptions
from app.webhooks.pace import GlobalSlots
from app.webhooks.schedule import RetrySchedule
from app.webhooks.secrets import KeyRing, Secret
from app.webhooks.sender import NO_PROXY, AttemptOutcome, OutgoingRequest
from app.webhooks.signing import SigningKey
from tables.deliveries import DELIVERIES, delivery_key
from tables.delivery_queries import Readers
from tables.webhooks import WEBHOOKS, webhook_key
from tests.support.memory_unit import START_MS, FakeClock, MemoryContext, MemoryRows, MemoryUnit, record

TOPICS = Topics("vault", "vault-stream")
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
KEYS = KeyRing(["k1:" + base64.b64encode(bytes(32)).decode()], bytes)
SCHEDULE = RetrySchedule((0, 5, 300, 1800))
OK = AttemptOutcome(duration_ms=3, error=None, status=200)
PROXY_DOWN = AttemptOutcome(duration_ms=1, error=NO_PROXY)
TIMEOUT = AttemptOutcome(duration_ms=15_000, error="timeout")


def answer(status: int, *, body: str = "", retry_after_s: int | None = None) -> AttemptOutcome:
    """An answer with this status."""
    error = None if 200 <= status < 300 else f"status_{status}"
    return AttemptOutcome(duration_ms=3, error=error, status=status, body=body, retry_after_s=retry_after_s)


def webhook_row(webhook_id: str = "wh_a", **changes: Any) -> WebhookRow:
    """A webhook for everything."""
    sealed = SealedSecret(sealed=KEYS.seal(webhook_id, Secret(SECRET)))
    fields: dict[str, Any] = {
        "webhook_id": webhook_id,
        "version": 1,
        "url": f"https://{webhook_id.replace('_', '-')}.example.com/hook",
        "events": ("*",),
        "secrets": (sealed,),
        "created_at_ms": START_MS,
        "updated_at_ms": START_MS,
    }
    return WebhookRow(**(fields | changes))


class Receiver:
    """Answers as it is told; `hold` lets it hang until `release`.

    Attributes:
        requests: What it got, in order.
        most_at_once: How many were under way at one time.
        kept_back: How many did not get to it, as the proxy before it failed.
    """

    def __init__(self) -> None:
        self.requests: list[OutgoingRequest] = []
        self.most_at_once = 0
        self.kept_back = 0
        self._script: dict[str, list[AttemptOutcome]] = defaultdict(list)
        self._default: AttemptOutcome = OK
        self._failed_first = 0
        self._attempts: Counter[str] = Counter()
        self._open = asyncio.Event()
        self._open.set()
        self._under_way = 0

    def will_answer(self, *outcomes: AttemptOutcome, event_id: str = "") -> None:
        """The next answers; to one event, or to any."""
        self._script[event_id] += outcomes

    def always(self, outcome: AttemptOutcome) -> None:
        """What it answers once the script is over."""
        self._default = outcome

    def fails_first(self, attempts: int) -> None:
        """It fails so many attempts of each delivery, then answers as it would."""
        self._failed_first = attempts

    def hold(self) -> None:
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    @property
    def under_way(self) -> int:
        return self._under_way

    def events(self) -> list[str]:
        """The ids of the events that were posted, in order."""
        return [header(request, "X-Event-Id") for request in self.requests]

    async def post(self, request: OutgoingRequest) -> AttemptOutcome:
        self.requests.append(request)
        self._under_way += 1
        self.most_at_once = max(self.most_at_once, self._under_way)
        try:
            await self._open.wait()
        finally:
            self._under_way -= 1
        for key in (header(request, "X-Event-Id"), ""):
            if self._script[key]:
                return self._scripted(request, self._script[key].pop(0))
        delivery = header(request, "X-Delivery-Id")
        self._attempts[delivery] += 1
        if self._attempts[delivery] <= self._failed_first:
            return answer(500)
        return self._scripted(request, self._default)

    def _scripted(self, request: OutgoingRequest, outcome: AttemptOutcome) -> AttemptOutcome:
        if outcome.error == NO_PROXY:
            self.requests.remove(request)
            self.kept_back += 1
        return outcome


def header(request: OutgoingRequest, name: str) -> str:
    """One of our own headers."""
    return dict(request.protected_headers)[name]


class Desk:
    """One number of the agent, opened over rows."""

    def __init__(
        self,
        *,
        rows: MemoryRows | None = None,
        clock: FakeClock | None = None,
        options: DeliveryOptions | None = None,
        slots: GlobalSlots | None = None,
        keys: KeyRing = KEYS,
        signing_key: SigningKey | None = None,
        uniform: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.context = MemoryContext(rows=rows, clock=clock, agent="webhooks")
        self.receiver = Receiver()
        self.busy = False
        self.readers = Readers()
        self.slots = slots or GlobalSlots(256)
        self.deps = WebhooksDeps(
            sender=self.receiver,
            keys=keys,
            signing_key=signing_key,
            slots=self.slots,
            publisher=Publisher("/vault-stream/test", "worker-1"),
            readers=self.readers,
            options=options or DeliveryOptions(schedule=SCHEDULE),
            uniform=uniform,
            busy=lambda: self.busy,
        )
        self.processor = WebhooksProcessor(self.context, TOPICS, self.deps)
        self._offsets = itertools.count()

    @property
    def clock(self) -> FakeClock:
        return self.context.clock

    async def open(self, *webhooks: WebhookRow) -> Desk:
        """Open the number with these webhooks in its table."""
        for row in webhooks:
            self.context.rows.put(WEBHOOKS, webhook_key(row.webhook_id), row)
        await self.context.open(self.processor)
        await self.settle()
        return self

    async def settle(self) -> None:
        await self.context.settle(self.processor)

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, with every tick that falls due on the way."""
        end_s = self.clock.monotonic_s() + seconds
        await self.settle()
        while (at_s := self.context.next_tick_s) is not None and at_s <= end_s:
            self.clock.advance(max(at_s - self.clock.monotonic_s(), 0.001))
            await self.settle()
        self.clock.advance(max(0.0, end_s - self.clock.monotonic_s()))
        await self.settle()

    def intent(self, event_id: str, webhook_id: str = "wh_a", **more: Any) -> Record:
        """The record of an intent."""
        reason = more.pop("reason", IntentReason.EVENT)
        request_id = more.pop("request_id", None)
        event = {
            "specversion": "1.0",
            "id": event_id,
            "source": "/vault",
            "type": "llm.data-vault.dataset.created",
            "data": {"dataset_id": "d1"},
            **more,
        }
        headers = [
            ("vs-delivery-id", delivery_id_of(webhook_id, event["source"], event_id).encode()),
            ("vs-webhook-id", webhook_id.encode()),
            ("vs-reason", reason.encode()),
            ("vs-origin", b"vault.events/0/7"),
            *([("vs-request-id", request_id.encode())] if request_id else []),
        ]
        return record(
            orjson.dumps(event),
            topic=TOPICS.deliveries,
            offset=next(self._offsets),
            key=webhook_id.encode(),
            headers=headers,
        )

    def command(self, op: Op, webhook_id: str = "wh_a", **more: Any) -> Record:
        """The record of a command."""
        at_ms = self.clock.now_ms()
        fields: dict[str, Any] = {"command_id": f"c-{op}", "expires_at": at_ms + 15_000, "actor": "ops", "at": at_ms}
        command = Command(op=op, webhook_id=webhook_id, patch=more.pop("patch", WebhookPatch()), **(fields | more))
        return record(
            encode_command(command),
            topic=TOPICS.commands,
            offset=next(self._offsets),
            key=webhook_id.encode(),
            timestamp=at_ms,
        )

    async def deliver(self, *records: Record) -> MemoryUnit:
        """Run one slice and let everything that it starts come to rest."""
        unit = await self.context.deliver(self.processor, *records)
        await self.settle()
        return unit

    def row(self, event_id: str, webhook_id: str = "wh_a") -> DeliveryRow | None:
        """The row of a delivery."""
        id_ = delivery_id_of(webhook_id, "/vault", event_id)
        return self.context.rows.get(DELIVERIES, delivery_key(webhook_id, id_))

    def webhook(self, webhook_id: str = "wh_a") -> WebhookRow | None:
        return self.context.rows.get(WEBHOOKS, webhook_key(webhook_id))

    def sent(self, topic: str) -> list[dict[str, Any]]:
        """The decoded events of a topic, in order."""
        return [orjson.loads(sent.value or b"") for sent in self.context.sent_to(topic)]

    async def until(self, condition: Callable[[], bool], *, within_s: float) -> None:
        """Let time pass until something holds.

        Raises:
            TimeoutError: It did not in time.
        """
        end_s = self.clock.monotonic_s() + within_s
        while not condition():
            if self.clock.monotonic_s() >= end_s:
                raise TimeoutError(f"not within {within_s} s")
            await self.pass_time(1.0)
