"""`GET /v1/webhooks/{id}/activity`: what the owner of a webhook sees of its receiver (contracts 8.3)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web

from app.events import format_time
from app.web.owned_rows import taken_over
from app.web.requests import query_of
from app.webhooks.recent import BUCKET_S
from tables.webhooks import webhook_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.engine import Ownership
    from app.web.forward import Forwarder
    from app.web.webhook_commands import CommandGate
    from app.webhooks.recent import Activity
    from tables.delivery_queries import Readers

__all__ = ["ActivityApi", "activity_routes"]


@dataclass(frozen=True, slots=True)
class ActivityApi:
    """What the route works with."""

    gate: CommandGate
    readers: Readers
    ownership: Ownership
    forwarder: Forwarder
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000


def activity_routes(api: ActivityApi) -> list[web.RouteDef]:
    """The one."""

    async def show(request: web.Request) -> web.StreamResponse:
        query_of(request, ())
        webhook_id = api.gate.row(request.match_info["id"]).webhook_id
        number = api.ownership.number_of(webhook_key(webhook_id))
        if (answer := await api.forwarder.to_owner(request, number)) is not None:
            return answer
        reader = api.readers.get(number)
        if reader is None:
            raise taken_over()
        return web.json_response(_shown(reader.activity(webhook_id, api.now_ms())))

    return [web.get("/v1/webhooks/{id}/activity", show)]


def _shown(activity: Activity) -> dict[str, Any]:
    return {
        "since": format_time(activity.since_ms),
        "bucket_s": BUCKET_S,
        "buckets": [
            {"at": format_time(bucket.start_ms), "delivered": bucket.delivered, "failed": bucket.failed}
            for bucket in activity.buckets
        ],
        "in_flight": activity.in_flight,
        "failures": activity.failures,
        "blocked": None if activity.blocked is None else activity.blocked.value,
        "paced": activity.paced,
    }
