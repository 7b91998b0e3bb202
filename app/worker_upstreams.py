"""The upstreams of a worker: made from the settings, and given new credentials when the secrets change.

A token that expires is replaced in the folder `SECRETS_DIR`; certificates and keys are watched by the client itself.
Nothing restarts.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from app.integrations.upstream import HttpUpstream, UpstreamConfig
from app.settings import GovernanceSettings, SecretsWatch, SettingsError, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pydantic import SecretStr

    from app.observability.tracing import Tracer
    from app.settings import Settings, UpstreamSettings

__all__ = ["NAMES", "Credentials", "make_upstream", "make_upstreams"]

log = logging.getLogger("app.upstreams")

NAMES: Final = ("governance", "policy", "registry")
LOOK_AGAIN_S: Final = 1.0


def make_upstreams(settings: Settings, tracer: Tracer | None = None) -> dict[str, HttpUpstream | None]:
    """One client for each upstream that has an endpoint, by name.

    Raises:
        OSError: A TLS file is missing or is no certificate.
    """
    return {name: make_upstream(getattr(settings, name), tracer, peer=name) for name in NAMES}


def make_upstream(
    settings: UpstreamSettings, tracer: Tracer | None = None, *, peer: str | None = None
) -> HttpUpstream | None:
    """The client of one upstream; None without an endpoint.

    Args:
        settings: Its own.
        tracer: Makes a span of each call; None: nobody asks for traces.
        peer: See `HttpUpstream`.

    Raises:
        OSError: A TLS file is missing or is no certificate.
    """
    config = _config(settings)
    if config is None:
        return None
    if tracer is None:
        return HttpUpstream(config, peer=peer)
    from app.integrations.upstream.traced import TracedUpstream  # noqa: PLC0415  # it loads OpenTelemetry

    return TracedUpstream(config, tracer, peer=peer)


class Credentials:
    """Keeps the credentials of upstreams as the secrets folder has them.

    Args:
        settings: Of the start; without a `SECRETS_DIR` there is nothing to watch.
        clients: Each with the name of the settings that it was made from; several may share one.
        load: Reads all settings anew.
        also: Told of the new settings, after the clients.
    """

    def __init__(
        self,
        settings: Settings,
        clients: Iterable[tuple[str, HttpUpstream | None]],
        load: Callable[[], Settings] = load_settings,
        *,
        also: Callable[[Settings], object] = lambda _: None,
    ) -> None:
        folder = settings.secrets_dir
        self._watch = SecretsWatch(folder, load) if folder is not None else None
        self._clients = tuple(clients)
        self._also = also
        self._task: asyncio.Task[None] | None = None
        self._told_unreadable = False

    def start(self) -> None:
        """Look once a second, until `stop`."""
        if self._watch is not None:
            self._task = asyncio.create_task(self._run(self._watch))

    async def stop(self) -> None:
        """Look no more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self, watch: SecretsWatch) -> None:
        while True:
            await asyncio.sleep(LOOK_AGAIN_S)
            await self._look(watch)

    async def _look(self, watch: SecretsWatch) -> None:
        """Give each upstream what changed; what is refused is said once, and the old secrets stay."""
        try:
            settings = await asyncio.to_thread(watch.poll)
        except SettingsError as error:
            for problem in error.problems:
                log.error("changed secrets are refused, the old ones stay: %s", problem)  # noqa: TRY400  # its text
            return
        except OSError as error:
            if not self._told_unreadable:
                log.warning("the secrets folder cannot be read, the old secrets stay: %s", error.strerror)
            self._told_unreadable = True
            return
        self._told_unreadable = False
        if settings is None:
            return
        for name, client in self._clients:
            config = _config(getattr(settings, name))
            if client is None or config is None:
                continue
            try:
                client.renew(config)
            except OSError as error:
                log.error("the TLS files of %s cannot be used, the old ones stay: %s", name, error.strerror)  # noqa: TRY400
        self._also(settings)
        log.info("secrets have changed: credentials of Kafka and of upstreams are in use, the rest at the next start")


def _config(settings: UpstreamSettings) -> UpstreamConfig | None:
    if settings.endpoint is None:
        return None
    files = (settings.ssl_ca, settings.ssl_cert, settings.ssl_key)
    ca, cert, key = (str(file) if file else None for file in files)
    return UpstreamConfig(
        endpoint=settings.endpoint,
        timeout_s=settings.timeout_s,
        connect_timeout_s=settings.connect_timeout_s,
        token=_secret(settings.token),
        auth_header=settings.auth_header,
        header_names=_header_names(settings),
        ssl_ca=ca,
        ssl_cert=cert,
        ssl_key=key,
        proxy=_secret(settings.proxy),
    )


def _header_names(settings: UpstreamSettings) -> dict[str, str]:
    named = {"Idempotency-Key": settings.idempotency_header}
    if isinstance(settings, GovernanceSettings):
        named |= {
            "X-Batch-First-Offset": settings.batch_first_header,
            "X-Batch-Last-Offset": settings.batch_last_header,
        }
    return named


def _secret(value: SecretStr | None) -> str | None:
    return None if value is None else value.get_secret_value()
