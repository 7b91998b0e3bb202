"""One webhook as its owner holds it in memory: the row, ready to make attempts with."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec.structs import replace

from app.webhooks.credentials import open_headers
from app.webhooks.delivery import Terms
from app.webhooks.errors import MissingKey, UnreadableSecret
from app.webhooks.health import Heart
from app.webhooks.pace import PaceRules
from app.webhooks.recent import Recent
from app.webhooks.schedule import RetrySchedule
from app.webhooks.scheduler import Limits
from app.webhooks.sender import OutgoingRequest
from app.webhooks.signing import sign_headers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.webhooks.model import DeliveryRow, SealedSecret, WebhookRow
    from app.webhooks.secrets import KeyRing, Secret
    from app.webhooks.signing import SigningKey

__all__ = ["DeliveryOptions", "KeySetting", "OwnedWebhook"]

_ED25519 = "v1a"


class KeySetting(StrEnum):
    """Where the keys are without which a webhook is not served."""

    ENCRYPTION = "WEBHOOKS__ENCRYPTION_KEYS"
    SIGNING = "WEBHOOKS__SIGNING_KEYS"


@dataclass(frozen=True, slots=True)
class DeliveryOptions:
    """The settings that hold where a webhook has none of its own (contracts 8.2, WEBHOOKS)."""

    schedule: RetrySchedule = field(default_factory=RetrySchedule)
    timeout_s: float = 15.0
    max_in_flight: int = 32
    history_s: float = 86_400.0
    failed_history_s: float = 604_800.0
    max_age_s: float = 604_800.0
    disable_after_s: float = 432_000.0
    pace: PaceRules = field(default_factory=PaceRules)
    origin: str = "localhost"

    def terms(self, steps_s: tuple[float, ...] | None = None, timeout_s: float | None = None) -> Terms:
        """For the deliveries of a webhook, with its own schedule and timeout if it has them."""
        # A repeated intent must find its row for as long as the first attempt may still be under way elsewhere.
        least_s = 2 * (self.timeout_s if timeout_s is None else timeout_s)
        return Terms(
            schedule=self.schedule if steps_s is None else RetrySchedule.of(steps_s),
            history_ms=round(max(self.history_s, least_s) * 1000),
            failed_history_ms=round(max(self.failed_history_s, least_s) * 1000),
            max_age_ms=round(self.max_age_s * 1000),
        )


class OwnedWebhook:
    """See the module.

    Attributes:
        row: As it was merged last.
        heart: Its health, with what no row says.
        recent: Its attempts of the last hour; None: there was none yet.
        terms: For its deliveries.
        parked_at_ms: The latest due time of a delivery that was parked before it was ever tried. Later ones are not
            due earlier, whatever clocks do, so that the due index keeps their order.
        flights: How many of its deliveries are in flight.
        unjudged: How many of those have failed, which is not written yet.
        proven: Whether its row says that its receiver has taken something, at this URL.
        needed: Whether anything was done with it since that was last looked at.
    """

    __slots__ = (
        "_headers", "_keys", "_lasting", "_options", "_secrets", "_signing_key", "flights", "heart", "needed",
        "parked_at_ms", "proven", "recent", "row", "terms", "unjudged",
    )  # fmt: skip

    def __init__(
        self, row: WebhookRow, options: DeliveryOptions, keys: KeyRing, signing_key: SigningKey | None = None
    ) -> None:
        self._options = options
        self._keys = keys
        self._signing_key = signing_key
        self.parked_at_ms = 0
        self.flights = 0
        self.unjudged = 0
        self.needed = True
        self.heart = Heart.of(row)
        self.recent: Recent | None = None
        self._secrets: tuple[tuple[Secret | None, int | None], ...] = ()
        # Where none of them ends, the answer is the same at each attempt.
        self._lasting: tuple[Secret, ...] | None = None
        self._headers: Mapping[str, str] | None = None
        self.row = row
        self.proven = row.first_success_ms is not None
        self.terms = options.terms(row.retry_schedule_s, row.timeout_s)
        self.open_secrets()

    def use(self, row: WebhookRow) -> None:
        """The row was changed."""
        before, self.row = self.row, row
        self.proven = row.first_success_ms is not None
        self.terms = self._options.terms(row.retry_schedule_s, row.timeout_s)
        if _signed_with(row) != _signed_with(before):
            self.open_secrets()

    def rests(self, now_ms: int) -> bool:
        """Whether its row says all that is known of it: nothing is under way, nor was in the last hour."""
        return (
            not self.flights
            and self.heart == Heart.of(self.row)
            and not self.heart.failures
            and self.parked_at_ms <= now_ms
            and (self.recent is None or self.recent.over(now_ms))
        )

    def is_by(self, row: WebhookRow | None) -> bool:
        """Whether it is served by this row; what first attempts have said is written without it."""
        mine = self.row
        return row is not None and mine == replace(
            row, first_success_ms=mine.first_success_ms, first_failure_ms=mine.first_failure_ms
        )

    def prove(self) -> None:
        """Its receiver has taken something, and the row says so."""
        self.proven = True

    def note(self, now_ms: int, *, ok: bool) -> None:
        """An attempt ended."""
        if self.recent is None:
            self.recent = Recent()
        self.recent.note(now_ms, ok=ok)

    def open_secrets(self) -> None:
        """Read what is encrypted in the row, as far as the keys are here."""
        self._secrets = tuple((self._opened(one), one.valid_until_ms) for one in self.row.secrets)
        try:
            self._headers = open_headers(self.row, self._keys)
        except (MissingKey, UnreadableSecret):
            self._headers = None
        lasting = all(until_ms is None for _, until_ms in self._secrets)
        self._lasting = self._valid(0) if lasting else None

    def can_sign(self, now_ms: int) -> bool:
        """Whether all that the next attempt needs is here: headers, each secret that is still valid, the key of v1a."""
        return bool(self._lasting or self._valid(now_ms))

    @property
    def missing_key(self) -> KeySetting:
        """Where a key is missing, of one that cannot sign."""
        return KeySetting.SIGNING if self._asks_for_ed25519 and self._signing_key is None else KeySetting.ENCRYPTION

    @property
    def _asks_for_ed25519(self) -> bool:
        return _ED25519 in self.row.signatures

    def _valid(self, now_ms: int) -> tuple[Secret, ...]:
        """The secrets that sign at this time; none where it could not be signed in full, or a header not be read."""
        # A receiver may verify v1a alone, and would refuse all that comes without it.
        if self._headers is None or (self._asks_for_ed25519 and self._signing_key is None):
            return ()
        valid = [secret for secret, until_ms in self._secrets if until_ms is None or now_ms < until_ms]
        found = tuple(secret for secret in valid if secret is not None)
        return found if len(found) == len(valid) else ()

    def _opened(self, one: SealedSecret) -> Secret | None:
        try:
            return self._keys.open(self.row.webhook_id, one.sealed)
        except (MissingKey, UnreadableSecret):
            return None

    @property
    def limits(self) -> Limits:
        """For the scheduler."""
        row, most = self.row, self._options.max_in_flight
        return Limits(
            # The setting may be lower now than when the webhook was made.
            max_in_flight=most if row.max_in_flight is None else min(row.max_in_flight, most),
            rate_per_s=row.rate_limit_per_s,
            ordering=row.ordering,
            hold_until_ms=row.hold_until_ms,
        )

    def request(self, delivery: DeliveryRow, now_ms: int) -> OutgoingRequest:
        """The next attempt of a delivery.

        Raises:
            MissingKey: It cannot be signed here.
        """
        secrets = self._lasting or self._valid(now_ms)
        if self._headers is None or not secrets:
            raise MissingKey(None)
        body = delivery.body or b""
        headers = sign_headers(
            body,
            webhook_id=delivery.webhook_id,
            delivery_id=delivery.delivery_id,
            event_id=delivery.event_id,
            event_type=delivery.event_type,
            attempt=delivery.attempts + 1,
            timestamp_s=now_ms // 1000,
            secrets=secrets,
            signing_key=self._signing_key if self._asks_for_ed25519 else None,
            traceparent=delivery.traceparent,
            origin=self._options.origin if self.row.handshake else None,
        )
        timeout_s = self._options.timeout_s if self.row.timeout_s is None else self.row.timeout_s
        return OutgoingRequest(self.row.url, body, headers, self._headers, timeout_s)


def _signed_with(row: WebhookRow) -> tuple[object, ...]:
    return row.secrets, row.headers, row.sealed_headers, row.signatures
