"""Reads whole topics from the broker of the settings, with a progress bar."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import click
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from rich.console import Console
from rich.progress import Progress

__all__ = ["BROKER_TIMEOUT_S", "TopicReader", "progress_bar"]

BROKER_TIMEOUT_S: Final = 15.0
SILENCE_S: Final = 30.0


class TopicReader:
    """Reads whole topics, committed records only; on the embedded cluster, which cannot do that, all of them.

    Attributes:
        ends: By partition, one beyond the last record of the topic that was read last.
    """

    def __init__(self, config: dict[str, str | int], *, embedded: bool) -> None:
        self.ends: dict[int, int] = {}
        self._consumer = Consumer(
            {
                **config,
                "group.id": "vault-stream-reader",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_uncommitted" if embedded else "read_committed",
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
        found = self._consumer.list_topics(topic, timeout=BROKER_TIMEOUT_S).topics[topic]
        if found.error is not None or not found.partitions:
            raise click.ClickException(f"there is no topic {topic}: has a worker run with these settings?")
        return sorted(found.partitions)

    def records(self, topic: str, doing: str) -> Iterator[Message]:
        """Every record that is in the topic now, in the order of each partition.

        Raises:
            click.ClickException: There is no such topic, or the broker fell silent.
        """
        open_ = dict.fromkeys(self.partitions(topic), 0)
        total = 0
        for partition in open_:
            low, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), BROKER_TIMEOUT_S)
            total += high - low
        self.ends = dict(open_)
        self._consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in open_])
        with progress_bar() as progress:
            task = progress.add_task(doing, total=total)
            while open_:
                message = self._consumer.poll(SILENCE_S)
                if message is None:
                    raise click.ClickException(f"the broker sent nothing of {topic} for {SILENCE_S:.0f} s")
                if not self._ended(message, open_):
                    progress.advance(task)
                    yield message
        self._consumer.unassign()

    def _ended(self, message: Message, open_: dict[int, int]) -> bool:
        """Whether this says that a partition has no more records."""
        error = message.error()
        if error is None:
            return False
        if error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001  (librdkafka's public name for it)
            raise KafkaException(error)
        partition = message.partition() or 0
        open_.pop(partition, None)
        self.ends[partition] = message.offset() or 0
        return True


def progress_bar() -> Progress:
    """On standard error, gone when it is done."""
    return Progress(console=Console(stderr=True), transient=True)
