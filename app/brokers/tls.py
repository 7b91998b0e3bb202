"""TLS from files that may be replaced: what counts is what they hold when a connection is made."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from threading import Lock
from typing import Any, Self

__all__ = ["LiveContext", "TlsFileError"]

log = logging.getLogger("app.brokers.tls")


class TlsFileError(OSError):
    """A file is missing, unreadable or no PEM; the text names the setting, and nothing of the file."""


class LiveContext(ssl.SSLContext):
    """A client's context that reads its files again when one of them has changed.

    A certificate and its key are seldom replaced at one stroke: what cannot be used is said once, and the last files
    that could be stay in use.

    Args:
        ca: Roots to trust; the system's if None.
        certificate: The client's certificate chain.
        key: Its key.

    Raises:
        TlsFileError: They cannot be used now.
    """

    _files: tuple[str | None, str | None, str | None]

    def __new__(cls, ca: str | None, certificate: str | None, key: str | None) -> Self:
        """An `SSLContext` is made by its `__new__`."""
        del ca, certificate, key
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, ca: str | None, certificate: str | None, key: str | None) -> None:
        self._files = (ca, certificate, key)
        self._lock = Lock()
        self._seen = self._state()
        self._now = _context(*self._files)

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """What asyncio and uvloop call for each connection."""
        return self._current().wrap_bio(*args, **options)

    def _current(self) -> ssl.SSLContext:
        with self._lock:
            state = self._state()
            if state != self._seen:
                self._seen = state
                try:
                    self._now = _context(*self._files)
                except TlsFileError as error:
                    log.warning("changed TLS files cannot be used, the old ones stay: %s", error)
                else:
                    log.info("changed TLS files are in use for new connections to Kafka")
            return self._now

    def _state(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_stat(Path(file)) for file in self._files if file)


def _stat(file: Path) -> tuple[int, int, int] | None:
    """What tells a file from the one before it; None if it is not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _context(ca: str | None, certificate: str | None, key: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise TlsFileError(f"KAFKA__SSL_CA: {_kind(error)}; it must be a PEM file of certificates") from None
    if certificate:
        try:
            # A key that is encrypted is an error: without a password here, OpenSSL would ask the terminal for one.
            context.load_cert_chain(certificate, key, password="")
        except (OSError, ValueError) as error:
            fix = "they must be PEM files of a certificate and its key, which is not encrypted"
            raise TlsFileError(f"KAFKA__SSL_CERT, KAFKA__SSL_KEY: {_kind(error)}; {fix}") from None
    return context


def _kind(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not PEM").lower().replace("_", " ")
    return (error.strerror if isinstance(error, OSError) else None) or "cannot be used"
