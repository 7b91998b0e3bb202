"""Who fences whom, and what a hard close leaves behind, on a real Kafka."""

import asyncio
import gc
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka import errors as kafka_errors
from confluent_kafka.admin import AdminClient, NewTopic

from app.devstack.kafka import KafkaServer
from app.engine import CheckpointFailed, Connection, NotMember, ProducerTaken
from app.engine.changelog import FencedChangelog, Write
from app.engine.producer import FencedProducer, HardProducer

pytestmark = pytest.mark.kafka


async def yes() -> bool:
    return True


async def no() -> bool:
    return False


def topic(kafka: KafkaServer, name: str) -> str:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    for future in admin.create_topics([NewTopic(name, 1, 1)]).values():
        future.result(10)
    return name


def producer(kafka: KafkaServer, transactional_id: str) -> FencedProducer:
    return FencedProducer(bootstrap_servers=kafka.bootstrap, transactional_id=transactional_id)


def open_sockets() -> int:
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found += str(entry.readlink()).startswith("socket:")
        except OSError:
            continue
    return found


async def test_opening_fences_whoever_had_the_number_before(kafka: KafkaServer, unique: Callable[[str], str]) -> None:
    log = topic(kafka, unique("log"))
    app = unique("app")
    former = FencedChangelog(Connection(kafka.bootstrap), app, 0)
    await former.open(yes)
    heir = FencedChangelog(Connection(kafka.bootstrap), app, 0)
    await heir.open(yes)

    with pytest.raises(CheckpointFailed):
        await former.write([Write(log, 0, [(b"k", b"former")])])
    assert await heir.write([Write(log, 0, [(b"k", b"heir")])]) != {}

    await former.drop()
    await heir.drop()


async def test_whoever_is_fenced_while_it_hands_over_more_fails_its_checkpoint_too(
    kafka: KafkaServer, unique: Callable[[str], str]
) -> None:
    logs = [topic(kafka, unique("log")) for _ in range(8)]
    connection, app = Connection(kafka.bootstrap), unique("app")

    for number in range(5):
        former, heir = FencedChangelog(connection, app, number), FencedChangelog(connection, app, number)
        await former.open(yes)
        await heir.open(yes)
        # It asks for each topic before it hands over its rows, and is refused for the first one meanwhile.
        with pytest.raises(CheckpointFailed):
            await former.write([Write(log, 0, [(b"k", b"v")]) for log in logs])
        await former.drop()
        await heir.drop()


async def test_a_reopen_cannot_fence_an_heir(kafka: KafkaServer, unique: Callable[[str], str]) -> None:
    log = topic(kafka, unique("log"))
    app = unique("app")
    former = FencedChangelog(Connection(kafka.bootstrap), app, 0)
    await former.open(yes)
    await former.drop()
    heir = FencedChangelog(Connection(kafka.bootstrap), app, 0)
    await heir.open(yes)

    with pytest.raises(ProducerTaken):
        await former.open(yes)

    await heir.write([Write(log, 0, [(b"k", b"heir")])])
    await heir.drop()


async def test_the_owner_itself_reopens_with_its_last_id(kafka: KafkaServer, unique: Callable[[str], str]) -> None:
    log = topic(kafka, unique("log"))
    changelog = FencedChangelog(Connection(kafka.bootstrap), unique("app"), 0)

    for _ in range(5):
        await changelog.open(yes)
        await changelog.write([Write(log, 0, [(b"k", b"v")])])
        await changelog.drop()


async def test_nobody_opens_whom_the_group_does_not_confirm(kafka: KafkaServer, unique: Callable[[str], str]) -> None:
    changelog = FencedChangelog(Connection(kafka.bootstrap), unique("app"), 0)

    with pytest.raises(NotMember):
        await changelog.open(no)


async def test_a_large_checkpoint_is_one_transaction_of_many_batches(
    kafka: KafkaServer, unique: Callable[[str], str]
) -> None:
    log = topic(kafka, unique("log"))
    changelog = FencedChangelog(Connection(kafka.bootstrap), unique("app"), 0)
    await changelog.open(yes)

    ends = await changelog.write([Write(log, 0, [(b"k-%d" % i, os.urandom(100_000)) for i in range(30)])])

    assert ends == {log: 30}
    await changelog.drop()


async def test_a_hard_close_leaves_no_task_and_no_socket_though_the_broker_is_frozen_in_a_commit(
    own_kafka: KafkaServer, unique: Callable[[str], str]
) -> None:
    log = topic(own_kafka, unique("log"))
    tasks, sockets = len(asyncio.all_tasks()), open_sockets()
    one = producer(own_kafka, unique("t"))
    await one.open(None, yes)
    await one.begin_transaction()
    await (await one.send(log, b"v", partition=0))
    pid = own_kafka.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises((TimeoutError, kafka_errors.KafkaError)):
            async with asyncio.timeout(1):
                await one.commit_transaction()
        assert await one.hard_close()
    finally:
        os.kill(pid, signal.SIGCONT)

    async with asyncio.timeout(5):
        while len(asyncio.all_tasks()) > tasks or open_sockets() > sockets:
            await asyncio.sleep(0.01)


async def test_what_a_hard_close_ends_is_not_told_to_the_log_later(
    own_kafka: KafkaServer, unique: Callable[[str], str]
) -> None:
    log, told = topic(own_kafka, unique("log")), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
    one = HardProducer(bootstrap_servers=own_kafka.bootstrap, enable_idempotence=True)
    await one.start()
    # Known before the broker is frozen, for nobody answers then.
    assert await one.partitions_for(log) == {0}
    pid = own_kafka.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        for _ in range(2):
            batch = one.create_batch()
            batch.append(key=None, value=b"v", timestamp=None)
            sent = await one.send_batch(batch, log, partition=0)
            sent.add_done_callback(lambda done: done.exception())
            await asyncio.sleep(0)
        assert await one.hard_close()
    finally:
        os.kill(pid, signal.SIGCONT)
    del one, batch, sent
    gc.collect()

    assert told == []
