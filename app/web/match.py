"""What if: which webhooks would get an event, and why the others would not; nothing is sent (contracts 8.3)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from app.events import EventKind, InvalidEvent, check_type, decode_payload, decode_structured, parse_time_ms
from app.web.auth import reads
from app.web.problems import FieldError, Problem
from app.web.requests import BodyTypes, json_text, query_of, takes

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.events import CloudEvent
    from app.web.webhook_commands import CommandGate
    from app.webhooks.matching import MatchIndex
    from app.webhooks.model import WebhookRow

__all__ = ["match_routes"]

_TYPES: Final = BodyTypes(
    ("application/cloudevents+json", "application/json"),
    "Send one event as JSON in UTF-8, with Content-Type: application/cloudevents+json.",
)
_DELIVERED: Final = frozenset({EventKind.VAULT, EventKind.OPERATOR})


def match_routes(
    gate: CommandGate, index: MatchIndex, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
) -> list[web.RouteDef]:
    """`POST /v1/match`.

    Args:
        gate: Has all webhooks.
        index: What the router asks.
        now_ms: Wall clock.
    """
    return [web.post("/v1/match", _Match(gate, index, now_ms).match)]


class _Match:
    def __init__(self, gate: CommandGate, index: MatchIndex, now_ms: Callable[[], int]) -> None:
        self._gate = gate
        self._index = index
        self._now_ms = now_ms

    @reads
    @takes(_TYPES)
    async def match(self, request: web.Request) -> web.Response:
        """Every webhook, in the order of the ids, with the router's own verdict and its owner's."""
        query_of(request, ())
        text = await json_text(request)
        rows = self._gate.rows().values()
        try:
            event = decode_structured(text)
            delivered = check_type(event) in _DELIVERED
            decode_payload(event)
        except InvalidEvent as error:
            field = FieldError(f"/{error.attribute}" if error.attribute else "", error.reason, error.detail)
            detail = f"The router would put this event into quarantine: {error.detail}"
            raise Problem(422, error.reason, detail, errors=[field]) from None
        shown = [self._verdict(row, event, delivered=delivered) for row in rows if not row.deleting]
        return web.json_response({"items": sorted(shown, key=lambda item: str(item["webhook_id"]))})

    def _verdict(self, row: WebhookRow, event: CloudEvent, *, delivered: bool) -> dict[str, Any]:
        if not delivered or row.webhook_id not in self._index:
            return {"webhook_id": row.webhook_id, "matched": False, "why_not": "pattern"}
        found = self._index.explain(row.webhook_id, event)
        matched, why_not = found.matched, found.why_not
        if matched and not row.enabled:
            matched, why_not = False, "disabled"
        elif matched and self._expired(event):
            matched, why_not = False, "expired"
        told: dict[str, Any] = {"webhook_id": row.webhook_id, "matched": matched}
        if found.pattern is not None:
            told["pattern"] = found.pattern
        if why_not is not None:
            told["why_not"] = why_not
        return told

    def _expired(self, event: CloudEvent) -> bool:
        expirytime = event.extensions.get("expirytime")
        return isinstance(expirytime, str) and parse_time_ms(expirytime) <= self._now_ms()
