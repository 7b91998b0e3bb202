"""What is kept of webhooks and deliveries, and the words for it (architecture 2 and 5, contracts 2 and 9.5).

The two rows are `msgspec` structs; `tables` says under which keys and indexes they lie. Times are wall-clock
milliseconds since 1970 and end in `_ms`.
"""

from __future__ import annotations

from enum import StrEnum
from sys import intern
from typing import Final

import msgspec
from msgspec.structs import force_setattr

__all__ = [
    "ATTEMPT_LOG_LIMIT",
    "COMMAND_IDS_LIMIT",
    "Attempt",
    "AttemptResult",
    "DeliveryRow",
    "Health",
    "Ordering",
    "Reason",
    "SealedSecret",
    "Status",
    "WebhookFilter",
    "WebhookRow",
    "WebhookState",
]

ATTEMPT_LOG_LIMIT: Final = 20
COMMAND_IDS_LIMIT: Final = 8


class Status(StrEnum):
    """Where a delivery stands; in flight is no status, but a flag beside it."""

    PENDING = "pending"
    RETRYING = "retrying"
    DELIVERED = "delivered"
    FAILED = "failed"
    MISSED = "missed"
    CANCELLED = "cancelled"

    @property
    def waits(self) -> bool:
        """Whether there is an attempt still to come; all other statuses are ends."""
        return self in _WAITING


_WAITING: Final = frozenset({Status.PENDING, Status.RETRYING})


class Reason(StrEnum):
    """Why a delivery waits, or why it failed (the last four)."""

    SLOT = "slot"
    RATE = "rate"
    PACE = "pace"
    HOLD = "hold"
    ORDER = "order"
    NO_KEY = "no_key"
    RETRY = "retry"
    RESEND = "resend"
    EXHAUSTED = "exhausted"
    REJECTED = "rejected"
    GONE = "gone"
    EXPIRED = "expired"


class Health(StrEnum):
    """What the owner of a webhook thinks of its receiver."""

    OK = "ok"
    FAILING = "failing"
    DISABLED = "disabled"


class Standing(StrEnum):
    """Health, as people are told of it: of a receiver that has never taken anything nobody knows that it would."""

    OK = "ok"
    UNKNOWN = "unknown"
    FAILING_FROM_THE_START = "failing_from_the_start"
    FAILING = "failing"
    DISABLED = "disabled"


class Ordering(StrEnum):
    """Whether a retried event may be overtaken by a later one of its subject."""

    BEST_EFFORT = "best_effort"
    STRICT = "strict"


class WebhookState(StrEnum):
    """What the state table asks of a webhook."""

    ACTIVE = "active"
    DISABLED = "disabled"
    DELETED = "deleted"


class AttemptResult(StrEnum):
    """What one attempt meant for its delivery."""

    DELIVERED = "delivered"
    RETRY = "retry"
    FAILED = "failed"


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One POST that ended.

    Attributes:
        attempt: Its number, from 1; resends go on counting.
        error: `dns connect tls timeout reset too_large forbidden_target status_<n>`; absent for 2xx.
        next_at_ms: When the next attempt is due.
    """

    attempt: int
    started_ms: int
    duration_ms: int
    result: AttemptResult
    status_code: int | None = None
    error: str | None = None
    next_at_ms: int | None = None


class DeliveryRow(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One event on its way to one webhook.

    Attributes:
        sequence: The offset of its intent: the order within a subject.
        origin: `topic/partition/offset` of the event.
        request_id: The last resend or replay that was applied.
        attempts: Attempts that ended, over all resends.
        attempts_before: Those of them that came before the last resend; the schedule begins anew after it.
        rejections: Answers of the rejecting kind since the last resend.
        resends: How often an ended delivery was opened again.
        waiting_since_ms: Since when it waits: its creation, or the last resend.
        next_at_ms: When it is due; set while it waits.
        expires_at_ms: When the row leaves its state without an attempt: given up while it waits, removed once it ended.
        event_expires_ms: The event's own `expirytime`.
        body: The bytes to POST; only while it waits.
        response_body: The start of the last answer, if that was not 2xx.
    """

    delivery_id: str
    webhook_id: str
    event_id: str
    event_source: str
    event_type: str
    subject: str | None = None
    correlation_id: str | None = None
    traceparent: str | None = None
    origin: str = ""
    sequence: int = 0
    request_id: str | None = None
    status: Status
    reason: Reason | None = None
    attempts: int = 0
    attempts_before: int = 0
    rejections: int = 0
    resends: int = 0
    created_at_ms: int
    waiting_since_ms: int
    next_at_ms: int | None = None
    expires_at_ms: int
    event_time_ms: int | None = None
    event_expires_ms: int | None = None
    first_at_ms: int | None = None
    last_at_ms: int | None = None
    delivered_at_ms: int | None = None
    status_code: int | None = None
    error: str | None = None
    duration_ms: int | None = None
    response_body: str | None = None
    attempt_log: tuple[Attempt, ...] = ()
    body: bytes | None = None


class SealedSecret(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An encrypted secret and how long it signs.

    Attributes:
        sealed: As `KeyRing.seal` made it.
        valid_until_ms: The end of a rotation's overlap; None: until it is rotated out.
    """

    sealed: str
    valid_until_ms: int | None = None

    def __post_init__(self) -> None:
        force_setattr(self, "sealed", intern(self.sealed))


class WebhookFilter(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Which events of the matching types are wanted (contracts 9.5); empty parts ask for nothing."""

    tenant_id: tuple[str, ...] = ()
    dataset_id: tuple[str, ...] = ()
    data: dict[str, tuple[str | int | float | bool | None, ...]] = {}


class WebhookRow(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One webhook: its configuration, and what its owner knows of its receiver.

    Attributes:
        version: Counts changes of the configuration, from 1.
        command_ids: The last commands that were applied, newest first; how a caller sees its own.
        events: Canonical patterns.
        timeout_s, rate_limit_per_s, max_in_flight, retry_schedule_s: None: the settings' values.
        secrets: Encrypted, newest first.
        headers: As they may be shown: credentials are masked here, and encrypted in `sealed_headers`, by name.
        fingerprint: Of the request that made it, so that a repeated one is known.
        health: `disabled` exactly while `enabled` is False.
        failures: Failed attempts since the last success, as of the last change of health.
        failing_since_ms: The first of them.
        first_failure_ms: When the first attempt failed, where none has succeeded yet at this URL; it says nothing of
            health, and ends with the first success.
        first_success_ms: When its receiver took something for the first time, at this URL; None: not yet, or before
            that was noted.
        unheard: It is failing, and no webhook was told (`health.HealthChange.echo`).
        hold_until_ms: No attempt starts before it.
        enabled_at_ms: When it was enabled after it had been disabled: the end of what a replay of that time is about.
        deleting: Deleted; the row goes last, after its waiting deliveries.
    """

    webhook_id: str
    version: int
    command_ids: tuple[str, ...] = ()
    url: str
    events: tuple[str, ...]
    description: str | None = None
    headers: dict[str, str] = {}
    enabled: bool = True
    filter: WebhookFilter | None = None
    retry_schedule_s: tuple[float, ...] | None = None
    timeout_s: float | None = None
    rate_limit_per_s: float | None = None
    max_in_flight: int | None = None
    ordering: Ordering = Ordering.BEST_EFFORT
    signatures: tuple[str, ...] = ("v1",)
    handshake: bool = False
    secrets: tuple[SealedSecret, ...] = ()
    sealed_headers: dict[str, str] = {}
    fingerprint: str | None = None
    health: Health = Health.OK
    failures: int = 0
    failing_since_ms: int | None = None
    first_failure_ms: int | None = None
    first_success_ms: int | None = None
    unheard: bool = False
    disabled_at_ms: int | None = None
    disabled_reason: str | None = None
    enabled_at_ms: int | None = None
    hold_until_ms: int | None = None
    deleting: bool = False
    created_at_ms: int
    updated_at_ms: int

    def __post_init__(self) -> None:
        # Ten thousand rows may be in memory twice, at their owner and in the copy of all; their texts are once.
        for name in ("webhook_id", "url", "fingerprint"):
            if (text := getattr(self, name)) is not None:
                force_setattr(self, name, intern(text))
        for name in ("events", "command_ids"):
            force_setattr(self, name, tuple(map(intern, getattr(self, name))))
        for name in ("headers", "sealed_headers"):
            kept = {intern(key): intern(value) for key, value in getattr(self, name).items()}
            force_setattr(self, name, kept)

    def __repr__(self) -> str:
        # Headers hold credentials, and a URL may.
        return f"WebhookRow({self.webhook_id}, version={self.version}, {self.health.value})"

    @property
    def state(self) -> WebhookState:
        """What the state table of deliveries asks."""
        if self.deleting:
            return WebhookState.DELETED
        return WebhookState.ACTIVE if self.enabled else WebhookState.DISABLED
