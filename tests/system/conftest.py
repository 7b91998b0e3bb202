"""What the tests of real workers have in common."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from app.devstack.kafka import KafkaServer
from tests.support.workers import Deployment


@pytest.fixture
async def deployment(kafka: KafkaServer, unique: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Deployment]:
    """Upstreams that listen; workers, webhooks and events are for the test to make."""
    async with Deployment(kafka.bootstrap, unique("app"), tmp_path) as deployment:
        yield deployment
