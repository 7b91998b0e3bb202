"""What an operator does to the broker: in one transaction with the event that auditors read."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from app.events import STRUCTURED_HEADERS, AdminEventType, CloudEvent, new_event, record_key

__all__ = ["Sent", "Transaction", "Transactions", "operator_event"]

TRANSACTION_S: Final = 30.0
_REQUEST_BYTES: Final = 4 << 20

Header = tuple[str, bytes]


def operator_event(
    app_id: str, type_: AdminEventType, data: dict[str, Any], actor: str | Mapping[str, str] = "operator"
) -> CloudEvent:
    """An administrator's action; `data["id"]` is what was acted on."""
    return new_event(
        id=str(uuid.uuid4()),
        source=f"/vault-stream/{app_id}",
        type=str(type_),
        subject=str(data["id"]),
        data={**data, "actor": actor},
    )


class Sent:
    """One record that was handed over.

    Attributes:
        offset: Where it stands, once `Transaction.flush` has returned.
        error: Why it does not.
    """

    __slots__ = ("error", "offset")

    def __init__(self) -> None:
        self.offset = -1
        self.error: KafkaError | None = None

    def heard(self, error: KafkaError | None, message: Any) -> None:
        """The broker's answer."""
        self.error = error
        if error is None:
            self.offset = message.offset()


class Transaction:
    """Records that become visible together; without that on the embedded cluster, which has no transactions."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._sent: list[Sent] = []

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[Header] = (),
        *,
        partition: int | None = None,
    ) -> Sent:
        """Add a record."""
        sent = Sent()
        self._sent.append(sent)
        place = {} if partition is None else {"partition": partition}
        try:
            # Names are str and values bytes or None, which its types do not say.
            self._producer.produce(topic, value, key, headers=list(headers), on_delivery=sent.heard, **place)
        except KafkaException as error:
            sent.error = error.args[0]
        return sent

    def tell(self, topic: str, event: CloudEvent) -> Sent:
        """Add an event, in structured mode."""
        return self.send(topic, record_key(event), event.posted, STRUCTURED_HEADERS)

    def flush(self) -> list[Sent]:
        """Wait for every answer; those that failed.

        Raises:
            KafkaException: Not all were answered in time.
        """
        if self._producer.flush(TRANSACTION_S):
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))  # noqa: SLF001  # librdkafka's public name of it
        return [sent for sent in self._sent if sent.error is not None]

    def require(self) -> None:
        """Wait for every answer.

        Raises:
            KafkaException: One failed, or not all came in time.
        """
        if failed := self.flush():
            raise KafkaException(failed[0].error)


class Transactions:
    """A producer of transactions, one after another; whoever used its id before is fenced.

    Args:
        config: Of a librdkafka client.
        embedded: Whether the broker is librdkafka's in-process cluster, which has no transactions.
        transactional_id: Nobody else's at the same time.
    """

    def __init__(self, config: Mapping[str, str | int], transactional_id: str, *, embedded: bool) -> None:
        config = {**config, "partitioner": "murmur2_random", "message.max.bytes": _REQUEST_BYTES}
        self._fenced = not embedded
        if self._fenced:
            config["transactional.id"] = transactional_id
        # So that a value that fits its topic's limit still does with one header more.
        config["compression.type"] = "zstd"
        self._producer = Producer(config)
        if self._fenced:
            self._producer.init_transactions(TRANSACTION_S)

    def partitions(self, topic: str) -> Sequence[int]:
        """Those of a topic, none if it does not exist.

        Raises:
            KafkaException: Nobody says.
        """
        found = self._producer.list_topics(topic, timeout=TRANSACTION_S).topics[topic]
        return () if found.error is not None else sorted(found.partitions)

    @contextmanager
    def begin(self) -> Iterator[Transaction]:
        """A transaction: committed at the end of the `with`, aborted by an exception.

        Raises:
            KafkaException: A record was refused, or the commit.
        """
        if self._fenced:
            self._producer.begin_transaction()
        transaction = Transaction(self._producer)
        try:
            yield transaction
            transaction.require()
            if self._fenced:
                self._producer.commit_transaction(TRANSACTION_S)
        except BaseException:
            if self._fenced:
                # What began it is what the operator must hear; the broker itself aborts what nobody ends.
                with suppress(KafkaException):
                    self._producer.abort_transaction(TRANSACTION_S)
            raise
