"""What vault events say of the vault's own work, as the metrics of the source document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from app.events.payloads import AnonymizationCompleted, PIIDetected
from app.observability import metrics
from app.observability.label_values import LabelValues

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["FIGURES"]

_PII_TYPES: Final = LabelValues(
    (
        "email", "phone", "ssn", "credit_card", "ip_address", "person", "person_name", "name", "address", "location",
        "date_of_birth", "passport", "drivers_license", "national_id", "tax_id", "bank_account", "iban",
        "medical_record", "health", "username", "password", "api_key", "url", "mac_address", "organization", "custom",
    ),
    more=25,
)  # fmt: skip
_DETECTORS: Final = LabelValues(("regex", "ner", "ml", "llm", "dictionary", "checksum", "hybrid", "manual"), more=25)
_STRATEGIES: Final = LabelValues(
    (
        "redact", "mask", "hash", "tokenize", "encrypt", "generalize", "suppress", "pseudonymize", "replace",
        "synthetic", "shuffle", "noise", "k_anonymity", "differential_privacy",
    ),
    more=25,
)  # fmt: skip
_MOST_DETECTIONS: Final = 1_000_000_000
_LONGEST_S: Final = 30 * 86_400.0


def _pii(payload: PIIDetected) -> None:
    detector = _DETECTORS.of(payload.detector)
    counts = payload.counts if isinstance(payload.counts, dict) else {}
    for pii_type in payload.pii_types:
        count = counts.get(pii_type, 1)
        sound = type(count) is int and 0 <= count <= _MOST_DETECTIONS
        metrics.PII_DETECTIONS.labels(pii_type=_PII_TYPES.of(pii_type), detector=detector).inc(count if sound else 1)


def _anonymized(payload: AnonymizationCompleted) -> None:
    if payload.duration_ms is None or not 0 <= payload.duration_ms / 1000 <= _LONGEST_S:
        return
    strategy = _STRATEGIES.of(payload.strategy)
    metrics.ANONYMIZATION_DURATION_SECONDS.labels(strategy=strategy).observe(payload.duration_ms / 1000)


FIGURES: Final[Mapping[type, Callable[[Any], None]]] = {PIIDetected: _pii, AnonymizationCompleted: _anonymized}
"""By the type of a payload: counts what it says. A detector or strategy that is not said is `other`."""
