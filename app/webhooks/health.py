"""The health of one webhook: `ok`, `failing`, `disabled` (architecture 5). Pure; every attempt that ended goes through.

Only a change of health is worth a row, so the failures before one are counted in memory alone. But the first failure
and the first success of all are, too: until then nobody knows whether the URL, the secret and the way there are right.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import msgspec

from app.webhooks.model import Health, WebhookRow

__all__ = [
    "DISABLE_FAILURES",
    "FAILING_ATTEMPT",
    "FAILING_FAILURES",
    "WELL",
    "HealthChange",
    "Heart",
    "after_attempt",
    "first_news",
    "with_health",
]

FAILING_FAILURES: Final = 10
FAILING_ATTEMPT: Final = 4
DISABLE_FAILURES: Final = 10


@dataclass(frozen=True, slots=True)
class Heart:
    """What the owner of a webhook remembers of its attempts.

    Attributes:
        failures: Failed attempts since the last success.
        since_ms: When the first of them ended.
        unheard: No webhook was told that it fails; see `HealthChange.echo`.
    """

    health: Health = Health.OK
    failures: int = 0
    since_ms: int | None = None
    unheard: bool = False

    @classmethod
    def of(cls, row: WebhookRow) -> Heart:
        """As the row tells it, after a restart or a change of owner."""
        return cls(row.health, row.failures, row.failing_since_ms, row.unheard)


WELL: Final = Heart()
"""Of a webhook whose last attempt was a success; another one changes nothing."""


@dataclass(frozen=True, slots=True)
class HealthChange:
    """A change that is written and announced.

    Attributes:
        health: What it is now.
        reason: `failures`, `attempts`, `success`, `no_success` or `gone`.
        since_ms: Since when attempts have failed (until now, for a recovery).
        echo: It comes of telling this webhook about the health of another one, and is told to none: else two that
            fail could tell each other without end.
    """

    health: Health
    reason: str
    since_ms: int
    echo: bool = False


def after_attempt(
    heart: Heart, *, ok: bool, gone: bool, attempt: int, now_ms: int, disable_after_ms: int, echo: bool = False
) -> tuple[Heart, HealthChange | None]:
    """Take note of an attempt.

    Args:
        heart: Before it.
        ok: Whether it was answered with 2xx.
        gone: Whether it was answered with 410.
        attempt: Which attempt of its delivery it was.
        now_ms: When it ended.
        disable_after_ms: Without a success for so long, with at least 10 failures, a webhook is disabled.
        echo: Whether the event of the delivery was about the health of another webhook.

    Returns:
        What to remember, and the change if there is one.
    """
    if ok and heart is WELL:
        return heart, None
    if heart.health is Health.DISABLED:
        # Calls that were in flight when it was disabled.
        return heart, None
    since_ms = now_ms if heart.since_ms is None else heart.since_ms
    if ok:
        failing = heart.health is Health.FAILING
        change = HealthChange(Health.OK, "success", since_ms, heart.unheard) if failing else None
        return WELL, change
    failed = replace(heart, failures=heart.failures + 1, since_ms=since_ms)
    disabled = "gone" if gone else None
    if failed.failures >= DISABLE_FAILURES and now_ms - since_ms >= disable_after_ms:
        disabled = disabled or "no_success"
    if disabled is not None:
        return replace(failed, health=Health.DISABLED), HealthChange(Health.DISABLED, disabled, since_ms)
    reason = "failures" if failed.failures >= FAILING_FAILURES else "attempts" if attempt >= FAILING_ATTEMPT else None
    news = heart.health is Health.OK or (heart.unheard and not echo)
    if reason is None or not news:
        return failed, None
    return replace(failed, health=Health.FAILING, unheard=echo), HealthChange(Health.FAILING, reason, since_ms, echo)


def first_news(row: WebhookRow, *, ok: bool, now_ms: int) -> WebhookRow | None:
    """The row with what an attempt says of a webhook that has never succeeded; None: nothing new.

    Args:
        row: As it is, with the change of health if there was one.
        ok: Whether it was answered with 2xx.
        now_ms: When it ended.
    """
    if row.first_success_ms is not None or row.health is not Health.OK:
        return None
    if ok:
        return msgspec.structs.replace(row, first_success_ms=now_ms, first_failure_ms=None)
    if row.first_failure_ms is not None:
        return None
    # A field of its own: what health is made of after a restart is written by a change of health alone.
    return msgspec.structs.replace(row, first_failure_ms=now_ms)


def with_health(row: WebhookRow, heart: Heart, change: HealthChange, now_ms: int) -> WebhookRow:
    """The row after a change of health; the version is the configuration's and stays."""
    disabled = change.health is Health.DISABLED
    return msgspec.structs.replace(
        row,
        health=change.health,
        failures=heart.failures,
        failing_since_ms=heart.since_ms,
        unheard=heart.unheard and not disabled,
        enabled=row.enabled and not disabled,
        disabled_at_ms=now_ms if disabled else row.disabled_at_ms,
        disabled_reason=change.reason if disabled else None,
    )
