"""The policy service of a worker, put together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from app.engine import Message
from app.events import STRUCTURED_HEADERS, uuid7
from app.integrations.policy import DecisionJournal, Dialect, Evaluator, InvalidationTail, Lifetimes, PolicyEngine
from app.read_ahead import ReadAhead
from app.web.policy import PolicyApi, policy_routes
from app.web.policy_owners import OwnedDecisions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import web

    from app.engine.app import EngineApp
    from app.integrations import Upstream
    from app.settings import PolicySettings, Settings
    from app.topics import Topics
    from app.web.forward import Forwarder
    from tables.decisions import DecisionReaders

__all__ = ["policy_of"]


def policy_of(
    app: EngineApp,
    settings: Settings,
    topics: Topics,
    upstream: Upstream | None,
    readers: DecisionReaders,
    forwarder: Forwarder,
) -> list[web.RouteDef]:
    """The routes of the policy service; what is behind them begins and ends with the application."""
    engine, chosen = app.engine, settings.policy
    asks = None if upstream is None else PolicyEngine(upstream, _dialect(chosen))
    evaluator = None
    if asks is not None:
        lifetimes = Lifetimes(chosen.cache_ttl_s, chosen.deny_ttl_s)
        tail = InvalidationTail(
            settings.brokers,
            topic=topics.invalidations,
            client_id=f"{settings.app_id}-{settings.instance_id}-invalidations",
            skew_s=chosen.max_clock_skew_s,
            longest_s=lifetimes.longest_s,
            options=engine.connection.aiokafka,
        )
        journal = _journal(app, settings, topics)
        evaluator = Evaluator(
            asks,
            lifetimes,
            engine.clock,
            times=tail.times,
            shared=OwnedDecisions(settings.instance_id, engine.ownership, readers, forwarder),
            records=journal,
        )
        app.before_start.append(tail.start)
        app.after_stop[:0] = [evaluator.close, tail.stop]
    return policy_routes(PolicyApi(evaluator, asks, engine.outputs, topics.invalidations, settings.public_url))


def _dialect(chosen: PolicySettings) -> Dialect:
    return Dialect(
        chosen.dialect,
        evaluate=chosen.path_evaluate,
        evaluation=chosen.path_authzen_evaluation,
        applicable=chosen.path_applicable,
        subject_type=chosen.authzen_subject_type,
        resource_type=chosen.authzen_resource_type,
    )


def _journal(app: EngineApp, settings: Settings, topics: Topics) -> DecisionJournal:
    """Writes from the start, and to the end while the outputs are still taken."""
    engine, random_bytes = app.engine, ReadAhead()
    running: list[asyncio.Task[None]] = []

    async def send(records: Sequence[tuple[bytes, bytes]]) -> None:
        await engine.outputs.send_many(
            [Message(topics.decisions, key, value, STRUCTURED_HEADERS) for key, value in records]
        )

    journal = DecisionJournal(
        send,
        source=f"/vault-stream/{settings.app_id}",
        new_id=lambda: uuid7(engine.clock.now_ms(), random_bytes),
        now_ms=engine.clock.now_ms,
        sync=settings.policy.audit == "sync",
    )

    async def start() -> None:
        running.append(asyncio.create_task(journal.run(), name="policy.decisions"))

    async def stop() -> None:
        await journal.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    app.before_start.append(start)
    app.before_stop.append(stop)
    return journal
