"""Topic ids and consumer-group facts that aiokafka does not know, from librdkafka's admin client."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from app.brokers import Connection

__all__ = ["topic_ids"]

log = logging.getLogger("app.engine.topic_ids")

DEADLINE_S = 10.0


async def topic_ids(connection: Connection, topics: Sequence[str]) -> dict[str, str]:
    """The id of each topic that exists.

    Raises:
        TimeoutError, OSError: The brokers did not tell.
    """
    return await asyncio.to_thread(_describe, connection, list(topics))


def _describe(connection: Connection, topics: list[str]) -> dict[str, str]:
    admin = AdminClient(connection.librdkafka())
    found: dict[str, str] = {}
    for topic, future in admin.describe_topics(TopicCollection(topics), request_timeout=DEADLINE_S).items():
        try:
            found[topic] = str(future.result(DEADLINE_S).topic_id)
        except KafkaException as error:
            raise OSError(f"topic {topic} cannot be described: {error}") from error
    return found
