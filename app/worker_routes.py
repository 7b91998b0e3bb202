"""The routes of a worker, wired to its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from app.web.deliveries import DeliveriesApi, delivery_routes
from app.web.match import match_routes
from app.web.operations import operations_routes
from app.web.signing_keys import signing_key_routes
from app.web.webhook_changes import webhook_change_routes
from app.web.webhook_commands import CommandGate
from app.web.webhooks import WebhooksApi, webhook_routes
from app.webhooks.registration import Limits

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
        self.origin = urlsplit(program.settings.public_url).hostname or "localhost"

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
    return [
        *operations_routes(program.health, program.watch, _stats(program)),
        *signing_key_routes(program.signing_keys),
        *webhook_routes(webhooks),
        *webhook_change_routes(webhooks),
        *match_routes(CommandGate(webhooks), program.index),
        *delivery_routes(DeliveriesApi(program.readers, engine.ownership, program.forwarder)),
    ]


def _stats(program: Program) -> dict[str, Callable[[], Any]]:
    engine = program.engine
    return {
        "worker": lambda: program.settings.instance_id,
        "fenced": lambda: engine.fenced,
        "numbers": lambda: {str(n): number.state.value for n, number in sorted(engine.numbers.items())},
        "owners": lambda: {str(n): name for n, name in engine.status.owners().items()},
        "not_ready": engine.status.not_ready,
        "lag": lambda: {topic: lag for topic, lag in engine.status.lag().items() if lag},
        "oldest_unfinished_s": engine.status.oldest_unfinished_s,
        "off": lambda: [name for name, upstream in program.upstreams.items() if upstream is None],
    }
