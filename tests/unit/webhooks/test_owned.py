"""What a webhook asks for, and what its owner makes of it."""

from __future__ import annotations

import pytest

from app.webhooks.intents import IntentReason
from app.webhooks.owned import DeliveryOptions, OwnedWebhook
from app.webhooks.sender import OutgoingRequest
from tests.support.webhooks import KEYS, Desk, answer, webhook_row

OPTIONS = DeliveryOptions(origin="vault.example.com")


def origin(request: OutgoingRequest) -> str | None:
    return dict(request.protected_headers).get("WebHook-Request-Origin")


class TestOrigin:
    async def test_goes_with_each_attempt_to_a_receiver_that_was_asked_first(self) -> None:
        desk = await Desk(options=OPTIONS).open(webhook_row(handshake=True))
        desk.receiver.will_answer(answer(500))
        await desk.deliver(desk.intent("e1"))
        await desk.pass_time(60)
        for reason in (IntentReason.PING, IntentReason.RESEND, IntentReason.REPLAY):
            await desk.deliver(desk.intent(f"of-{reason}", reason=reason, request_id="r1"))

        assert desk.receiver.events() == ["e1", "e1", "of-ping", "of-resend", "of-replay"]
        assert {origin(request) for request in desk.receiver.requests} == {"vault.example.com"}
        await desk.context.close(desk.processor)

    async def test_is_told_to_no_other(self) -> None:
        desk = await Desk(options=OPTIONS).open(webhook_row())
        await desk.deliver(desk.intent("e1"))

        assert [origin(request) for request in desk.receiver.requests] == [None]
        await desk.context.close(desk.processor)


class TestMostInFlight:
    @pytest.mark.parametrize(("own", "setting", "most"), [(None, 32, 32), (8, 32, 8), (64, 32, 32)])
    def test_is_its_own_cap_but_never_above_that_of_the_deployment(
        self, own: int | None, setting: int, most: int
    ) -> None:
        webhook = OwnedWebhook(webhook_row(max_in_flight=own), DeliveryOptions(max_in_flight=setting), KEYS)

        assert webhook.limits.max_in_flight == most
