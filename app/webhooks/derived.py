"""What the owner of a webhook publishes of it: attempts, dead letters, and events about its health and configuration.

Structured CloudEvents (contracts 9.1 and 1.2); every id is a function of what happened, so that a unit that runs twice
sends the same event twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
import orjson

from app.events import STRUCTURED_HEADERS, AdminEventType, OperatorEventType, format_time
from app.webhooks.matching import ECHO
from app.webhooks.model import Health

if TYPE_CHECKING:
    from app.webhooks.health import HealthChange
    from app.webhooks.model import Attempt, AttemptResult, DeliveryRow, Reason

__all__ = ["EVENT_HEADERS", "HEALTH_TYPES", "Publisher"]

EVENT_HEADERS: Final = STRUCTURED_HEADERS
_DERIVED: Final = "llm.vault-stream."
_HEALTH_TYPES: Final = {
    Health.OK: OperatorEventType.WEBHOOK_RECOVERED,
    Health.FAILING: OperatorEventType.WEBHOOK_FAILING,
    Health.DISABLED: OperatorEventType.WEBHOOK_DISABLED,
}
HEALTH_TYPES: Final = frozenset(map(str, _HEALTH_TYPES.values()))


class _Attempted(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    """`data` of an attempt, in the order of contracts 9.1. Written for each attempt, so not by way of a dict."""

    delivery_id: str
    webhook_id: str
    event_id: str
    event_source: str
    event_type: str
    attempt: int
    started_at: str
    duration_ms: int
    outcome: AttemptResult
    status_code: int | None = None
    error: str | None = None
    next_at: str | None = None
    worker: str


class _AttemptEvent(msgspec.Struct, kw_only=True, gc=False):
    """The event around it."""

    specversion: str = "1.0"
    id: str
    source: str
    type: str = f"{_DERIVED}webhook.attempted"
    subject: str
    time: str
    datacontenttype: str = "application/json"
    traceparent: str | msgspec.UnsetType = msgspec.UNSET
    correlationid: str | msgspec.UnsetType = msgspec.UNSET
    data: _Attempted


_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Publisher:
    """Writes those events.

    Attributes:
        source: `/vault-stream/{app id}`.
        worker: The name of this worker.
    """

    source: str
    worker: str

    def attempted(self, row: DeliveryRow, attempt: Attempt) -> bytes:
        """One attempt that ended, for `webhook.attempts`."""
        told = _Attempted(
            delivery_id=row.delivery_id,
            webhook_id=row.webhook_id,
            event_id=row.event_id,
            event_source=row.event_source,
            event_type=row.event_type,
            attempt=attempt.attempt,
            started_at=format_time(attempt.started_ms),
            duration_ms=attempt.duration_ms,
            outcome=attempt.result,
            status_code=attempt.status_code,
            error=attempt.error,
            next_at=None if attempt.next_at_ms is None else format_time(attempt.next_at_ms),
            worker=self.worker,
        )
        event = _AttemptEvent(
            id=f"{row.delivery_id}-{attempt.attempt}-{attempt.started_ms}",
            source=self.source,
            subject=row.webhook_id,
            time=format_time(attempt.started_ms + attempt.duration_ms),
            traceparent=msgspec.UNSET if row.traceparent is None else row.traceparent,
            correlationid=msgspec.UNSET if row.correlation_id is None else row.correlation_id,
            data=told,
        )
        return _encode(event)

    def given_up(self, row: DeliveryRow, reason: Reason, body: bytes | None, now_ms: int) -> bytes:
        """A delivery that will not be tried again, for `webhook.dead-letters`; the event is spliced in as it is."""
        data = {
            "delivery_id": row.delivery_id,
            "webhook_id": row.webhook_id,
            "reason": reason,
            "attempts": row.attempts,
            "last_code": row.status_code,
            "last_error": row.error,
            "first_at": format_time(row.created_at_ms if row.first_at_ms is None else row.first_at_ms),
            "last_at": format_time(row.created_at_ms if row.last_at_ms is None else row.last_at_ms),
            "event": orjson.Fragment(body or b"null"),
            "origin": row.origin,
        }
        id_ = f"{row.delivery_id}-{row.resends}"
        return self._event(f"{_DERIVED}webhook.given-up", id_, row.webhook_id, now_ms, data, row)

    def health(self, webhook_id: str, change: HealthChange, last_code: int | None, attempt: str, now_ms: int) -> bytes:
        """A change of health, for `{prefix}.events`.

        Args:
            webhook_id: Whose.
            change: What it became.
            last_code: The status of the attempt that changed it.
            attempt: Names that attempt; two changes may fall into one millisecond.
            now_ms: Wall clock.
        """
        data = {
            "webhook_id": webhook_id,
            "reason": change.reason,
            "since": format_time(change.since_ms),
            "last_code": last_code,
        }
        id_ = f"{webhook_id}-{change.health}-{attempt}"
        return self._event(_HEALTH_TYPES[change.health], id_, webhook_id, now_ms, data, echo=change.echo)

    def administered(
        self, type_: AdminEventType, webhook_id: str, command_id: str, actor: str, version: int, now_ms: int
    ) -> bytes:
        """What an administrator did, for `{prefix}.events`: audited, delivered to nobody."""
        data = {"webhook_id": webhook_id, "version": version, "actor": {"id": actor, "type": "token"}}
        return self._event(type_, command_id, webhook_id, now_ms, data)

    def _event(
        self,
        type_: str,
        id_: str,
        subject: str,
        time_ms: int,
        data: dict[str, Any],
        cause: DeliveryRow | None = None,
        *,
        echo: bool = False,
    ) -> bytes:
        event: dict[str, Any] = {
            "specversion": "1.0",
            "id": id_,
            "source": self.source,
            "type": type_,
            "subject": subject,
            "time": format_time(time_ms),
            "datacontenttype": "application/json",
        }
        if cause is not None and cause.traceparent is not None:
            event["traceparent"] = cause.traceparent
        if cause is not None and cause.correlation_id is not None:
            event["correlationid"] = cause.correlation_id
        if echo:
            event[ECHO] = True
        event["data"] = {name: value for name, value in data.items() if value is not None}
        return orjson.dumps(event)
