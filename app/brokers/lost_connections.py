"""A connection that is lost is an error of Kafka, whichever loop runs.

aiokafka closes a connection a turn or two of the loop after it was lost. asyncio's transport takes what is written
meanwhile and drops it; that of uvloop raises RuntimeError, which aiokafka hands on, and nobody above it expects: it
ends the task that sends. So does one that is lost while it is made.
"""

from __future__ import annotations

from typing import Any

from aiokafka import errors as kafka_errors
from aiokafka.conn import AIOKafkaConnection, CloseReason

__all__ = ["tell_lost_connections"]

_connect, _send = AIOKafkaConnection.connect, AIOKafkaConnection.send


def tell_lost_connections() -> None:
    """Have every connection of aiokafka say it as an error that its callers know; once a process."""
    AIOKafkaConnection.connect, AIOKafkaConnection.send = _connect_or_tell, _send_or_tell


async def _connect_or_tell(connection: Any) -> Any:
    try:
        return await _connect(connection)
    except RuntimeError as error:
        if type(error) is not RuntimeError:
            # All of Kafka's own are of that kind.
            raise
        connection.close(reason=CloseReason.CONNECTION_BROKEN, exc=error)
        raise kafka_errors.KafkaConnectionError(f"no connection: {error}") from error


def _send_or_tell(connection: Any, request: Any, expect_response: bool = True) -> Any:  # aiokafka's signature
    try:
        return _send(connection, request, expect_response)
    except RuntimeError as error:
        if type(error) is not RuntimeError:
            raise
        connection.close(reason=CloseReason.CONNECTION_BROKEN, exc=error)
        raise kafka_errors.KafkaConnectionError(f"the connection is lost: {error}") from error
