"""What can go wrong with webhooks, as one tree.

    WebhookError
    ├── InvalidField                a field that its author can put right; ``field`` is a JSON pointer
    │   ├── InvalidUrl
    │   ├── InsecureUrl
    │   ├── ForbiddenTarget         also an OSError: raised where a socket would be dialled
    │   ├── InvalidSecret
    │   ├── InvalidHeader
    │   ├── InvalidPattern
    │   ├── InvalidFilter
    │   ├── InvalidSchedule
    │   └── HandshakeRefused        the receiver did not allow us to send
    ├── MissingKey                  a stored secret, and no key to read it with
    ├── UnreadableSecret            a stored secret that its key does not open
    ├── NotFound
    ├── SerializationFailed
    │   └── TooLargeToKeep
    ├── RequestFailed
    │   └── DeliveryFailed          answered, and not with 2xx
    ├── MaxRetriesExceeded
    └── StoreError

The names InvalidUrl, InsecureUrl, ForbiddenTarget, NotFound, SerializationFailed, RequestFailed, DeliveryFailed,
MaxRetriesExceeded and StoreError are fixed by contracts 2. No message carries a secret, nor what a client sent: a URL
may hold a token in its query.
"""

from __future__ import annotations

import errno
from typing import ClassVar


def pointer(*parts: str | int) -> str:
    """The JSON pointer (RFC 6901) to a field, as in ``/headers/X-Team``."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


class WebhookError(Exception):
    """Base of all webhook errors.

    Attributes:
        code: the stable name of the error in answers of the API.
    """

    code: ClassVar[str] = "webhook_error"


class InvalidField(WebhookError):
    """A field of a webhook does not hold what it must.

    Attributes:
        field: JSON pointer to the field.
        detail: what is wrong and what to write instead, without the value.
    """

    code: ClassVar[str] = "invalid_field"
    default_field: ClassVar[str] = ""

    def __init__(self, detail: str, *, field: str | None = None) -> None:
        self.field = self.default_field if field is None else field
        self.detail = detail
        super().__init__(f"{self.field}: {detail}")

    def __str__(self) -> str:
        return f"{self.field}: {self.detail}"


class InvalidUrl(InvalidField):
    """The URL does not parse, or holds something that a webhook URL may not hold."""

    code: ClassVar[str] = "invalid_url"
    default_field: ClassVar[str] = "/url"


class InsecureUrl(InvalidField):
    """The URL is not https."""

    code: ClassVar[str] = "insecure_url"
    default_field: ClassVar[str] = "/url"


class ForbiddenTarget(InvalidField, OSError):
    """The address is one that webhooks may not reach.

    An OSError too, so that a client library treats it as a connection that failed. The message names no address: what
    a name resolves to inside is not the business of who registers a webhook.
    """

    code: ClassVar[str] = "forbidden_target"
    default_field: ClassVar[str] = "/url"

    def __init__(self, detail: str, *, field: str | None = None) -> None:
        super().__init__(detail, field=field)
        # What a client library prints of an OSError.
        self.errno = errno.EACCES
        self.strerror = detail


class InvalidSecret(InvalidField):
    """Not a ``whsec_`` secret of 24 to 64 bytes."""

    code: ClassVar[str] = "invalid_secret"
    default_field: ClassVar[str] = "/secret"


class InvalidHeader(InvalidField):
    """A custom header that cannot be sent, or that is reserved."""

    code: ClassVar[str] = "invalid_header"
    default_field: ClassVar[str] = "/headers"


class InvalidPattern(InvalidField):
    """An event pattern that can never match."""

    code: ClassVar[str] = "invalid_pattern"
    default_field: ClassVar[str] = "/events"


class InvalidFilter(InvalidField):
    """A filter that is not of the form of contracts 9.5."""

    code: ClassVar[str] = "invalid_filter"
    default_field: ClassVar[str] = "/filter"


class InvalidSchedule(InvalidField):
    """A retry schedule with no step, too many, or one out of range."""

    code: ClassVar[str] = "invalid_schedule"
    default_field: ClassVar[str] = "/retry_schedule_s"


class HandshakeRefused(InvalidField):
    """The receiver did not allow us to send (CloudEvents web hooks, section 4)."""

    code: ClassVar[str] = "handshake_refused"
    default_field: ClassVar[str] = "/handshake"


class MissingKey(WebhookError):
    """No encryption key, or not the one that a stored secret names.

    Attributes:
        key_id: the key that the stored form names; None where there is no key to encrypt with.
    """

    code: ClassVar[str] = "encryption_key_missing"

    def __init__(self, key_id: str | None) -> None:
        self.key_id = key_id
        which = "no encryption key" if key_id is None else f"encryption key {key_id!r} is not"
        super().__init__(f"{which} configured: add it to VAULT_STREAM_WEBHOOKS__ENCRYPTION_KEYS")


class UnreadableSecret(WebhookError):
    """A stored secret is damaged, or belongs to another webhook."""

    code: ClassVar[str] = "unreadable_secret"


class NotFound(WebhookError):
    """There is no webhook or delivery of this id."""

    code: ClassVar[str] = "not_found"


class SerializationFailed(WebhookError):
    """A row, command or event of a webhook does not decode."""

    code: ClassVar[str] = "serialization_failed"


class TooLargeToKeep(SerializationFailed):
    """An event whose delivery would not fit into a row once it must wait."""


class RequestFailed(WebhookError):
    """An attempt ended without an answer; the message is one of the error names of contracts 2."""

    code: ClassVar[str] = "request_failed"


class DeliveryFailed(RequestFailed):
    """The receiver answered, and not with 2xx.

    Attributes:
        status: the HTTP status.
        body: the start of the answer's body.
    """

    code: ClassVar[str] = "delivery_failed"

    def __init__(self, status: int, body: str) -> None:
        self.status = status
        self.body = body
        super().__init__(f"status_{status}")


class MaxRetriesExceeded(WebhookError):
    """The retry schedule has no step left."""

    code: ClassVar[str] = "max_retries_exceeded"


class StoreError(WebhookError):
    """The change of a webhook or delivery could not be stored."""

    code: ClassVar[str] = "store_error"
