"""How a vault service says what happened."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Self

import msgspec

from app.events import (
    CloudEvent,
    ExtensionValue,
    InvalidEvent,
    Payload,
    VaultEventType,
    check_type,
    decode_payload,
    new_event,
    subject_of,
)
from app.publishing.errors import SerializationError


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultEvent:
    """An event that a vault service is about to publish.

    Make one with ``new``; each ``with_`` method returns another value::

        event = VaultEvent.new(VaultEventType.DATASET_DELETED, "/vault/datasets", {"dataset_id": "ds-1"})
        event = event.with_extension("tenantid", "t-1")
    """

    id: str
    source: str
    type: str
    time: str
    data: Any = None
    subject: str | None = None
    datacontenttype: str | None = "application/json"
    dataschema: str | None = None
    extensions: Mapping[str, ExtensionValue] = field(default_factory=dict)

    @classmethod
    def new(cls, type: VaultEventType | str, source: str, data: Mapping[str, Any] | Payload) -> Self:  # noqa: A002  (the attribute's name)
        """An event with a random id, that happened now.

        Args:
            type: One of the 22, or its type string.
            source: A URI-reference of the service.
            data: By the table of contracts 1.2; a payload struct or a JSON object.

        Raises:
            SerializationError: The type is none of the 22, or the source is no URI-reference. The data is checked when
                the event is published, with everything that the ``with_`` methods set.
        """
        id_, time = str(uuid.uuid4()), _rfc3339(datetime.now(UTC))
        try:
            type_ = VaultEventType.parse(type).value
            new_event(id=id_, source=source, type=type_, time=time)
        except ValueError as error:
            raise SerializationError(str(error)) from error
        return cls(id=id_, source=source, type=type_, data=data, time=time)

    def with_subject(self, subject: str) -> Self:
        """The same event about ``subject``; without it the publisher takes dataset, resource or component."""
        return replace(self, subject=subject)

    def with_extension(self, name: str, value: ExtensionValue) -> Self:
        """The same event with an extension attribute more."""
        return replace(self, extensions={**self.extensions, name: value})

    def with_time(self, time: datetime | str) -> Self:
        """The same event at another time: an aware ``datetime``, or RFC 3339.

        Raises:
            ValueError: The ``datetime`` has no time zone.
        """
        return replace(self, time=_rfc3339(time) if isinstance(time, datetime) else time)


def _rfc3339(time: datetime) -> str:
    if time.tzinfo is None:
        raise ValueError("time has no time zone: pass an aware datetime, such as datetime.now(UTC)")
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def checked(event: VaultEvent | CloudEvent) -> CloudEvent:
    """The event as it will be sent: its subject set, its envelope and payload checked by the reader's own rules.

    Raises:
        SerializationError: It breaks the rules of contracts 1; the message names the field.
    """
    try:
        ready = event if isinstance(event, CloudEvent) and event.subject is not None else _with_subject(event)
        check_type(ready)
        decode_payload(ready)
    except (InvalidEvent, TypeError, ValueError) as error:
        raise SerializationError(str(error)) from error
    return ready


def _with_subject(event: VaultEvent | CloudEvent) -> CloudEvent:
    data = event.data if isinstance(event.data, bytes) else msgspec.to_builtins(event.data)
    subject = event.subject if event.subject is not None else subject_of(data)
    if isinstance(event, CloudEvent) and subject is None:
        return event
    return new_event(
        id=event.id,
        source=event.source,
        type=event.type,
        subject=subject,
        time=event.time,
        datacontenttype=event.datacontenttype,
        dataschema=event.dataschema,
        data=data,
        extensions=event.extensions,
    )
