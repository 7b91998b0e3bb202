"""The catalogue of event types, what each is for us, and the topic that it travels on (contracts 1.2)."""

from collections.abc import Mapping
from difflib import get_close_matches
from enum import Enum, StrEnum, auto
from functools import lru_cache
from typing import Any, Final, Literal, Self

from app.events.envelope import EventFields
from app.events.errors import InvalidEvent

TopicLayout = Literal["per_type", "single"]

NAMESPACE: Final = "llm.data-vault."


class VaultEventType(StrEnum):
    """The 22 types that vault services publish; prints as its type string."""

    DATASET_CREATED = "llm.data-vault.dataset.created"
    DATASET_UPDATED = "llm.data-vault.dataset.updated"
    DATASET_DELETED = "llm.data-vault.dataset.deleted"
    DATASET_ARCHIVED = "llm.data-vault.dataset.archived"
    VERSION_CREATED = "llm.data-vault.version.created"
    VERSION_TAGGED = "llm.data-vault.version.tagged"
    BRANCH_CREATED = "llm.data-vault.branch.created"
    BRANCH_MERGED = "llm.data-vault.branch.merged"
    RECORDS_INGESTED = "llm.data-vault.records.ingested"
    RECORDS_DELETED = "llm.data-vault.records.deleted"
    RECORDS_EXPORTED = "llm.data-vault.records.exported"
    ANONYMIZATION_STARTED = "llm.data-vault.anonymization.started"
    ANONYMIZATION_COMPLETED = "llm.data-vault.anonymization.completed"
    PII_DETECTED = "llm.data-vault.pii.detected"
    ACCESS_GRANTED = "llm.data-vault.access.granted"
    ACCESS_REVOKED = "llm.data-vault.access.revoked"
    ACCESS_DENIED = "llm.data-vault.access.denied"
    POLICY_VIOLATION = "llm.data-vault.policy.violation"
    RETENTION_EXPIRED = "llm.data-vault.retention.expired"
    COMPLIANCE_ALERT = "llm.data-vault.compliance.alert"
    HEALTH_DEGRADED = "llm.data-vault.health.degraded"
    HEALTH_RESTORED = "llm.data-vault.health.restored"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The type with that type string.

        Raises:
            ValueError: There is none. It never becomes another type.
        """
        try:
            return cls(text)
        except ValueError:
            raise ValueError(
                f"unknown vault event type {text!r}: expected one of the {len(cls)} in asyncapi.yaml, "
                f"such as {cls.DATASET_CREATED}"
            ) from None


class OperatorEventType(StrEnum):
    """What this system tells its operators; each matches only patterns that name its family."""

    WEBHOOK_FAILING = "llm.data-vault.webhook.failing"
    WEBHOOK_RECOVERED = "llm.data-vault.webhook.recovered"
    WEBHOOK_DISABLED = "llm.data-vault.webhook.disabled"
    WEBHOOK_PING = "llm.data-vault.webhook.ping"
    STREAM_GAP = "llm.data-vault.stream.gap"


class AdminEventType(StrEnum):
    """What an administrator did; audited and delivered to nobody."""

    WEBHOOK_CREATED = "llm.data-vault.webhook.created"
    WEBHOOK_UPDATED = "llm.data-vault.webhook.updated"
    WEBHOOK_DELETED = "llm.data-vault.webhook.deleted"
    WEBHOOK_ROTATED = "llm.data-vault.webhook.rotated"
    WEBHOOK_ENABLED = "llm.data-vault.webhook.enabled"
    OPERATOR_REPLAYED = "llm.data-vault.operator.replayed"
    OPERATOR_REPUBLISHED = "llm.data-vault.operator.republished"
    OPERATOR_EXPORTED = "llm.data-vault.operator.exported"
    OPERATOR_POSITIONS_RESET = "llm.data-vault.operator.positions-reset"


AUDIT_RECORDED: Final = "llm.data-vault.audit.recorded"


class EventKind(Enum):
    """Whose event it is, and so who may get it."""

    VAULT = auto()
    """From a vault service: delivered to every webhook that matches, and audited."""
    OPERATOR = auto()
    """About this system: delivered to webhooks that ask for its family, and audited."""
    ADMIN = auto()
    """An administrator's action: audited only."""
    AUDIT_RECORDED = auto()
    """An audit event handed in by a service: audited only."""


_KINDS: Final[Mapping[str, EventKind]] = {
    **dict.fromkeys(map(str, VaultEventType), EventKind.VAULT),
    **dict.fromkeys(map(str, OperatorEventType), EventKind.OPERATOR),
    **dict.fromkeys(map(str, AdminEventType), EventKind.ADMIN),
    AUDIT_RECORDED: EventKind.AUDIT_RECORDED,
}
KNOWN_TYPES: Final = frozenset(_KINDS)

_LONGEST_GUESSED: Final = 64
"""A longer type is no slip of the pen, and comparing takes time."""
_LIKENESS: Final = 0.75


def check_type(event: EventFields) -> EventKind:
    """The kind of the event's type.

    Raises:
        InvalidEvent: ``unknown_type``.
    """
    kind = _KINDS.get(event.type)
    if kind is None:
        raise unknown_type(event.type)
    return kind


def unknown_type(type_: str) -> InvalidEvent:
    """What is said of a type that is none of ours: the vault type that is nearest to it, never the type itself."""
    nearest = None if len(type_) > _LONGEST_GUESSED else _nearest(type_.removeprefix(NAMESPACE))
    guess = "" if nearest is None else f"; did you mean {NAMESPACE}{nearest}?"
    return InvalidEvent("unknown_type", f"unknown event type{guess or ';'} asyncapi.yaml lists all", "type")


@lru_cache(maxsize=256)
def _nearest(name: str) -> str | None:
    names = [type_.removeprefix(NAMESPACE) for type_ in VaultEventType]
    return next(iter(get_close_matches(name, names, n=1, cutoff=_LIKENESS)), None)


@lru_cache(maxsize=256)
def topic_of(type_: str, prefix: str = "vault", layout: TopicLayout = "per_type") -> str:
    """The topic that events of a type travel on.

    Raises:
        ValueError: The type is not in the catalogue, or the layout is neither ``per_type`` nor ``single``.
    """
    if layout not in ("per_type", "single"):
        raise ValueError(f"unknown topic layout {layout!r}: per_type or single")
    kind = _KINDS.get(type_)
    if kind is None:
        raise ValueError(f"unknown event type {type_!r}: no topic is known for it")
    if kind is EventKind.VAULT and layout == "per_type":
        return f"{prefix}.{type_.replace('.', '-')}"
    return f"{prefix}.events"


def vault_topics(prefix: str = "vault") -> tuple[str, ...]:
    """All topics that vault events may come on: one for each of the 22 types, and ``{prefix}.events``."""
    return (*(topic_of(type_, prefix) for type_ in VaultEventType), f"{prefix}.events")


def subject_of(data: Any) -> str | None:
    """The subject that a publisher gives an event: its ``dataset_id``, else ``resource_id``, else ``component``.

    It becomes the record key, so that events of one dataset share a partition (contracts 1.1).
    """
    if isinstance(data, Mapping):
        for name in ("dataset_id", "resource_id", "component"):
            value = data.get(name)
            if isinstance(value, str) and value:
                return value
    return None
