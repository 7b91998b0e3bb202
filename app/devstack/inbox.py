"""The receiver of `vault-stream dev`: it takes everything, and says in one line what came."""

import json
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web

from app.devstack.receivers import Receiver, signatures_hold
from app.devstack.standins import Observations
from app.observability.redaction import escaped

__all__ = ["Inbox"]

NAMESPACE = "llm.data-vault."


class Inbox(Receiver):
    """An honest receiver at `hook_url`, which checks signatures; and one at `open_url`, and below, for any webhook.

    Nobody but the one who made a webhook knows its secret, so what comes for others is taken unchecked.

    Args:
        say: Told of each request, in one line.
    """

    def __init__(self, observations: Observations, say: Callable[[str], None]) -> None:
        super().__init__("honest", observations)
        self._say = say
        self._seen: Counter[tuple[str, str]] = Counter()

    @property
    def open_url(self) -> str:
        """Where deliveries of any webhook may go; any path below it does as well, and is shown."""
        return f"{self.url}/inbox"

    def _routes(self) -> list[web.RouteDef]:
        paths = ("/inbox", "/inbox/{name:.*}")
        return [
            *super()._routes(),
            *(web.post(path, self._open) for path in paths),
            *(web.options(path, self._permit) for path in (*paths, "/hook")),
        ]

    async def _take(self, request: web.Request) -> web.Response:
        response = await super()._take(request)
        refused = response.status >= HTTPStatus.BAD_REQUEST
        told = "401, the signature does not hold: a webhook of yours wants /inbox" if refused else "the signature holds"
        self._tell(request, await request.read(), told)
        return response

    async def _open(self, request: web.Request) -> web.Response:
        body = await request.read()
        known = any(signatures_hold(secret, dict(request.headers), body) for secret in self._secrets)
        self._tell(request, body, "the signature holds" if known else "the signature is not checked")
        return web.Response(status=204)

    async def _permit(self, request: web.Request) -> web.Response:
        """The handshake of CloudEvents web hooks."""
        return web.Response(headers={"WebHook-Allowed-Origin": request.headers.get("WebHook-Request-Origin", "*")})

    def _tell(self, request: web.Request, body: bytes, told: str) -> None:
        event = _event_in(body)
        kind = str(event.get("type", "no event")).removeprefix(NAMESPACE)
        delivery = request.headers.get("webhook-id", "none")
        self._seen[request.path, delivery] += 1
        times = self._seen[request.path, delivery]
        again = "" if times == 1 else f", time {times}"
        line = f"received    {request.path}  {kind}  event {event.get('id')}  delivery {delivery}{again}  ({told})"
        self._say(escaped(line))


def _event_in(body: bytes) -> dict[str, Any]:
    try:
        event = json.loads(body)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}
