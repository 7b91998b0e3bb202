"""What a webhook asks for, and what its owner makes of it."""

from __future__ import annotations

import pytest

from app.webhooks.owned import DeliveryOptions, OwnedWebhook
from tests.support.webhooks import KEYS, webhook_row


class TestMostInFlight:
    @pytest.mark.parametrize(("own", "setting", "most"), [(None, 32, 32), (8, 32, 8), (64, 32, 32)])
    def test_is_its_own_cap_but_never_above_that_of_the_deployment(
        self, own: int | None, setting: int, most: int
    ) -> None:
        webhook = OwnedWebhook(webhook_row(max_in_flight=own), DeliveryOptions(max_in_flight=setting), KEYS)

        assert webhook.limits.max_in_flight == most
