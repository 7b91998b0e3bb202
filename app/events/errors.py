"""What makes a record not an event.

``InvalidEvent`` (a ``ValueError``) is the only exception that decoding raises, whatever the bytes:

- ``invalid_envelope``: not a CloudEvent by the strict rules of contracts 1.1.
- ``invalid_data``: the envelope holds, its ``data`` does not (not JSON, or a required field is missing).
- ``unknown_type``: a well-formed event of a type that is not in the catalogue.
- ``too_large``: more than 256 KiB.
"""

from typing import Final, Literal

Reason = Literal["invalid_envelope", "invalid_data", "unknown_type", "too_large"]

MAX_DETAIL_BYTES: Final = 1024
_NAME_SHOWN_CHARS: Final = 64


class InvalidEvent(ValueError):
    """A record that cannot be handled as an event.

    Attributes:
        reason: One of the quarantine reasons (contracts 9.2).
        detail: What is wrong and where, at most 1 KiB; it names fields and never shows their values.
        attribute: The attribute of the envelope that is wrong; None: another part, or all of it.
    """

    def __init__(self, reason: Reason, detail: str, attribute: str | None = None) -> None:
        self.reason: Reason = reason
        self.detail = detail.encode()[:MAX_DETAIL_BYTES].decode(errors="ignore")
        self.attribute = attribute
        super().__init__(self.reason, self.detail)

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def shown(name: str) -> str:
    """A field's name as a message may show it: quoted, printable ASCII, shortened."""
    text = ascii(name)
    return text if len(text) <= _NAME_SHOWN_CHARS else f"{text[:_NAME_SHOWN_CHARS]}...'"
