"""Canaries: what is planted wherever a secret or personal data goes in, and must come out nowhere.

All credentials have one mark in them, so that one search of a few forms finds any of them in whatever a test run
wrote: the log of every worker, each line that is logged in the test process, each answer of an API.
`tests.support.leaks` looks for whole values, in every form, in everything that the tests of leaks can read.
"""

from __future__ import annotations

import base64
import logging
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from app.observability.redaction import plain_fields

__all__ = [
    "CREDENTIALS",
    "MARK",
    "PERSONAL",
    "WATCH",
    "Watch",
    "credential",
    "encryption_key_entry",
    "marked",
    "signing_key_entry",
    "webhook_secret",
]

MARK: Final = "Kanarienvogel"
_KEY_BYTES: Final = 32


def _written(text: bytes) -> set[bytes]:
    """In hex, and in base64 wherever in a longer text it begins, in both alphabets."""
    forms = {text.hex().encode(), text.hex().upper().encode()}
    for skipped in range(3):
        # What stands before and behind changes the characters at both ends.
        inner = base64.b64encode(bytes(skipped) + text)[4 if skipped else 0 : -4]
        forms |= {inner, inner.translate(bytes.maketrans(b"+/", b"-_"))}
    return forms


def _forms(mark: bytes) -> tuple[bytes, ...]:
    """As text, and written in another form once or twice: keys are in base64 to begin with."""
    once = _written(mark)
    return tuple(sorted({mark, *once, *(form for text in once for form in _written(text))}))


FORMS: Final = _forms(MARK.encode())
_LONGEST: Final = max(map(len, FORMS))
_PART_BYTES: Final = 1 << 23


def marked(data: bytes) -> bool:
    """Whether any credential that was planted is in it, in any form."""
    return any(form in data for form in FORMS)


def credential(name: str) -> str:
    """A token or password that no other has."""
    return f"{name.replace(' ', '-')}-{MARK}-{secrets.token_urlsafe(12)}"


def _key() -> str:
    return base64.b64encode((secrets.token_bytes(_KEY_BYTES) + MARK.encode())[-_KEY_BYTES:]).decode()


def encryption_key_entry(kid: str = "dev") -> str:
    """One of `WEBHOOKS__ENCRYPTION_KEYS`."""
    return f"{kid}:{_key()}"


def signing_key_entry(kid: str = "key-1") -> str:
    """One of `WEBHOOKS__SIGNING_KEYS`."""
    return f"{kid}:whsk_{_key()}"


def webhook_secret() -> str:
    """One as it may be given when a webhook is made."""
    return f"whsec_{_key()}"


CREDENTIALS: Final[dict[str, str]] = {
    **{
        name: credential(name)
        for name in (
            "admin token",
            "viewer token",
            "dashboard token",
            "policy token",
            "registry token",
            "kafka password",
            "egress password",
            "header credential",
        )
    },
    "encryption key": encryption_key_entry(),
    "signing key": signing_key_entry(),
    "webhook secret": webhook_secret(),
}
"""One of each kind, for the whole run."""

PERSONAL: Final[dict[str, str]] = {
    "e-mail": "jane.doe.4711@example.com",
    "social security": "123-45-6789",
    "card": "4111 1111 1111 1111",
    "telephone": "+49 170 1234567",
    # Has no form that could be recognised: it must not be where it was found.
    "name": "Jane Quarantina Doe",
}
"""Personal data, as a careless service may put it into an event."""


@dataclass
class Watch(logging.Handler):
    """Everything that a test run was searched in, and where something was found."""

    found: list[str] = field(default_factory=list)
    places: int = 0
    size_bytes: int = 0

    def __post_init__(self) -> None:
        super().__init__(logging.NOTSET)

    __hash__ = logging.Handler.__hash__

    def look(self, place: str, data: bytes) -> None:
        """Search; what is found is kept for `take`."""
        self.places += 1
        self.size_bytes += len(data)
        if marked(data):
            self.found.append(place)

    def look_below(self, folder: Path) -> None:
        """Search each log file, some at a time: that of a long run is large."""
        for path in sorted(folder.rglob("*.log*")):
            if not path.is_file():
                continue
            with path.open("rb") as file:
                before = b""
                while part := file.read(_PART_BYTES):
                    self.look(str(path), before + part)
                    before = part[-_LONGEST:]

    def emit(self, record: logging.LogRecord) -> None:
        """Search a line that is logged in this process: its text and its fields, redacted as ours are."""
        try:
            text = record.getMessage()
        except (TypeError, ValueError):
            # What logging itself would say of it is no business of this search.
            text = f"{record.msg} {record.args}"
        if record.exc_info and record.exc_info[1] is not None:
            text += f" {record.exc_info[1]!r}"
        known = logging.makeLogRecord({}).__dict__.keys()
        extra = plain_fields({name: value for name, value in record.__dict__.items() if name not in known})
        self.look(f"log of {record.name}, {record.pathname}:{record.lineno}", f"{text} {extra}".encode())

    def take(self) -> list[str]:
        """What was found since the last call."""
        found, self.found = self.found, []
        return found


WATCH: Final = Watch()
