"""Where an upstream is and how it is authenticated; certificates and keys are read again when their files change."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = logging.getLogger("app.integrations.upstream")

LOOK_AGAIN_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class UpstreamConfig:
    """Where an upstream is, how it is authenticated and how long it may take.

    Attributes:
        endpoint: Base URL; a path in it is kept.
        token: Sent as `Bearer` in `Authorization`, or as it is in another header.
        header_names: How this upstream spells headers that callers know under other names.
        timeout_s: For the whole request, answer read.
        connect_timeout_s: For the connection alone.
        ssl_ca: A file of roots to trust instead of the system's.
        ssl_cert: With `ssl_key`, the client certificate (mTLS).
        proxy: An HTTP proxy; none is ever taken from the environment.
    """

    endpoint: str
    timeout_s: float
    connect_timeout_s: float = 5.0
    token: str | None = field(default=None, repr=False)
    auth_header: str = "Authorization"
    header_names: Mapping[str, str] = field(default_factory=dict)
    ssl_ca: str | None = None
    ssl_cert: str | None = None
    ssl_key: str | None = None
    proxy: str | None = field(default=None, repr=False)

    def credential(self) -> dict[str, str]:
        """The header that the token is in; none without one."""
        if not self.token:
            return {}
        bearer = self.auth_header.lower() == "authorization"
        return {self.auth_header: f"Bearer {self.token}" if bearer else self.token}

    def tls(self) -> ssl.SSLContext:
        """Certificates are always verified.

        Raises:
            OSError: A file is missing or is no certificate (`ssl.SSLError` is one).
        """
        context = ssl.create_default_context(cafile=self.ssl_ca)
        if self.ssl_cert:
            # A key that is encrypted is an error: without a password here, OpenSSL would ask the terminal for one.
            context.load_cert_chain(self.ssl_cert, self.ssl_key, password="")
        return context


class TlsFiles:
    """The TLS context that some files make, made anew when one of them has changed.

    Args:
        config: Names them.
        monotonic_s: The clock that says when to look again: once a second.

    Raises:
        OSError: A file is missing or is no certificate.
    """

    def __init__(self, config: UpstreamConfig, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._files = [Path(file) for file in (config.ssl_ca, config.ssl_cert, config.ssl_key) if file]
        self._monotonic_s = monotonic_s
        self._seen = self._state()
        self._context = config.tls()
        self._look_at_s = monotonic_s() + LOOK_AGAIN_S

    async def current(self) -> ssl.SSLContext:
        """The context of the files as they are.

        What cannot be read is said once, and the last context stays: a certificate and its key are seldom replaced at
        one stroke, and the next look will find both.
        """
        now_s = self._monotonic_s()
        if not self._files or now_s < self._look_at_s:
            return self._context
        self._look_at_s = now_s + LOOK_AGAIN_S
        state = self._state()
        if state != self._seen:
            self._seen = state
            try:
                self._context = await asyncio.to_thread(self._config.tls)
            except OSError as error:
                kind = error.reason if isinstance(error, ssl.SSLError) else error.strerror
                log.warning("changed TLS files of an upstream cannot be used, the old ones stay: %s", kind)
        return self._context

    def _state(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_stat(file) for file in self._files)


def _stat(file: Path) -> tuple[int, int, int] | None:
    """What tells a file from the one before it; None if it is not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
