"""From settings and the standard names of the environment to a tracer: what wins is in docs/tracing.md."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from app.observability.metrics import VERSION
from app.observability.tracing.sampling import Sampling

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from app.observability.tracing.export import Tracing

__all__ = ["TracingConfig", "TracingError", "start_tracing"]

log = logging.getLogger("app.tracing")

_PATH: Final = "/v1/traces"
_SERVICE_NAME: Final = "vault-stream"
_SAMPLERS: Final[Mapping[str, tuple[float | None, bool]]] = {
    "always_on": (1.0, False),
    "always_off": (0.0, False),
    "traceidratio": (None, False),
    "parentbased_always_on": (1.0, True),
    "parentbased_always_off": (0.0, True),
    "parentbased_traceidratio": (None, True),
}
_COMPRESSIONS: Final = ("none", "gzip", "deflate")
_FILES: Final = ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")


class TracingError(Exception):
    """Tracing cannot start as it is configured; the message names the variable and what it takes."""


@dataclass(frozen=True, slots=True)
class TracingConfig:
    """What our own settings say; None: not said, so the standard names of the environment count.

    Attributes:
        endpoint: Base URL of a collector (`/v1/traces` is added), or the whole URL.
        service_name, sample_ratio: See `TRACING__` in docs/settings.md.
        instance_id: Of this worker.
    """

    endpoint: str | None = None
    service_name: str | None = None
    sample_ratio: float | None = None
    instance_id: str = ""


def start_tracing(config: TracingConfig, environ: Mapping[str, str]) -> Tracing | None:
    """Start the thread that sends spans; None if tracing is off, as it is where nobody names a collector.

    Raises:
        TracingError: Something is configured that cannot be meant.
    """
    environment = _Environment(environ)
    endpoint = environment.endpoint(config.endpoint)
    if endpoint is None:
        return None
    # Only here: where tracing is off, nothing of it costs memory, or time at the start.
    from opentelemetry.exporter.otlp.proto.http import Compression  # noqa: PLC0415
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.version import __version__ as sdk_version  # noqa: PLC0415

    from app.observability.tracing.export import Counted, Queue, Tracing, WatchedSession  # noqa: PLC0415
    from app.observability.tracing.spans import OneResource, Tracer  # noqa: PLC0415

    session = WatchedSession()
    # The exporter's own words, several for each batch, are said once in ours.
    for noisy in ("opentelemetry", "urllib3"):
        if logging.getLogger(noisy).level == logging.NOTSET:
            logging.getLogger(noisy).setLevel(logging.CRITICAL + 1)
    resource = OneResource(environment.resource(config, sdk_version))
    sampling = environment.sampling(config.sample_ratio)
    size = environment.whole("OTEL_BSP_MAX_QUEUE_SIZE", 2048)
    batch_size = min(size, environment.whole("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512))
    delay_ms = environment.whole("OTEL_BSP_SCHEDULE_DELAY", 5000)
    environment.check_files()
    exporter = OTLPSpanExporter(
        endpoint=endpoint,
        timeout=environment.timeout_s(),
        compression=Compression(environment.compression()),
        session=session,
    )
    queue = Queue(Counted(exporter, lambda: session.problem), size=size, batch_size=batch_size, delay_ms=delay_ms)
    log.info("traces are kept at a ratio of %g and exported as OTLP over HTTP", sampling.ratio)
    return Tracing(Tracer(queue.put, resource=resource, sampling=sampling), queue)


class _Environment:
    """The standard names; an empty value is the same as unset."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def endpoint(self, ours: str | None) -> str | None:
        """The whole URL; None: off."""
        if self._get("OTEL_SDK_DISABLED").lower() == "true" or not self._exports():
            return None
        name, url = "VAULT_STREAM_TRACING__ENDPOINT", ours or ""
        if not url:
            name = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
            if url := self._get(name):
                return self._checked(name, url)
            name = "OTEL_EXPORTER_OTLP_ENDPOINT"
            url = self._get(name)
        if not url:
            return None
        base = self._checked(name, url).rstrip("/")
        return base if ours and base.endswith(_PATH) else base + _PATH

    def sampling(self, ratio: float | None) -> Sampling:
        """Ours, else `OTEL_TRACES_SAMPLER`, else everything."""
        if ratio is not None:
            return Sampling(ratio)
        name = self._get("OTEL_TRACES_SAMPLER") or "parentbased_traceidratio"
        if name not in _SAMPLERS:
            raise TracingError(f"OTEL_TRACES_SAMPLER: {_one_of(_SAMPLERS)}")
        fixed, parent_based = _SAMPLERS[name]
        return Sampling(self._ratio() if fixed is None else fixed, parent_based)

    def resource(self, config: TracingConfig, sdk_version: str) -> dict[str, str]:
        """Who the spans are of."""
        told = self._attributes()
        name = config.service_name or self._get("OTEL_SERVICE_NAME") or told.get("service.name") or _SERVICE_NAME
        return {
            "service.version": VERSION,
            "service.instance.id": config.instance_id,
            "telemetry.sdk.language": "python",
            "telemetry.sdk.name": "opentelemetry",
            "telemetry.sdk.version": sdk_version,
            **told,
            "service.name": name,
        }

    def whole(self, name: str, default: int) -> int:
        """A number of at least one."""
        text = self._get(name)
        if not text:
            return default
        if not text.isascii() or not text.isdigit() or int(text) == 0:
            raise TracingError(f"{name}: must be a whole number above 0")
        return int(text)

    def timeout_s(self) -> float:
        """Of one export, its repetitions included."""
        name, text = self._otlp("TIMEOUT")
        if not text:
            return 10.0
        try:
            seconds = float(text)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds <= 3600:  # noqa: PLR2004  # an hour
            raise TracingError(f"{name}: must be a number of seconds above 0 and at most 3600")
        return seconds

    def compression(self) -> str:
        """Of the requests."""
        name, text = self._otlp("COMPRESSION")
        compression = (text or "none").lower()
        if compression not in _COMPRESSIONS:
            raise TracingError(f"{name}: {_one_of(_COMPRESSIONS)}")
        return compression

    def check_files(self) -> None:
        """What the exporter would miss at each of its requests, and tell nobody."""
        for what in _FILES:
            name, text = self._otlp(what)
            if text and not Path(text).is_file():
                raise TracingError(f"{name}: must be the path of a file that can be read")

    def _exports(self) -> bool:
        exporter = self._get("OTEL_TRACES_EXPORTER") or "otlp"
        if exporter not in {"otlp", "none"}:
            raise TracingError("OTEL_TRACES_EXPORTER: must be otlp or none")
        name, protocol = self._otlp("PROTOCOL")
        if protocol not in {"", "http/protobuf"}:
            raise TracingError(f"{name}: must be http/protobuf, the only one that is spoken here")
        return exporter == "otlp"

    def _checked(self, name: str, url: str) -> str:
        try:
            parts = urlsplit(url)
            good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            good = False
        else:
            good = good and "@" not in parts.netloc and not any(char.isspace() for char in url)
        if not good:
            raise TracingError(f"{name}: must be an http or https URL without user name")
        return url

    def _ratio(self) -> float:
        text = self._get("OTEL_TRACES_SAMPLER_ARG") or "1"
        try:
            ratio = float(text)
        except ValueError:
            ratio = -1.0
        if not 0 <= ratio <= 1:
            raise TracingError("OTEL_TRACES_SAMPLER_ARG: must be a number from 0 to 1")
        return ratio

    def _attributes(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for pair in self._get("OTEL_RESOURCE_ATTRIBUTES").split(","):
            if not pair.strip():
                continue
            key, equals, value = pair.partition("=")
            if not equals or not key.strip():
                raise TracingError("OTEL_RESOURCE_ATTRIBUTES: must be name=value pairs, comma separated")
            found[key.strip()] = unquote(value.strip())
        return found

    def _otlp(self, what: str) -> tuple[str, str]:
        """The name that counts, and its value."""
        own, shared = f"OTEL_EXPORTER_OTLP_TRACES_{what}", f"OTEL_EXPORTER_OTLP_{what}"
        return (own, self._get(own)) if self._get(own) else (shared, self._get(shared))

    def _get(self, name: str) -> str:
        return self._environ.get(name, "").strip()


def _one_of(names: Iterable[str]) -> str:
    return f"must be one of {', '.join(names)}"
