"""Reads whole topics from the broker of the settings, with a progress bar."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, TypeVar

import click
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from rich.console import Console
from rich.progress import Progress

from app.brokers import explain
from app.topics import BrokerRefusesError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from app.cli.broker import Broker

__all__ = ["BROKER_TIMEOUT_S", "TopicReader", "progress_bar"]

BROKER_TIMEOUT_S: Final = 15.0
SILENCE_S: Final = 30.0
FETCH_WAIT_MS: Final = 10
SETTLE_S: Final = 5.0
"""How long the brokers may take to agree on a topic that was made a moment ago."""
ASK_AGAIN_S: Final = 0.1

# librdkafka's public names of its own errors begin with an underscore.
_UNSETTLED: Final = frozenset(
    {
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001  # see above
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001  # see above
    }
)

T = TypeVar("T")


class TopicReader:
    """Reads whole topics, committed records only; on the embedded cluster, which cannot do that, all of them.

    Attributes:
        ends: By partition, one beyond the last record of the topic that was read last.
    """

    def __init__(self, broker: Broker) -> None:
        self.ends: dict[int, int] = {}
        self._embedded = broker.embedded
        self._consumer = Consumer(
            {
                **broker.config,
                "group.id": broker.group,
                "enable.auto.commit": False,
                # By default librdkafka goes to the end where retention took what is read next, and says nothing.
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "isolation.level": "read_uncommitted" if broker.embedded else "read_committed",
                # The end of a topic is an empty answer to a fetch, and while the broker holds one back (500 ms by
                # default) everything else on that connection waits behind it.
                "fetch.wait.max.ms": FETCH_WAIT_MS,
            }
        )

    def close(self) -> None:
        """Leave the broker alone."""
        self._consumer.close()

    def partitions(self, topic: str) -> list[int]:
        """The partitions of a topic.

        Raises:
            click.ClickException: There is no such topic.
        """

        def ask() -> list[int]:
            found = self._consumer.list_topics(topic, timeout=BROKER_TIMEOUT_S).topics[topic]
            if found.error is not None and found.error.code() == KafkaError.LEADER_NOT_AVAILABLE:
                raise KafkaException(found.error)
            _refuse(found.error, topic)
            return [] if found.error is not None else sorted(found.partitions)

        partitions = settled(ask)
        if not partitions:
            raise click.ClickException(
                f"there is no topic {topic}: run `vault-stream topics apply`, or a worker, with these settings"
            )
        return partitions

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """The first offset of a partition that exists, and one beyond its last."""

        def ask() -> tuple[int, int]:
            low, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), BROKER_TIMEOUT_S)
            return int(low), int(high)

        return settled(ask)

    def offsets_at(self, topic: str, partitions: Iterable[int], at_ms: int) -> dict[int, int | None]:
        """Of each partition the first offset of that time or later; None: there is none."""
        if self._embedded:
            return self._looked_up(topic, partitions, at_ms)
        asked = [TopicPartition(topic, partition, max(0, at_ms)) for partition in partitions]
        found = settled(lambda: self._consumer.offsets_for_times(asked, BROKER_TIMEOUT_S))
        return {place.partition: place.offset if place.offset >= 0 else None for place in found}

    def _looked_up(self, topic: str, partitions: Iterable[int], at_ms: int) -> dict[int, int | None]:
        """The same on the embedded cluster, which knows no times; a partition of it holds 5 MB."""
        found: dict[int, int | None] = dict.fromkeys(partitions)
        for message in self.records(topic, "looking for a time"):
            partition = message.partition() or 0
            if found.get(partition) is None and message.timestamp()[1] >= at_ms:
                found[partition] = message.offset()
        return found

    def records(self, topic: str, doing: str, spans: Mapping[int, tuple[int, int]] | None = None) -> Iterator[Message]:
        """Every record that is in the topic now, in the order of each partition.

        Args:
            doing: What the progress bar says.
            spans: By partition the first offset to read, and the one behind the last; None: all.

        Raises:
            click.ClickException: There is no such topic, the broker fell silent, or retention took records that were
                not read yet.
        """
        bounds = {partition: self.bounds(topic, partition) for partition in self.partitions(topic)}
        self.ends = {partition: high for partition, (_, high) in bounds.items()}
        chosen = bounds if spans is None else spans
        open_ = {partition: stop for partition, (start, stop) in chosen.items() if spans is None or start < stop}
        starts = {partition: chosen[partition][0] if spans else OFFSET_BEGINNING for partition in open_}
        self._consumer.assign([TopicPartition(topic, partition, start) for partition, start in starts.items()])
        settled_s = time.monotonic() + SETTLE_S
        with progress_bar() as progress:
            task = progress.add_task(doing, total=sum(stop - start for start, stop in chosen.values()))
            while open_:
                message = self._consumer.poll(SILENCE_S)
                if message is None:
                    raise click.ClickException(f"the broker sent nothing of {topic} for {SILENCE_S:.0f} s")
                error = message.error()
                if error is None:
                    partition = message.partition() or 0
                    if spans is not None and (message.offset() or 0) >= open_.get(partition, 0):
                        open_.pop(partition, None)
                        self._consumer.pause([TopicPartition(topic, partition)])
                        continue
                    progress.advance(task)
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  # see _UNSETTLED
                    partition = message.partition() or 0
                    open_.pop(partition, None)
                    self.ends[partition] = message.offset() or 0
                elif error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001  # see _UNSETTLED
                    raise click.ClickException(f"retention took records of {topic} before they were read: try again")
                elif explain(error) is not None:
                    _refuse(error, topic)
                elif error.code() not in _UNSETTLED or time.monotonic() > settled_s:
                    raise KafkaException(error)
        self._consumer.unassign()

    def record_at(self, topic: str, partition: int, offset: int) -> Message | None:
        """One record; None if nothing that can be read has that offset."""
        begin, end = self.bounds(topic, partition)
        if not begin <= offset < end:
            return None
        self._consumer.assign([TopicPartition(topic, partition, offset)])
        message = self._consumer.poll(SILENCE_S)
        self._consumer.unassign()
        if message is None or message.error() is not None or message.offset() != offset:
            return None
        return message


def _refuse(error: KafkaError | None, topic: str) -> None:
    """Raises `BrokerRefusesError` if that is what the error means."""
    if error is not None and (line := explain(error, "Read", topic)) is not None:
        raise BrokerRefusesError(line)


def settled(ask: Callable[[], T]) -> T:
    """What `ask` gives, asked again for some seconds while the brokers do not agree on the topic yet.

    Raises:
        KafkaException: It still failed at the end, or failed otherwise.
    """
    deadline_s = time.monotonic() + SETTLE_S
    while True:
        try:
            return ask()
        except KafkaException as error:
            if error.args[0].code() not in _UNSETTLED or time.monotonic() > deadline_s:
                raise
        time.sleep(ASK_AGAIN_S)


def progress_bar() -> Progress:
    """On standard error, gone when it is done; nothing at all where that is no terminal."""
    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not console.is_terminal)
