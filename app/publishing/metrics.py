"""What a publisher counts, on a registry that the vault service passes."""

from typing import NamedTuple
from weakref import WeakKeyDictionary

from prometheus_client import CollectorRegistry, Counter, Histogram

from app.events import KNOWN_TYPES


class _Families(NamedTuple):
    published: Counter
    failed: Counter
    duration: Histogram


_of_registry: WeakKeyDictionary[CollectorRegistry, _Families] = WeakKeyDictionary()


class EventMetrics:
    """Events published and failed by type, and how long a call took; several publishers may share a registry."""

    def __init__(self, registry: CollectorRegistry, publisher_type: str) -> None:
        self._publisher = publisher_type
        families = _of_registry.get(registry)
        if families is None:
            families = _of_registry[registry] = _families(registry)
        self._published, self._failed, self._duration = families

    def published(self, type_: str) -> None:
        """Count one acknowledged event."""
        self._published.labels(self._publisher, _label(type_)).inc()

    def failed(self, type_: str) -> None:
        """Count one event that failed."""
        self._failed.labels(self._publisher, _label(type_)).inc()

    def took(self, duration_s: float) -> None:
        """Note how long a call took."""
        self._duration.labels(self._publisher).observe(duration_s)


def _families(registry: CollectorRegistry) -> _Families:
    labels = ("publisher", "type")
    return _Families(
        Counter("vault_events_published_total", "Events acknowledged", labels, registry=registry),
        Counter("vault_events_failed_total", "Events not acknowledged", labels, registry=registry),
        Histogram("vault_events_publish_seconds", "Duration of a publish call", ("publisher",), registry=registry),
    )


def _label(type_: str) -> str:
    return type_ if type_ in KNOWN_TYPES else "unknown"
