"""Many units, one producer, a real Kafka: everything acknowledged, in order, and only what is wrong fails."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from app.brokers import Connection
from app.devstack.kafka import KafkaServer
from app.engine import output_queue
from app.engine.errors import OutputFailed, OutputTooLarge
from app.engine.outputs import Message, Outputs

pytestmark = pytest.mark.kafka


@pytest.fixture
async def outputs(kafka: KafkaServer) -> AsyncIterator[Outputs]:
    outputs = Outputs(Connection(kafka.bootstrap), "test")
    yield outputs
    await outputs.close()


def made(kafka: KafkaServer, name: str, partitions: int = 1, **config: str) -> str:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    admin.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result(20)
    return name


def values(kafka: KafkaServer, topic: str) -> list[bytes]:
    consumer = Consumer(
        {"bootstrap.servers": kafka.bootstrap, "group.id": topic, "enable.partition.eof": True, "log_level": 0}
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    found: list[bytes] = []
    while (message := consumer.poll(10)) is not None and message.error() is None:
        found.append(message.value())
    consumer.close()
    return found


async def test_of_records_that_fail_for_themselves_each_is_told_and_the_others_keep_their_order(
    kafka: KafkaServer, unique: Callable[[str], str], outputs: Outputs
) -> None:
    topic = made(kafka, unique("each"), **{"max.message.bytes": "2000"})
    messages = [Message(topic, b"k", b"%d" % n) for n in range(50)]
    messages[20] = Message(topic, b"k", random.randbytes(3000))
    outcomes = await outputs.send_each(messages)

    assert [place for place, outcome in enumerate(outcomes) if outcome is not None] == [20]
    assert isinstance(outcomes[20], OutputTooLarge)
    assert values(kafka, topic) == [b"%d" % n for n in range(50) if n != 20]


async def test_many_senders_share_batches_and_each_learns_the_offset_of_its_first_record(
    kafka: KafkaServer, unique: Callable[[str], str], outputs: Outputs
) -> None:
    topic = made(kafka, unique("shared"))
    senders = [[b"%d-%d" % (sender, n) for n in range(7)] for sender in range(300)]

    offsets = await asyncio.gather(
        *(outputs.send_many([Message(topic, b"k", value) for value in sender]) for sender in senders),
        *(outputs.send(topic, b"k", b"single-%d" % n) for n in range(20)),
    )

    found = values(kafka, topic)
    assert sorted(found) == sorted([v for sender in senders for v in sender] + [b"single-%d" % n for n in range(20)])
    for sender in senders:
        first = found.index(sender[0])
        assert found[first : first + 7] == sender
    for n, told in enumerate(offsets[300:]):
        assert told is not None
        assert found[told[1]] == b"single-%d" % n


async def test_what_comes_while_a_busy_worker_gathers_goes_with_what_waits(
    kafka: KafkaServer, unique: Callable[[str], str]
) -> None:
    topic, rounds, gathering = made(kafka, unique("gathered")), 0, asyncio.Event()

    def gather_s() -> float:
        nonlocal rounds
        rounds += 1
        gathering.set()
        return 0.2

    outputs = Outputs(Connection(kafka.bootstrap), "test", gather_s)
    try:
        await outputs.send(topic, b"k", b"first")
        gathering.clear()
        first = asyncio.create_task(outputs.send(topic, b"k", b"a"))
        await gathering.wait()
        second = asyncio.create_task(outputs.send(topic, b"k", b"b"))

        assert await asyncio.gather(first, second) == [(0, 1), (0, 2)]
    finally:
        await outputs.close()
    assert rounds == 2, "one for the first record, one for both others"


async def test_a_queue_that_gathers_is_closed_at_once_and_fails_what_it_has(
    kafka: KafkaServer, unique: Callable[[str], str]
) -> None:
    topic, gathering = made(kafka, unique("gathered")), asyncio.Event()

    def gather_s() -> float:
        gathering.set()
        return 60.0

    outputs = Outputs(Connection(kafka.bootstrap), "test", gather_s)
    sent = asyncio.create_task(outputs.send(topic, b"k", b"v"))
    await gathering.wait()

    async with asyncio.timeout(10):
        await outputs.close()
        with pytest.raises(OutputFailed):
            await sent


async def test_more_than_fits_one_batch_goes_in_several_and_in_order(
    kafka: KafkaServer, unique: Callable[[str], str], outputs: Outputs
) -> None:
    topic = made(kafka, unique("long"))
    sent = [b"%06d" % n + bytes(50_000) for n in range(60)]

    await outputs.send_many([Message(topic, b"k", value) for value in sent])

    assert values(kafka, topic) == sent


async def test_a_record_that_the_topic_does_not_take_fails_its_sender_only(
    kafka: KafkaServer, unique: Callable[[str], str], outputs: Outputs
) -> None:
    topic = made(kafka, unique("small"), **{"max.message.bytes": "2000"})
    incompressible = random.Random(1).randbytes
    noise = sorted(incompressible(900) for _ in range(10))

    results = await asyncio.gather(
        *(outputs.send_many([Message(topic, b"k", value)]) for value in noise[:5]),
        outputs.send_many([Message(topic, b"k", incompressible(3000))]),
        outputs.send_many([Message(topic, b"k", value) for value in noise[5:]]),
        return_exceptions=True,
    )

    assert isinstance(results[5], OutputTooLarge)
    assert [result for result in results if result is not None] == [results[5]]
    assert sorted(values(kafka, topic)) == noise


async def test_what_a_cancelled_sender_has_not_sent_is_not_sent(
    kafka: KafkaServer, unique: Callable[[str], str], outputs: Outputs
) -> None:
    topic = made(kafka, unique("cancelled"))
    await outputs.send(topic, b"k", b"before")
    gone = asyncio.create_task(outputs.send_many([Message(topic, b"k", b"gone")]))
    kept = asyncio.create_task(outputs.send_many([Message(topic, b"k", b"kept")]))
    await asyncio.sleep(0)
    gone.cancel()

    await kept

    assert gone.cancelled()
    assert values(kafka, topic) == [b"before", b"kept"]


async def test_a_broker_that_is_gone_fails_what_waits_and_the_next_try_succeeds(
    own_kafka: KafkaServer, unique: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_queue, "SEND_DEADLINE_S", 3.0)
    topic = made(own_kafka, unique("gone"))
    outputs = Outputs(Connection(own_kafka.bootstrap), "test")
    await outputs.send(topic, b"k", b"before")
    own_kafka.kill()

    results = await asyncio.gather(*(outputs.send(topic, b"k", b"%d" % n) for n in range(3)), return_exceptions=True)
    assert all(isinstance(result, OutputFailed) for result in results)

    own_kafka.start()
    monkeypatch.undo()
    await outputs.send(topic, b"k", b"after")
    await outputs.close()
    assert values(own_kafka, topic)[-1] == b"after"
    with pytest.raises(OutputFailed, match="closed"):
        await outputs.send(topic, b"k", b"too late")


@pytest.mark.parametrize("value", ["text", 5], ids=["text", "number"])
async def test_a_value_of_a_wrong_type_is_its_senders_fault_alone(
    kafka: KafkaServer, unique: Callable[[str], str], outputs: Outputs, value: object
) -> None:
    topic = made(kafka, unique("typed"))
    await outputs.send(topic, b"k", b"before")

    wrong, right = await asyncio.gather(
        outputs.send_many([Message(topic, b"k", value)]), outputs.send(topic, b"k", b"after"), return_exceptions=True
    )

    assert isinstance(wrong, TypeError)
    assert right == (0, 1)
    assert values(kafka, topic) == [b"before", b"after"]
