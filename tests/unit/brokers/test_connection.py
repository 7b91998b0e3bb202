"""One connection for every client, whose credentials and files may change while clients live."""

import asyncio
import inspect
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from pydantic import SecretStr

from app.brokers import Connection, TlsFileError, connection_to
from app.settings import KafkaSettings
from tests.support.certificates import Authority

PASSWORD = "a-password-that-nobody-may-see"


def scram(password: str = PASSWORD, user: str = "app") -> Connection:
    return Connection("b:9092", "SASL_PLAINTEXT", "SCRAM-SHA-512", user, password)


def test_settings_become_the_same_connection_in_both_dialects(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    settings = KafkaSettings(
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="app",
        sasl_password=SecretStr(PASSWORD),
        ssl_ca=authority.file,
    )
    connection = connection_to("b:9092", settings)

    assert connection.librdkafka() == {
        "bootstrap.servers": "b:9092",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "app",
        "sasl.password": PASSWORD,
        "ssl.ca.location": str(authority.file),
        "log_level": 0,
    }
    options = connection.aiokafka()
    assert options.pop("ssl_context").verify_mode == ssl.CERT_REQUIRED
    assert options == {
        "bootstrap_servers": "b:9092",
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "app",
        "sasl_plain_password": PASSWORD,
    }
    assert PASSWORD not in repr(connection)


async def test_clients_that_live_use_new_credentials_for_their_next_connection() -> None:
    connection = scram()
    consumer, producer = AIOKafkaConsumer(**connection.aiokafka()), AIOKafkaProducer(**connection.aiokafka())
    clients = [
        connection.adopt(AIOKafkaClient(**connection.aiokafka())),
        connection.adopt(consumer)._client,
        connection.adopt(producer).client,
    ]

    assert connection.renew(scram("another", "other"))
    assert not connection.renew(scram("another", "other"))
    late = connection.adopt(AIOKafkaClient(**scram().aiokafka()))
    for client in [*clients, late]:
        assert (client._sasl_plain_username, client._sasl_plain_password) == ("other", "another")
    assert connection.librdkafka()["sasl.password"] == "another"
    for one in (consumer, producer):
        await one.stop()


def test_the_client_takes_its_credentials_anew_for_each_connection() -> None:
    for name in ("_sasl_plain_username", "_sasl_plain_password"):
        assert re.search(rf"self\.{name} = ", inspect.getsource(AIOKafkaClient.__init__))
        assert f"=self.{name}," in inspect.getsource(AIOKafkaClient._get_conn)


def test_who_we_are_is_the_login_or_the_subject_of_the_certificate(tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path, "ca").issue("worker")
    files = {"ssl_cert": str(certificate), "ssl_key": str(key)}

    assert scram().principal == "User:app"
    assert Connection("b:1", "SSL", **files).principal == "User:CN=worker"
    assert Connection("b:1").principal == "User:ANONYMOUS"


@pytest.mark.parametrize("content", [None, "no certificate"])
@pytest.mark.parametrize(("name", "setting"), [("ssl_ca", "KAFKA__SSL_CA"), ("ssl_cert", "KAFKA__SSL_CERT")])
def test_a_file_that_is_no_pem_names_its_setting(tmp_path: Path, name: str, setting: str, content: str | None) -> None:
    file = tmp_path / "file.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(TlsFileError, match=setting):
        Connection("b:1", "SSL", **{name: str(file)}).ssl_context()


@asynccontextmanager
async def listener(folder: Path, authority: Authority) -> AsyncIterator[tuple[int, list[str]]]:
    """A TLS server that wants a client certificate: its port, and the subjects that came."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.file)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(*authority.issue("server"))
    came: list[str] = []

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(str(dict(pair[0] for pair in writer.get_extra_info("peercert")["subject"])["commonName"]))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1], came


async def connect(connection: Connection, port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=connection.ssl_context())
    await reader.read()
    writer.close()


async def test_a_certificate_that_is_replaced_is_the_one_of_the_next_connection(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    certificate, key = authority.issue("before")
    connection = Connection("b:1", "SSL", ssl_ca=str(authority.file), ssl_cert=str(certificate), ssl_key=str(key))
    async with listener(tmp_path, authority) as (port, came):
        await connect(connection, port)
        fresh = authority.issue("after")
        # A certificate and its key are not replaced at one stroke; in between the last pair is used.
        fresh[0].replace(certificate)
        await connect(connection, port)
        fresh[1].replace(key)
        await connect(connection, port)

    assert came == ["before", "before", "after"]


async def test_an_authority_that_is_replaced_is_no_longer_trusted(tmp_path: Path) -> None:
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    certificate, key = old.issue("worker")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(old.file.read_bytes())
    connection = Connection("b:1", "SSL", ssl_ca=str(trusted), ssl_cert=str(certificate), ssl_key=str(key))
    async with listener(tmp_path, old) as (port, came):
        await connect(connection, port)
        trusted.write_bytes(new.file.read_bytes() + b"\n")
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(connection, port)

    assert came == ["worker"]
