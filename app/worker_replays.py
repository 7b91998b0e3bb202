"""The replays of a worker, put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.engine.log_stream import LogStream
from app.replays import Replays, ReplayWorld, VaultLog
from app.web.replays import ReplaysApi, replay_routes
from app.webhooks.replay_request import ReplayLimits
from tables.webhooks import webhook_key

if TYPE_CHECKING:
    from aiohttp import web

    from app.engine import Replica
    from app.engine.app import EngineApp
    from app.settings import Settings
    from app.topics import Topics
    from app.web.forward import Forwarder
    from app.webhooks.model import WebhookRow
    from tables.delivery_queries import Readers

__all__ = ["replays_of"]


def replays_of(
    app: EngineApp,
    settings: Settings,
    topics: Topics,
    replica: Replica[WebhookRow],
    readers: Readers,
    forwarder: Forwarder,
) -> list[web.RouteDef]:
    """The routes of the replays; the replays themselves end with the application."""
    engine = app.engine
    client_id = f"{settings.app_id}-{settings.instance_id}-replay"
    world = ReplayWorld(
        worker=settings.instance_id,
        deliveries=topics.deliveries,
        log=VaultLog(LogStream(engine.connection, client_id, topics.vault, engine.readers.api)),
        outputs=engine.outputs,
        readers=readers,
        ownership=engine.ownership,
        webhook=lambda webhook_id: replica.rows.get(webhook_key(webhook_id)),
    )
    replays = Replays(settings.instance_id, world.run_of)
    # Before everything else that ends with the application: they use it.
    app.after_stop.insert(0, replays.close)
    api = ReplaysApi(
        replays=replays,
        replica=replica,
        readers=readers,
        ownership=engine.ownership,
        forwarder=forwarder,
        outputs=engine.outputs,
        events=topics.events,
        source=f"/vault-stream/{settings.app_id}",
        limits=ReplayLimits(topics.vault, round(settings.webhooks.history_ttl_s * 1000)),
    )
    return replay_routes(api)
