import asyncio

import pytest
from aiokafka import errors as kafka_errors
from aiokafka.client import AIOKafkaClient, CoordinationType

from app.engine.coordinators import patient
from app.engine.producer import FencedProducer


async def test_a_client_that_knows_no_broker_yet_is_told_to_try_again() -> None:
    client = patient(AIOKafkaClient(bootstrap_servers="127.0.0.1:1"))

    with pytest.raises(kafka_errors.CoordinatorNotAvailableError) as refused:
        await client.coordinator_lookup(CoordinationType.GROUP, "group")

    assert refused.value.retriable


async def test_aiokafka_itself_takes_it_for_a_bug() -> None:
    client = AIOKafkaClient(bootstrap_servers="127.0.0.1:1")

    with pytest.raises(AssertionError, match="bootstrap"):
        await client.coordinator_lookup(CoordinationType.GROUP, "group")


async def test_a_producer_waits_until_the_broker_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing_learnt(*_: object) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(AIOKafkaClient, "bootstrap", nothing_learnt)
    monkeypatch.setattr(AIOKafkaClient, "force_metadata_update", nothing_learnt)
    producer = FencedProducer(bootstrap_servers="127.0.0.1:1", transactional_id="app-0")

    async def may() -> bool:
        return True

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await producer.open(None, may)
    assert await producer.hard_close()
