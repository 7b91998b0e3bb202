"""The figures of all workers at once, from any of them: `GET /v1/workers`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from app.web.forward import HOP_HEADER
from app.web.requests import query_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.engine import Ownership
    from app.web.forward import Forwarder

__all__ = ["worker_list_routes"]


def worker_list_routes(
    here: str, figures: Callable[[], dict[str, Any]], ownership: Ownership, forwarder: Forwarder
) -> list[web.RouteDef]:
    """`GET /v1/workers`: the one that is asked comes first.

    Args:
        here: The name of this worker.
        figures: What `GET /v1/stats` of this worker says, which has its name as `worker`.
    """

    async def index(request: web.Request) -> web.Response:
        query_of(request, ())
        items, missing = [figures()], set[int]()
        if HOP_HEADER not in request.headers:
            others = [n for n in range(ownership.count) if not _is_here(n)]
            for asked, answer in await forwarder.ask_owners(request, others, _read):
                if answer is None:
                    missing |= asked
                else:
                    items.append(answer)
        body = orjson.dumps({"items": items, "missing": sorted(missing)})
        return web.Response(body=body, content_type="application/json")

    def _is_here(number: int) -> bool:
        owner = ownership.owner(number)
        return ownership.is_mine(number) if owner is None else owner.name == here

    return [web.get("/v1/workers", index)]


def _read(body: bytes) -> dict[str, Any]:
    """What another worker said of itself.

    Raises:
        ValueError: It is none.
    """
    answer = orjson.loads(body)
    try:
        (worker,) = answer["items"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("not a list of one worker") from error
    if not isinstance(worker, dict):
        raise ValueError("not the figures of a worker")  # noqa: TRY004  # what the caller takes for no answer
    return worker
