"""All routes of a worker, listening, over what other support plays; no broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from app.engine import Ownership, TopicLog
from app.engine.quarantine import quarantine_message
from app.events import delivery_id, format_time
from app.observability.health import HealthRegistry, LoopWatch
from app.replays import Replay, Replays
from app.settings import ApiSettings
from app.web import Forwarder
from app.web.activity import ActivityApi, activity_routes
from app.web.audit_trail import AuditApi
from app.web.audit_verifier import AuditVerifier
from app.web.console import console_routes
from app.web.dead_letters import dead_letter_routes
from app.web.deliveries import DeliveriesApi, delivery_routes
from app.web.events import EventsApi, event_routes
from app.web.governance import governance_routes
from app.web.match import match_routes
from app.web.openapi import openapi_routes
from app.web.operations import operations_routes
from app.web.policy import policy_routes
from app.web.quarantine import QuarantineApi, quarantine_routes
from app.web.replays import ReplaysApi, replay_routes
from app.web.reports import report_routes
from app.web.resend import ResendApi, resend_routes
from app.web.signing_keys import signing_key_routes
from app.web.verifications import verification_routes
from app.web.webhook_changes import webhook_change_routes
from app.web.webhook_commands import CommandGate
from app.web.webhooks import webhook_routes
from app.web.workers import worker_list_routes
from app.webhooks.matching import MatchIndex
from app.webhooks.replay import Selection
from app.webhooks.replay_request import ReplayLimits, ReplayRequest
from tables.audit_queries import AuditReaders
from tests.support.audit_log import FakeAuditLog
from tests.support.engine import FakeRecord, RecordingOutputs
from tests.support.fake_log import FakeReader
from tests.support.listening import Caller, listening
from tests.support.memory_unit import START_MS
from tests.support.policy import Invalidated, policy_api
from tests.support.registry_api import quiet_registry_routes
from tests.support.webhook_api import DELIVERIES, Owner, webhooks_api
from tests.support.webhooks import TOPICS, Desk, webhook_row

EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "e-1",
    "source": "/vault",
    "type": "llm.data-vault.dataset.created",
    "data": {"dataset_id": "ds-1", "name": "x"},
}
DAY_MS = 86_400_000
DELIVERY_ID = delivery_id("wh_a", "/vault", "e-0")


@dataclass(frozen=True)
class WholeApi:
    """The API of a worker that has two of everything: webhooks `wh_a` and `wh_b`, dead letters `0-0` and `0-1`, …"""

    caller: Caller
    owner: Owner
    sent: RecordingOutputs
    replays: Replays
    invalidated: Invalidated

    @property
    def untouched(self) -> bool:
        """Whether nothing was asked of anybody."""
        replays = [replay.progress.state for replay in self.replays.all()]
        touched = self.owner.commands or self.owner.intents or self.sent.sent or self.invalidated.scopes
        return not touched and replays == ["running"] * 2


def _letter(offset: int) -> FakeRecord:
    data = {
        "delivery_id": delivery_id("wh_a", "/vault", f"e-{offset}"),
        "webhook_id": "wh_a",
        "reason": "exhausted",
        "attempts": 3,
        "first_at": format_time(START_MS),
        "last_at": format_time(START_MS),
        "event": {**EVENT, "id": f"e-{offset}"},
        "origin": "vault.events/0/7",
    }
    value = json.dumps({"time": format_time(START_MS), "data": data}).encode()
    return FakeRecord(TOPICS.dead_letters, 0, offset, START_MS, b"wh_a", value, ())


def _quarantined(offset: int) -> FakeRecord:
    record = FakeRecord("vault.events", 0, offset, START_MS, b"k", b"{}", ())
    message = quarantine_message(TOPICS.quarantine, "router", record, "invalid_envelope", "id is missing")
    return FakeRecord(TOPICS.quarantine, 0, offset, START_MS, message.key, message.value, message.headers)


class _Run:
    """A replay that goes on until it is cancelled."""

    def __init__(self, _replay: Replay, _selection: Selection) -> None:
        pass

    async def run(self) -> None:
        await asyncio.Event().wait()


class _Auditors:
    """Are told, and say nothing."""

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()
    ) -> tuple[int, int]:
        return 0, 0


def _no_producer() -> NoReturn:
    raise AssertionError("nothing is to be put back")


@asynccontextmanager
async def whole_api(tokens: ApiSettings | None = None) -> AsyncIterator[WholeApi]:
    """Serves until the end of the block; without tokens every caller is an admin."""
    owner, index, sent = Owner(), MatchIndex(), RecordingOutputs()
    rows = [webhook_row(id_, version=3) for id_ in ("wh_a", "wh_b")]
    owner.replica.subscribe(lambda _, row: None if row is None else index.set(row.webhook_id, row.events, row.filter))
    await owner.write(*rows)
    desk = await Desk().open(*rows)
    await desk.deliver(*(desk.intent(f"e-{number}") for number in range(2)))
    reader = FakeReader(*(make(offset) for make in (_letter, _quarantined) for offset in range(2)))
    ownership = Ownership(1, lambda _: True)
    forwarder = Forwarder(ownership)
    webhooks = webhooks_api(owner)
    gate = CommandGate(webhooks)
    again = ResendApi(
        gate=gate,
        outputs=sent,
        deliveries=DELIVERIES,
        events=TOPICS.events,
        source="/vault-stream/test",
        dead_letters=TopicLog(reader, TOPICS.dead_letters, 1),
        log_of=lambda topic, partitions: TopicLog(reader, topic, partitions),
        readers=desk.readers,
        ownership=ownership,
        forwarder=forwarder,
        now_ms=lambda: START_MS,
        random_bytes=bytes,
    )
    invalidated = Invalidated()
    replays = Replays("worker-1", _Run)
    replaying = ReplaysApi(
        replays=replays,
        replica=owner.replica,
        readers=desk.readers,
        ownership=ownership,
        forwarder=forwarder,
        outputs=_Auditors(),
        events=TOPICS.events,
        source="/vault-stream/test",
        limits=ReplayLimits(TOPICS.vault, DAY_MS),
        now_ms=lambda: START_MS,
    )
    audit = AuditApi(
        readers=AuditReaders(),
        ownership=ownership,
        forwarder=forwarder,
        log=FakeAuditLog({0: []}),
        topic=TOPICS.audit,
        sealing=False,
        position=lambda _: 0,
        outputs=_Auditors(),
        events=TOPICS.events,
        source="/vault-stream/test",
    )
    verifier = AuditVerifier("worker-1", audit.log, FakeAuditLog(), lambda: 0, lambda: START_MS)
    routes = [
        *webhook_routes(webhooks),
        *webhook_change_routes(webhooks),
        *activity_routes(ActivityApi(gate, desk.readers, ownership, forwarder, lambda: START_MS)),
        *match_routes(gate, index),
        *event_routes(EventsApi(sent, "vault", "per_type")),
        *resend_routes(again),
        *dead_letter_routes(again),
        *quarantine_routes(QuarantineApi(TopicLog(reader, TOPICS.quarantine, 1), TOPICS, _no_producer)),
        *delivery_routes(DeliveriesApi(desk.readers, ownership, forwarder)),
        *replay_routes(replaying),
        *policy_routes(policy_api(invalidated)),
        *quiet_registry_routes(),
        *governance_routes(audit),
        *verification_routes(audit, verifier),
        *report_routes(None),
        *operations_routes(HealthRegistry(), LoopWatch(), {}),
        *worker_list_routes("worker-1", lambda: {"worker": "worker-1"}, ownership, forwarder),
        *signing_key_routes([]),
        *openapi_routes(),
        *console_routes(),
    ]
    for request_id in ("r-1", "r-2"):
        request = ReplayRequest(since_ms=START_MS, request_id=request_id)
        replays.start(replays.new("wh_a", request, "admin"), Selection.of(request, None, DAY_MS))
    async with listening(routes, tokens) as caller:
        yield WholeApi(caller, owner, sent, replays, invalidated)
    await verifier.close()
    await replays.close()
    await forwarder.close()
    await desk.context.close(desk.processor)


@dataclass(frozen=True)
class RawAnswer:
    """What a connection got."""

    status: int
    kind: str
    document: Any


async def raw(caller: Caller, head: Sequence[bytes], body: bytes = b"") -> RawAnswer:
    """Send lines that no client would send."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(caller.url.rpartition(":")[2]))
    try:
        writer.write(b"\r\n".join((*head, b"Connection: close", b"", body)))
        async with asyncio.timeout(10):
            answer = await reader.read()
    finally:
        writer.close()
    told, _, text = answer.partition(b"\r\n\r\n")
    lines = told.decode("latin-1").split("\r\n")
    kinds = [line.partition(":")[2].strip() for line in lines if line.lower().startswith("content-type:")]
    return RawAnswer(int(lines[0].split()[1]), kinds[0] if kinds else "", json.loads(text) if text else None)
