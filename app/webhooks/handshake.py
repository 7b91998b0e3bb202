"""Asking a receiver whether it wants our webhooks: the OPTIONS handshake of CloudEvents, for webhooks that ask for it.

Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/http-webhook.md, section 4. The sender names itself
by a DNS name; the receiver allows that name or all, and may say how many requests a minute it takes.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from app.webhooks.errors import HandshakeRefused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.webhooks.commands import WebhookPatch

__all__ = ["AsksPermission", "PermissionAnswer", "permitted_rate_per_s", "with_permission"]

REQUEST_ORIGIN: Final = "WebHook-Request-Origin"
REQUEST_RATE: Final = "WebHook-Request-Rate"
ALLOWED_ORIGIN: Final = "WebHook-Allowed-Origin"
ALLOWED_RATE: Final = "WebHook-Allowed-Rate"
_MINUTE_S: Final = 60
_RATE: Final = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)


@dataclass(frozen=True, slots=True)
class PermissionAnswer:
    """What a receiver answered to OPTIONS.

    Attributes:
        status: None without an answer.
        headers: Case-insensitive.
        error: As in `AttemptOutcome`; None for an answer.
    """

    status: int | None
    headers: Mapping[str, str]
    error: str | None = None


class AsksPermission(Protocol):
    """Sends the OPTIONS request, with the guard and the limits of a delivery."""

    @property
    def origin(self) -> str:
        """The DNS name that we are known by."""

    async def options(self, url: str, headers: Mapping[str, str], custom: Mapping[str, str]) -> PermissionAnswer:
        """The answer, whatever the receiver did; `headers` are ours, `custom` those of the webhook."""


def permitted_rate_per_s(answer: PermissionAnswer, origin: str, wanted_per_s: float | None) -> float | None:
    """The rate at which the receiver lets us send.

    Args:
        answer: To our question.
        origin: The name that we gave.
        wanted_per_s: The webhook's own limit; None: it has none.

    Returns:
        Requests a second, not above `wanted_per_s`; None: without a limit.

    Raises:
        HandshakeRefused: It did not allow it.
    """
    if answer.status is None:
        raise HandshakeRefused(f"the receiver did not answer to OPTIONS ({answer.error})")
    if not HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
        raise HandshakeRefused(f"the receiver answered {answer.status} to OPTIONS; 2xx with {ALLOWED_ORIGIN} is needed")
    allowed = answer.headers.get(ALLOWED_ORIGIN, "").strip().lower()
    if allowed not in {"*", origin.lower()}:
        raise HandshakeRefused(f"the answer to OPTIONS has no {ALLOWED_ORIGIN} of * or {origin}")
    rate = answer.headers.get(ALLOWED_RATE, "*").strip()
    if rate == "*":
        return wanted_per_s
    if not _RATE.fullmatch(rate):
        raise HandshakeRefused(
            f"{ALLOWED_RATE} of the answer to OPTIONS is neither * nor a number of requests a minute"
        )
    permitted = int(rate) / _MINUTE_S
    return permitted if wanted_per_s is None else min(wanted_per_s, permitted)


async def with_permission(
    asks: AsksPermission, patch: WebhookPatch, url: str, custom: Mapping[str, str], wanted_per_s: float | None
) -> WebhookPatch:
    """The patch, with the rate that the receiver permits.

    Raises:
        HandshakeRefused: It does not permit any.
    """
    headers = {REQUEST_ORIGIN: asks.origin}
    if wanted_per_s is not None:
        headers[REQUEST_RATE] = str(math.ceil(wanted_per_s * _MINUTE_S))
    permitted = permitted_rate_per_s(await asks.options(url, headers, custom), asks.origin, wanted_per_s)
    return patch if permitted == wanted_per_s else msgspec.structs.replace(patch, rate_limit_per_s=permitted)
