"""The routes of a worker, wired to its parts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from app.engine import TopicLog
from app.redrive.operator import Transactions
from app.web import figures
from app.web.activity import ActivityApi, activity_routes
from app.web.console import console_routes
from app.web.dead_letters import dead_letter_routes
from app.web.deliveries import DeliveriesApi, delivery_routes
from app.web.events import EventsApi, event_routes
from app.web.match import match_routes
from app.web.openapi import openapi_routes
from app.web.operations import figures_of, operations_routes
from app.web.quarantine import QuarantineApi, quarantine_routes
from app.web.registry import registry_routes
from app.web.resend import ResendApi, resend_routes
from app.web.signing_keys import signing_key_routes
from app.web.webhook_changes import webhook_change_routes
from app.web.webhook_commands import CommandGate
from app.web.webhooks import WebhooksApi, webhook_routes
from app.web.workers import worker_list_routes
from app.webhooks.registration import Limits
from app.worker_governance import governance_of
from app.worker_policy import policy_of
from app.worker_registry import registry_api
from app.worker_replays import replays_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiohttp import web

    from app.main import Program
    from app.webhooks.handshake import PermissionAnswer

__all__ = ["worker_routes"]


class _Asks:
    """Asks receivers, under the name of this deployment."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self.origin = program.settings.webhooks.origin

    async def options(self, url: str, headers: Mapping[str, str], custom: Mapping[str, str]) -> PermissionAnswer:
        return await self._program.sender.options(url, headers, custom)


def worker_routes(program: Program) -> list[web.RouteDef]:
    """All of them; nothing is asked of the parts before the first request."""
    settings, engine, topics = program.settings, program.engine, program.topics
    webhooks = WebhooksApi(
        replica=program.webhooks,
        outputs=engine.outputs,
        commands=topics.commands,
        deliveries=topics.deliveries,
        source=f"/vault-stream/{settings.app_id}",
        keys=program.keys,
        guard=program.guard,
        limits=Limits(max_in_flight=settings.webhooks.max_in_flight, signing_key=bool(program.signing_keys)),
        asks=_Asks(program),
    )
    stats = _stats(program)
    gate = CommandGate(webhooks)
    again = ResendApi(
        gate=gate,
        outputs=engine.outputs,
        deliveries=topics.deliveries,
        events=topics.events,
        source=webhooks.source,
        dead_letters=TopicLog(engine.readers.api, topics.dead_letters, settings.partitions),
        log_of=lambda topic, partitions: TopicLog(engine.readers.api, topic, partitions),
        readers=program.readers,
        ownership=engine.ownership,
        forwarder=program.forwarder,
        now_ms=engine.clock.now_ms,
        random_bytes=os.urandom,
    )
    return [
        *openapi_routes(),
        *console_routes(),
        *operations_routes(program.health, program.watch, stats),
        *worker_list_routes(settings.instance_id, lambda: figures_of(stats), engine.ownership, program.forwarder),
        *signing_key_routes(program.signing_keys),
        *webhook_routes(webhooks),
        *webhook_change_routes(webhooks),
        *activity_routes(ActivityApi(gate, program.readers, engine.ownership, program.forwarder)),
        *match_routes(gate, program.index),
        *event_routes(EventsApi(engine.outputs, settings.topic_prefix, settings.topic_layout)),
        *resend_routes(again),
        *dead_letter_routes(again),
        *quarantine_routes(_quarantine(program)),
        *replays_of(program.app, settings, topics, program.webhooks, program.readers, program.forwarder),
        *policy_of(program.app, settings, topics, program.upstreams["policy"], program.decisions, program.forwarder),
        *registry_routes(registry_api(program)),
        *governance_of(program),
        *delivery_routes(DeliveriesApi(program.readers, engine.ownership, program.forwarder)),
    ]


def _quarantine(program: Program) -> QuarantineApi:
    settings, engine = program.settings, program.engine
    transactional_id = f"{settings.app_id}-republish-{settings.instance_id}"
    return QuarantineApi(
        log=TopicLog(engine.readers.api, program.topics.quarantine, settings.partitions),
        topics=program.topics,
        producer=lambda: Transactions(engine.connection.librdkafka(), transactional_id, embedded=not engine.fenced),
    )


def _stats(program: Program) -> dict[str, Callable[[], Any]]:
    engine = program.engine
    return {
        "worker": lambda: program.settings.instance_id,
        "fenced": lambda: engine.fenced,
        "numbers": lambda: {str(n): number.state.value for n, number in sorted(engine.numbers.items())},
        "owners": lambda: {str(n): name for n, name in engine.status.owners().items()},
        "not_ready": engine.status.not_ready,
        "recovery": lambda: progress.to_json() if (progress := engine.recovery.progress()) is not None else None,
        "lag": lambda: {topic: lag for topic, lag in engine.status.lag().items() if lag},
        "oldest_unfinished_s": engine.status.oldest_unfinished_s,
        "flow": figures.flow,
        "webhooks": figures.webhooks,
        "off": lambda: [name for name, upstream in program.upstreams.items() if upstream is None],
    }
