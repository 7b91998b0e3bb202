"""Topics and changelogs that are not what the positions say: named, never skipped or repeated in silence."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import NewTopic, OffsetSpec

from app.devstack.kafka import KafkaServer
from tests.support.fold import FoldGroup, FoldWorker, folded, until
from tests.system.test_engine_sources import made

pytestmark = pytest.mark.kafka

NUMBERS = 4
RECORDS = 500


@pytest.fixture
def group(kafka: KafkaServer, unique: Callable[[str], str], tmp_path: Path) -> Iterator[FoldGroup]:
    group = FoldGroup(kafka.bootstrap, unique("positions"), tmp_path, numbers=NUMBERS)
    yield group
    group.close()


def worked_and_stopped(group: FoldGroup, **env: str) -> FoldWorker:
    group.produce(0, RECORDS)
    (worker,) = group.start("w1", **env)
    until(lambda: group.counted() == folded(RECORDS, 2), what="counted")
    assert worker.terminate() == 0
    return worker


def empty(group: FoldGroup, changelog: str) -> None:
    group.admin.delete_topics([changelog])[changelog].result(20)
    again = NewTopic(changelog, NUMBERS, 1, config={"cleanup.policy": "compact"})
    until(lambda: made(group, again), what="made again, empty")


def test_a_topic_that_is_not_there_is_named_and_the_others_are_read(group: FoldGroup) -> None:
    small = f"{group.app}.small"
    group.admin.delete_topics([small])[small].result(20)
    until(lambda: small not in group.admin.list_topics(timeout=20).topics, what="gone")
    (worker,) = group.start("w1")

    until(lambda: worker.reasons == [f"no metadata of topic {small}"] and worker.numbers, what="named")
    group.produce(0, RECORDS, topics=("in",))
    until(lambda: group.counted() == folded(RECORDS, 1), what="the others")

    until(lambda: made(group, NewTopic(small, 3, 1)), what="made")
    group.produce(0, RECORDS, topics=("small",))
    until(lambda: group.counted() == folded(RECORDS, 2), what="read as soon as it is there")
    until(lambda: worker.ready, what="ready")


def test_an_emptied_changelog_is_not_taken_for_a_beginning(group: FoldGroup) -> None:
    worker = worked_and_stopped(group)
    empty(group, f"{group.app}-counts-changelog")

    worker.start()
    until(lambda: len(worker.reasons) == NUMBERS and "restoring" not in str(worker.reasons), what="refused")

    for number, reason in enumerate(worker.reasons):
        place = f"{group.app}.in/{number}"
        assert reason.startswith(f"number {number} is refused: {place}: the group has offset ")
        assert "but the changelog has no position row; a changelog was lost" in reason
        assert f"vault-stream positions reset {place} --to beginning|end|OFFSET --yes" in reason
    assert group.counted() == {}
    assert worker.process.poll() is None


@pytest.mark.prove
def test_an_engine_that_trusts_the_group_forgets_everything_in_silence_when_its_changelog_is_emptied(
    group: FoldGroup,
) -> None:
    worker = worked_and_stopped(group, BROKEN="trusted_positions")
    empty(group, f"{group.app}-counts-changelog")

    worker.start()
    until(lambda: worker.ready, what="ready, as if nothing had been")
    group.produce(0, RECORDS)
    until(lambda: group.counted().total() == 2 * RECORDS, what="only what came since")


def transaction(group: FoldGroup, name: str, *, commit: bool) -> None:
    producer = Producer({"bootstrap.servers": group.brokers, "transactional.id": name, "log_level": 0})
    producer.init_transactions()
    producer.begin_transaction()
    for partition in range(12):
        for _ in range(20):
            producer.produce(f"{group.app}.in", b"v", b"k", partition=partition)
    producer.flush(30)
    producer.commit_transaction() if commit else producer.abort_transaction()


def stands_at_the_end(group: FoldGroup, topic: str) -> bool:
    """Whether the group has all of a topic behind it, by its offsets, which are a copy of the positions."""
    places = {TopicPartition(topic, partition): OffsetSpec.latest() for partition in range(12)}
    ends = {tp.partition: future.result(20).offset for tp, future in group.admin.list_offsets(places).items()}
    asked = [ConsumerGroupTopicPartitions(group.app, [TopicPartition(topic, p) for p in ends])]
    (future,) = group.admin.list_consumer_group_offsets(asked).values()
    return {tp.partition: tp.offset for tp in future.result(20).topic_partitions} == ends


def test_transactions_of_a_vault_service_leave_no_lag_and_no_gap_behind(
    group: FoldGroup, unique: Callable[[str], str]
) -> None:
    (worker,) = group.start("w1")
    transaction(group, unique("vault"), commit=True)
    until(lambda: group.counted() == {b"k": 240}, what="counted")
    transaction(group, unique("vault"), commit=False)

    until(lambda: stands_at_the_end(group, f"{group.app}.in"), what="positions at the end, behind the markers")
    until(lambda: worker.ready and not any(worker.status["lag"].values()), what="no lag")
    assert worker.terminate() == 0
    # Retention takes all of it, the markers too; none of that was a record that we have not read.
    group.delete_everything(f"{group.app}.in", 12)
    worker.start()
    group.produce(0, RECORDS, topics=("in",))
    until(lambda: group.counted().total() == 240 + RECORDS, what="counted")
    assert "retention took" not in worker.log


@pytest.mark.prove
def test_an_engine_that_stops_before_a_marker_lags_for_ever(group: FoldGroup, unique: Callable[[str], str]) -> None:
    (worker,) = group.start("w1", BROKEN="markers_are_lag")
    transaction(group, unique("vault"), commit=True)
    until(lambda: group.counted() == {b"k": 240}, what="counted")

    with pytest.raises(AssertionError, match="not within"):
        until(lambda: stands_at_the_end(group, f"{group.app}.in"), deadline_s=15, what="positions at the end")
    assert any(worker.status["lag"].values())
