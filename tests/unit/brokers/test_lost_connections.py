"""What aiokafka says of a connection that is lost, on the loop that a worker has."""

import asyncio
import inspect
import socket
import struct
from typing import Any

import pytest
import uvloop
from aiokafka import errors as kafka_errors
from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.admin import ApiVersionRequest
from aiokafka.protocol.metadata import MetadataRequest

from app.brokers import lost_connections

DEADLINE_S = 20


async def reset(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Break the connection, as a broker that dies does."""
    linger_no_time = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_no_time)
    writer.transport.abort()


async def write_until_it_fails(send: Any) -> tuple[BaseException, AIOKafkaConnection]:
    """Requests on a connection that aiokafka has not closed yet, until one of them is refused."""
    async with await asyncio.start_server(reset, "127.0.0.1", 0) as server, asyncio.timeout(DEADLINE_S):
        connection = AIOKafkaConnection(*server.sockets[0].getsockname())
        connection._reader, connection._writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        connection._read_task = asyncio.create_task(asyncio.Event().wait())
        while True:
            try:
                await asyncio.sleep(0.001)
                answer = send(connection, ApiVersionRequest())
                answer.add_done_callback(lambda told: told.cancelled() or told.exception())
            except Exception as error:  # noqa: BLE001  # what it is, is what is asked
                return error, connection


def test_a_write_on_a_lost_connection_is_an_error_of_kafka_and_closes_it() -> None:
    error, connection = uvloop.run(write_until_it_fails(AIOKafkaConnection.send))

    assert isinstance(error, kafka_errors.KafkaConnectionError)
    assert not connection.connected()


def test_without_us_it_is_an_error_that_nobody_expects() -> None:
    error, connection = uvloop.run(write_until_it_fails(lost_connections._send))

    assert type(error) is RuntimeError
    connection._writer = connection._reader = None


@pytest.mark.parametrize("error", [kafka_errors.SaslAuthenticationFailed("no"), NotImplementedError("no such version")])
async def test_another_error_of_making_one_stays_what_it_is(
    monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    async def refused(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", refused)

    with pytest.raises(type(error)) as met:
        await AIOKafkaConnection("127.0.0.1", 9).connect()
    assert met.value is error


async def test_a_request_that_the_broker_is_too_old_for_leaves_the_connection_open() -> None:
    async with await asyncio.start_server(reset, "127.0.0.1", 0) as server:
        connection = AIOKafkaConnection(*server.sockets[0].getsockname())
        connection._reader, connection._writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            with pytest.raises(kafka_errors.IncompatibleBrokerVersion):
                connection.send(MetadataRequest([]))
            assert connection.connected()
        finally:
            connection._writer.close()
            connection._writer = connection._reader = None


async def test_one_that_is_lost_while_it_is_made_is_an_error_of_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    async def lost(*_: Any, **__: Any) -> None:
        raise RuntimeError("unable to perform operation; the handler is closed")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", lost)
    connection = AIOKafkaConnection("127.0.0.1", 9)

    with pytest.raises(kafka_errors.KafkaConnectionError, match="the handler is closed"):
        await connection.connect()
    assert not connection.connected()


def test_our_send_takes_what_that_of_aiokafka_takes() -> None:
    theirs, ours = inspect.signature(lost_connections._send), inspect.signature(AIOKafkaConnection.send)
    assert [(p.name, p.default) for p in theirs.parameters.values()][1:] == [
        (p.name, p.default) for p in ours.parameters.values()
    ][1:]
    assert ours.parameters.keys() - theirs.parameters.keys() == {"connection"}


@pytest.mark.parametrize("name", ["_reader", "_writer", "_read_task"])
def test_the_private_names_of_these_tests_are_there(name: str) -> None:
    assert f"self.{name} = " in inspect.getsource(AIOKafkaConnection) or f"self.{name}, " in inspect.getsource(
        AIOKafkaConnection
    )
