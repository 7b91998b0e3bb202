"""The webhooks agent at its desk."""

from collections.abc import AsyncIterator

import pytest

from tests.support.webhooks import Desk, webhook_row


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    """One number with one webhook, and a scripted receiver."""
    made = await Desk().open(webhook_row())
    yield made
    await made.context.close(made.processor)
