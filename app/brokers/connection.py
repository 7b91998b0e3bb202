"""How to reach the brokers: one value for all clients, in the dialect of each."""

from __future__ import annotations

import ssl
from pathlib import Path
from threading import Lock
from typing import Any, Final, TypeVar
from weakref import WeakSet

from cryptography import x509

from app.brokers.lost_connections import tell_lost_connections
from app.brokers.tls import LiveContext

__all__ = ["Connection", "connection_to"]

T = TypeVar("T")

_SETTINGS: Final = (
    "security_protocol",
    "sasl_mechanism",
    "sasl_username",
    "sasl_password",
    "ssl_ca",
    "ssl_cert",
    "ssl_key",
)


class Connection:
    """Bootstrap servers and credentials; the credentials may be renewed.

    Args:
        brokers: `host:port`, comma separated.
        security_protocol: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.
        ssl_ca: A PEM file with the roots to trust; the system's if None.
        ssl_cert: A PEM file with the client's certificate.
        ssl_key: A PEM file with its key.
    """

    def __init__(
        self,
        brokers: str,
        security_protocol: str = "PLAINTEXT",
        sasl_mechanism: str | None = None,
        sasl_username: str | None = None,
        sasl_password: str | None = None,
        ssl_ca: str | None = None,
        ssl_cert: str | None = None,
        ssl_key: str | None = None,
    ) -> None:
        self.brokers = brokers
        self.security_protocol = security_protocol
        self.sasl_mechanism = sasl_mechanism
        self.sasl_username = sasl_username
        self._sasl_password = sasl_password
        self._files = (ssl_ca, ssl_cert, ssl_key)
        self._context: LiveContext | None = None
        self._clients: WeakSet[Any] = WeakSet()
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"Connection({self.brokers!r}, {self.security_protocol!r}, {self.sasl_username!r})"

    @property
    def principal(self) -> str:
        """Who we are to an authorizer, as far as it is known here."""
        if self.security_protocol.startswith("SASL") and self.sasl_username:
            return f"User:{self.sasl_username}"
        certificate = self._files[1]
        return f"User:{_subject(certificate)}" if certificate else "User:ANONYMOUS"

    def ssl_context(self) -> ssl.SSLContext | None:
        """The TLS context, None for plaintext; it reads its files again when they change.

        Raises:
            TlsFileError: They cannot be used.
        """
        if not self.security_protocol.endswith("SSL"):
            return None
        with self._lock:
            if self._context is None:
                self._context = LiveContext(*self._files)
            return self._context

    def aiokafka(self) -> dict[str, Any]:
        """Keyword arguments for aiokafka's clients.

        Raises:
            TlsFileError: A file cannot be used.
        """
        options: dict[str, Any] = {
            "bootstrap_servers": self.brokers,
            "security_protocol": self.security_protocol,
            "ssl_context": self.ssl_context(),
        }
        if self.sasl_mechanism:
            options |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": self._sasl_password,
            }
        return options

    def librdkafka(self) -> dict[str, Any]:
        """Configuration for confluent_kafka's clients, as it is now."""
        ca, certificate, key = self._files
        named = {
            "bootstrap.servers": self.brokers,
            "security.protocol": None if self.security_protocol == "PLAINTEXT" else self.security_protocol,
            "sasl.mechanism": self.sasl_mechanism,
            "sasl.username": self.sasl_username,
            "sasl.password": self._sasl_password,
            "ssl.ca.location": ca,
            "ssl.certificate.location": certificate,
            "ssl.key.location": key,
            "log_level": 0,
        }
        return {name: value for name, value in named.items() if value is not None}

    # -- while clients live

    def adopt(self, client: T) -> T:
        """A client of aiokafka whose connections shall use the credentials of now, and later what `renew` brings."""
        inner = getattr(client, "_client", None) or getattr(client, "client", client)
        with self._lock:
            self._clients.add(inner)
            self._lend(inner)
        return client

    def _lend(self, client: Any) -> None:
        client._sasl_plain_username = self.sasl_username  # noqa: SLF001  # pinned by a test
        client._sasl_plain_password = self._sasl_password  # noqa: SLF001  # pinned by a test

    def renew(self, other: Connection) -> bool:
        """Take over the credentials of another value; brokers and protocol stay. Whether they differ.

        Connections that stand are left alone. Certificates need no call: their files are watched.
        """
        with self._lock:
            fresh = (other.sasl_username, other._sasl_password)
            if fresh == (self.sasl_username, self._sasl_password):
                return False
            self.sasl_username, self._sasl_password = fresh
            for client in list(self._clients):
                self._lend(client)
        return True


def _subject(certificate: str) -> str:
    """Whom it names, as brokers without `ssl.principal.mapping.rules` call him."""
    try:
        return x509.load_pem_x509_certificate(Path(certificate).read_bytes()).subject.rfc4514_string()
    except (OSError, ValueError):
        return "the subject of KAFKA__SSL_CERT"


def connection_to(brokers: str, kafka: object | None = None) -> Connection:
    """The connection that settings ask for.

    Args:
        brokers: `host:port`, comma separated.
        kafka: The `KAFKA__*` group of the settings (contracts 8.2); without it, plaintext.
    """
    if kafka is None:
        return Connection(brokers)
    values = {name: getattr(kafka, name) for name in _SETTINGS}
    password = values["sasl_password"]
    if hasattr(password, "get_secret_value"):
        values["sasl_password"] = password.get_secret_value()
    given = {name: str(value) for name, value in values.items() if value is not None}
    return Connection(brokers, **given)


tell_lost_connections()
