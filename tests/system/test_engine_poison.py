"""Records that a handler cannot take, and handlers that take none: what is kept, what goes on, and the way back."""

import base64
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import NewTopic

from app.devstack.kafka import KafkaServer
from app.engine.poison import POISON_LIMITS
from tests.support.cli import Cli
from tests.support.fold import FoldGroup, until
from tests.support.garbled import send_with_header_name
from tests.support.report import report

pytestmark = pytest.mark.kafka

NUMBERS = 4
LIMIT = POISON_LIMITS["handler_error"]
SHOWN_AFTER_S = 2.0
"""An obstacle lasts so long before it is named, in these workers; 15 s elsewhere."""
MIB = 1 << 20


@pytest.fixture
def group(kafka: KafkaServer, unique: Callable[[str], str], tmp_path: Path) -> Iterator[FoldGroup]:
    group = FoldGroup(kafka.bootstrap, unique("poison"), tmp_path, numbers=NUMBERS)
    group.admin.create_topics([NewTopic(f"{group.app}.events", NUMBERS, 1)])[f"{group.app}.events"].result(20)
    yield group
    group.close()


@pytest.fixture
def cli(group: FoldGroup, tmp_path: Path) -> Cli:
    settings = {
        "BROKERS": group.brokers,
        "APP_ID": group.app,
        "TOPIC_PREFIX": group.app,
        "PARTITIONS": str(NUMBERS),
        "DATA_DIR": str(tmp_path / "cli"),
    }
    return Cli(settings, tmp_path)


def producer(group: FoldGroup) -> Producer:
    return Producer({"bootstrap.servers": group.brokers, "linger.ms": 20, "message.max.bytes": 4 * MIB, "log_level": 0})


def quarantined(group: FoldGroup) -> dict[bytes, list]:
    """Records of the quarantine topic by key; at least once under one key."""
    found: dict[bytes, list] = {}
    for message in group.read(f"{group.app}.quarantine", 1):
        found.setdefault(message.key(), []).append(message)
    return found


def test_a_record_that_throws_is_quarantined_as_it_came_and_its_neighbours_are_counted_once(group: FoldGroup) -> None:
    topic, to = f"{group.app}.in", producer(group)
    headers = [("trace", b"1"), ("trace", b"2"), ("", b"\xff\x00"), ("null", None), ("vs-reason", b"event")]
    large = b"!throw" + os.urandom(MIB - 1000)
    # Between two that are counted, each in a batch with them.
    odd = [(b"!throw", headers), (b"!row", None), (large, None), (b"", headers), (None, headers)]
    for value, own in odd:
        for each in (b"good", value, b"good"):
            to.produce(topic, each, b"key", partition=5, headers=own if each is value else None)
        assert to.flush(30) == 0
    send_with_header_name(group.brokers, topic, 5, b"\xff\xfe\x80", key=b"key", value=b"!throw garbled")
    to.produce(topic, b"good", b"key", partition=5)
    assert to.flush(30) == 0

    (worker,) = group.start("w1")
    # The empty value and the tombstone are for the agent to judge, and this one counts them.
    until(lambda: group.counted() == {b"key": 2 * len(odd) + 3}, what="the neighbours")

    until(lambda: len(quarantined(group)) == 4, what="the others")
    by_offset = {offset: quarantined(group)[f"{topic}/5/{offset}".encode()][-1] for offset in (1, 4, 7, 15)}
    assert [by_offset[at].value() for at in (1, 4, 7, 15)] == [b"!throw", b"!row", large, b"!throw garbled"]
    reasons = [dict(by_offset[at].headers())["vs-reason"] for at in (1, 4, 7, 15)]
    assert reasons == [b"handler_error", b"too_large", b"handler_error", b"handler_error"]
    assert by_offset[1].headers()[: len(headers)] == headers
    assert by_offset[15].headers()[0] == ("\\xff\\xfe\\x80", None)
    assert base64.b64decode(dict(by_offset[1].headers())["vs-key"]) == b"key"
    assert worker.ready
    assert worker.process.poll() is None


def test_a_bad_deploy_stops_after_a_hundred_and_all_of_it_comes_back(group: FoldGroup, cli: Cli) -> None:
    spoilt, total = 300, 400
    to = producer(group)
    for i in range(total):
        # Partition 2 of number 2 is spoilt; number 1 must not feel it.
        to.produce(f"{group.app}.in", b"!deploy" if i < spoilt else b"good", b"two-%d" % (i % 7), partition=2)
        to.produce(f"{group.app}.in", b"good", b"one-%d" % (i % 7), partition=1)
    assert to.flush(30) == 0
    healthy = Counter(b"one-%d" % (i % 7) for i in range(total))
    everything = healthy + Counter(b"two-%d" % (i % 7) for i in range(total))

    (worker,) = group.start("w1", BAD_DEPLOY="1")
    why = f"fold: more than {LIMIT} records in a row quarantined as handler_error"
    until(lambda: worker.reasons == [why], what="stopped, and readiness says why")
    until(lambda: group.counted() == healthy, what="the other numbers go on")

    # A rebalance opens the number again, on a worker with the same program.
    group.start("w2", BAD_DEPLOY="1")
    both = list(group.workers.values())
    until(lambda: all(len(w.numbers) == NUMBERS // 2 for w in both), what="two workers")
    until(lambda: sum(why in w.reasons for w in both) == 1, what="still one that is stopped")
    stopped = len(quarantined(group))
    assert stopped <= 2 * (LIMIT + 1)
    assert all(worker.terminate() == 0 for worker in both)
    assert len(quarantined(group)) == stopped
    meant = ("--direct", "--agent", "fold", "--reason", "handler_error")
    items = cli.json("quarantine", "list", *meant, "--limit", "1000")["items"]
    assert len(items) == stopped
    assert {item["origin"].rpartition("/")[0] for item in items} == {f"{group.app}.in/2"}

    for worker in both:
        del worker.env["BAD_DEPLOY"]
        worker.start()
    until(lambda: group.counted().total() == 2 * total - stopped, what="the rest, without those in quarantine")
    plan = cli.json("quarantine", "republish", "--direct", "--agent", "fold", "--dry-run")
    assert plan == {
        "would_republish": stopped,
        "of": [{"topic": f"{group.app}.in", "reason": "handler_error", "agent": "fold", "records": stopped}],
        "refused": {},
    }
    done = cli.json("quarantine", "republish", "--direct", "--agent", "fold", "--reason", "handler_error", "--yes")
    assert (len(done["republished"]), done["refused"]) == (stopped, {})
    until(lambda: group.counted().total() >= 2 * total, what="they are back")

    assert group.counted() == everything
    assert len(quarantined(group)) == stopped
    until(lambda: all(worker.ready for worker in both), what="ready")
    report("A bad deploy", {"records spoilt": spoilt, "in quarantine when it stopped": stopped, "wrong counts": 0})


def test_a_full_disk_is_waited_out_and_named_and_nothing_is_quarantined(group: FoldGroup) -> None:
    to = producer(group)
    (group.path / "disk-is-full").touch()
    for partition in range(12):
        for value in (b"good", b"!disk" if partition == 3 else b"good", b"good"):
            to.produce(f"{group.app}.in", value, b"key-%d" % partition, partition=partition)
    assert to.flush(30) == 0

    (worker,) = group.start("w1", SHOWN_AFTER=f"{SHOWN_AFTER_S:.0f}")
    until(lambda: any("fold: number 3 cannot work: OSError" in r for r in worker.reasons), what="named")
    others = {b"key-%d" % partition: 3 for partition in range(12) if partition % NUMBERS != 3}
    until(lambda: group.counted() == others, what="the other numbers go on")

    (group.path / "disk-is-full").unlink()
    until(lambda: group.counted() == {b"key-%d" % partition: 3 for partition in range(12)}, what="counted whole")
    until(lambda: worker.ready, what="ready again")
    assert quarantined(group) == {}


@pytest.mark.prove
def test_outputs_whose_topic_is_not_there_are_waited_out_and_named_and_nothing_is_quarantined(
    group: FoldGroup,
) -> None:
    out, to = f"{group.app}.out", producer(group)
    group.admin.delete_topics([out])[out].result(20)
    for i in range(100):
        to.produce(f"{group.app}.relay", b"v-%d" % i, b"k-%d" % i)
    assert to.flush(30) == 0

    (worker,) = group.start("w1")
    until(lambda: any("relay: Kafka takes no outputs of number" in r for r in worker.reasons), what="named")
    until(lambda: made(group, NewTopic(out, NUMBERS, 1)), what="made again")

    until(lambda: set(group.relayed()) == {b"v-%d" % i for i in range(100)}, what="relayed whole")
    until(lambda: worker.ready, what="ready again")
    assert quarantined(group) == {}


@pytest.mark.prove
def test_without_a_limit_the_same_bad_deploy_quarantines_everything(group: FoldGroup) -> None:
    to = producer(group)
    for i in range(300):
        to.produce(f"{group.app}.in", b"!deploy", b"k-%d" % (i % 7), partition=2)
    assert to.flush(30) == 0

    (worker,) = group.start("w1", BAD_DEPLOY="1", BROKEN="no_poison_limit")

    until(lambda: len(quarantined(group)) == 300, what="all of it")
    assert worker.ready


@pytest.mark.prove
def test_an_engine_that_blames_the_record_quarantines_it_for_a_full_disk(group: FoldGroup) -> None:
    to = producer(group)
    (group.path / "disk-is-full").touch()
    to.produce(f"{group.app}.in", b"!disk", b"k", partition=3)
    assert to.flush(30) == 0

    group.start("w1", BROKEN="blame_the_record")

    until(lambda: len(quarantined(group)) == 1, what="in quarantine, though nothing is wrong with it")


@pytest.mark.prove
def test_an_engine_that_reads_header_names_as_aiokafka_does_stands_at_the_first_that_is_no_text(
    group: FoldGroup,
) -> None:
    send_with_header_name(group.brokers, f"{group.app}.in", 5, b"\xff\xfe\x80", key=b"key", value=b"garbled")

    (worker,) = group.start("w1", BROKEN="strict_header_names")

    until(lambda: any(f"{group.app}.in/5 cannot be read" in r for r in worker.reasons), what="it stands")
    assert group.counted() == {}


def made(group: FoldGroup, topic: NewTopic) -> bool:
    """Whether it could be made; the broker deletes a topic a little later than it says."""
    try:
        group.admin.create_topics([topic])[topic.topic].result(20)
    except KafkaException:
        return False
    return True
