"""What the webhooks of a worker are made with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.webhooks.owned import DeliveryOptions
from app.webhooks.pace import PaceRules
from app.webhooks.schedule import RetrySchedule

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from app.settings import WebhookSettings
    from app.webhooks.handshake import PermissionAnswer
    from app.webhooks.sender import AttemptOutcome, OutgoingRequest, Sender

__all__ = ["LateSender", "delivery_options"]


def delivery_options(chosen: WebhookSettings) -> DeliveryOptions:
    """What holds where a webhook has no settings of its own."""
    return DeliveryOptions(
        schedule=RetrySchedule.of(chosen.retry_schedule_s),
        timeout_s=chosen.timeout_s,
        max_in_flight=chosen.max_in_flight,
        history_s=chosen.history_ttl_s,
        failed_history_s=chosen.failed_ttl_s,
        max_age_s=chosen.max_age_s,
        disable_after_s=chosen.disable_after_s,
        pace=PaceRules(chosen.pace_after_failures, chosen.pace_after_s, chosen.pace_max_gap_s),
        origin=chosen.origin,
    )


class LateSender:
    """A sender needs a running loop; agents are made before there is one."""

    def __init__(self) -> None:
        self.sender: Sender | None = None

    def post(self, request: OutgoingRequest) -> Coroutine[Any, Any, AttemptOutcome]:
        """One attempt."""
        if self.sender is None:
            raise RuntimeError("no attempt starts before the program does")
        return self.sender.post(request)

    async def options(self, url: str, headers: Mapping[str, str], custom: Mapping[str, str]) -> PermissionAnswer:
        """One question for permission."""
        if self.sender is None:
            raise RuntimeError("no question is asked before the program starts")
        return await self.sender.options(url, headers, custom)
