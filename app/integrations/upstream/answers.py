"""What an upstream answered, and the one way to read it: as JSON that cannot be read in two ways."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from app.events import JsonRefused, loads_strict
from app.integrations.upstream.errors import Malformed

_JSON: Final = "application/json"
_CHARSETS: Final = frozenset({"", "utf-8", "utf8", "us-ascii"})
_PLAIN: Final = frozenset({"", "identity"})
_PAGES: Final = frozenset({"text/html", "application/xhtml+xml"})
_PAGE_BEGINS: Final = (b"<!doctype html", b"<html")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that counts.

    Attributes:
        status: 2xx, or one that the caller accepts.
        body: At most `MAX_ANSWER_BYTES` of it.
        complete: False if the body was longer, or broke off. Where only the status counts, that is no matter.
        content_type: The header as it came; empty where there was none.
        content_encoding: Likewise. No other than `identity` was asked for.
    """

    status: int
    body: bytes = field(default=b"", repr=False)
    complete: bool = True
    content_type: str = _JSON
    content_encoding: str = ""

    @property
    def compressed(self) -> bool:
        """Whether the body is in a form that nobody asked for."""
        return self.content_encoding.strip().lower() not in _PLAIN

    @property
    def is_page(self) -> bool:
        """Whether it is a page for a person: a login page in between answers 200 to anything.

        A body that is empty is none, though some servers call that text/html, too.
        """
        kind = self.content_type.partition(";")[0].strip().lower()
        if kind in _PAGES:
            return bool(self.body) or not self.complete
        return self.body.lstrip(b"\xef\xbb\xbf \t\r\n")[:16].lower().startswith(_PAGE_BEGINS)

    def json_bytes(self) -> bytes:
        """The body as it came, for who reads it with rules of its own.

        Raises:
            Malformed: It is cut or compressed, or does not say that it is JSON.
        """
        if not self.complete:
            raise Malformed("the answer's body is too large, or broke off", status=self.status)
        if self.compressed:
            raise Malformed("the answer's body is compressed, which was not asked for", status=self.status)
        if not _is_json(self.content_type):
            raise Malformed("the answer's Content-Type is not application/json in UTF-8", status=self.status)
        return self.body

    def json(self) -> Any:
        """The body as the one JSON value that it can mean.

        Raises:
            Malformed: As `json_bytes`; or it is no JSON that every parser reads alike (contracts 1.1: a key given
                twice, NaN, an integer beyond 64 bits, nested too deep).
        """
        try:
            return loads_strict(self.json_bytes())
        except JsonRefused:
            raise Malformed("the answer's body is not JSON that can be read in one way", status=self.status) from None

    def object(self) -> dict[str, Any]:
        """The body as a JSON object.

        Raises:
            Malformed: As `json`; or it is another value.
        """
        value = self.json()
        if not isinstance(value, dict):
            raise Malformed("the answer's body is not a JSON object", status=self.status)
        return value


def _is_json(content_type: str) -> bool:
    media, _, parameters = content_type.lower().partition(";")
    kind = media.strip()
    if kind != _JSON and not (kind.startswith("application/") and kind.endswith("+json")):
        return False
    named = dict(part.strip().partition("=")[::2] for part in parameters.split(";"))
    return named.get("charset", "").strip('"') in _CHARSETS
