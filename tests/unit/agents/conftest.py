"""The webhooks agent and the registry agent at their desks."""

from collections.abc import AsyncIterator

import pytest

from tests.support.registry_world import RegistryWorld
from tests.support.webhooks import Desk, webhook_row


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    """One number with one webhook, and a scripted receiver."""
    made = await Desk().open(webhook_row())
    yield made
    await made.context.close(made.processor)


@pytest.fixture
async def world() -> AsyncIterator[RegistryWorld]:
    """A vault and a registry that keep in step, both ways."""
    world = RegistryWorld()
    await world.open()
    yield world
    await world.close()
