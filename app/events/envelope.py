"""The envelope of an event: CloudEvents 1.0 under the strict rules of contracts 1.1.

Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, Protocol

import msgspec

from app.events.errors import InvalidEvent, shown
from app.events.times import is_common_time, parse_time

MAX_EVENT_BYTES: Final = 256 * 1024
SPECVERSION: Final = "1.0"

ExtensionValue = str | bool | int

_MAX_EXTENSION_NAME_CHARS: Final = 20
_EXTENSION_NAME: Final = re.compile(rf"[a-z0-9]{{1,{_MAX_EXTENSION_NAME_CHARS}}}")
_NOT_AN_EXTENSION: Final = frozenset({"data", "data_base64"})
_MAX_INTEGER: Final = 2**31 - 1
_MIN_INTEGER: Final = -(2**31)

# CloudEvents "String": no control characters, no surrogates, no noncharacters.
_FORBIDDEN_CHARACTER: Final = re.compile(
    "[\u0000-\u001f\u007f-\u009f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(17))
    + "]"
)
# The characters of RFC 3986, and a percent sign only in front of two hex digits.
_URI_REFERENCE: Final = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+")
_URI_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")


class EventFields(Protocol):
    """Anything that has the attributes of an event, whether or not it ever was a record."""

    @property
    def id(self) -> str:
        """Unique within its source."""

    @property
    def source(self) -> str:
        """A URI-reference."""

    @property
    def type(self) -> str:
        """What happened."""

    @property
    def subject(self) -> str | None:
        """What it happened to."""

    @property
    def time(self) -> str | None:
        """When it happened, RFC 3339."""

    @property
    def datacontenttype(self) -> str | None:
        """The media type of the data."""

    @property
    def dataschema(self) -> str | None:
        """The URI of the schema that the data follows."""

    @property
    def data(self) -> Any:
        """A JSON value, ``bytes``, or None for no data."""

    @property
    def extensions(self) -> Mapping[str, ExtensionValue]:
        """Extension attributes by name."""


class CloudEvent(msgspec.Struct, frozen=True, gc=False):
    """An event that has passed every check of its envelope.

    Attributes:
        id: Unique within its source.
        source: A URI-reference.
        type: What happened; whether it is in the catalogue is ``check_type``'s question.
        subject: What it happened to.
        time: RFC 3339, as it came.
        datacontenttype: As it came; None means JSON.
        dataschema: As it came.
        data: The JSON value; ``bytes`` if it came as ``data_base64`` or is of a media type other than JSON; None if
            there is none (or a JSON null).
        extensions: By name; from a binary record all of them are strings.
        posted: The event in structured JSON, byte for byte as webhooks get it.
    """

    id: str
    source: str
    type: str
    subject: str | None
    time: str | None
    datacontenttype: str | None
    dataschema: str | None
    data: Any
    extensions: Mapping[str, ExtensionValue]
    posted: bytes


def event_from_attributes(attributes: dict[str, Any], data: Any, posted: bytes) -> CloudEvent:
    """Check the attributes of an event and put it together.

    Args:
        attributes: By name, ``specversion`` included; consumed. A None counts as absent, as in the JSON format.
        data: Decoded already.
        posted: The structured form.

    Raises:
        InvalidEvent: ``invalid_envelope``, naming the attribute and the rule.
    """
    take = attributes.pop
    if take("specversion", None) != SPECVERSION:
        raise _invalid('specversion is missing or not the string "1.0"', "specversion")
    # The first condition of each is what nearly every value passes; `_required` then finds out what is wrong.
    id_ = take("id", None)
    if id_.__class__ is not str or not id_ or not id_.isprintable():
        _required(id_, "id")
    source = take("source", None)
    if source.__class__ is not str or not _is_uri_reference(source):
        _required(source, "source")
        raise _invalid("source is not a URI-reference (RFC 3986)", "source")
    type_ = take("type", None)
    if type_.__class__ is not str or not _is_text(type_):
        _required(type_, "type")
    subject = take("subject", None)
    if subject is not None and (subject.__class__ is not str or not subject or not subject.isprintable()):
        _required(subject, "subject")
    time = take("time", None)
    if time is not None and (time.__class__ is not str or not is_common_time(time)):
        _check_time(time, "time")
    datacontenttype = take("datacontenttype", None)
    if datacontenttype is not None and (datacontenttype.__class__ is not str or not _is_text(datacontenttype)):
        _required(datacontenttype, "datacontenttype")
    dataschema = take("dataschema", None)
    if dataschema is not None and not _is_uri(_required(dataschema, "dataschema")):
        raise _invalid("dataschema is not a URI (RFC 3986, with a scheme)", "dataschema")
    extensions = _checked_extensions(attributes) if attributes else attributes
    return CloudEvent(id_, source, type_, subject, time, datacontenttype, dataschema, data, extensions, posted)


def _invalid(detail: str, attribute: str | None = None) -> InvalidEvent:
    return InvalidEvent("invalid_envelope", detail, attribute)


def _required(value: Any, name: str) -> str:
    if value.__class__ is not str or not value:
        what = "is missing" if value is None else "is not a string of at least one character"
        raise _invalid(f"{name} {what}", name)
    if not value.isprintable() and _FORBIDDEN_CHARACTER.search(value):
        raise _invalid(f"{name} has a control character or a noncharacter in it", name)
    return str(value)


def _check_time(value: Any, name: str) -> None:
    try:
        parse_time(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise _invalid(f"{name} is not an RFC 3339 timestamp, such as 2026-01-31T23:59:59.123Z", name) from error


@lru_cache(maxsize=4096)
def _is_text(value: str) -> bool:
    return bool(value) and value.isprintable()


@lru_cache(maxsize=4096)
def _is_uri_reference(value: str) -> bool:
    return _URI_REFERENCE.fullmatch(value) is not None


def _is_uri(value: str) -> bool:
    return _is_uri_reference(value) and _URI_SCHEME.match(value) is not None


def _checked_extensions(attributes: dict[str, Any]) -> dict[str, ExtensionValue]:
    for name, value in attributes.items():
        if _EXTENSION_NAME.fullmatch(name) is None or name in _NOT_AN_EXTENSION:
            raise _invalid(
                f"attribute {shown(name)}: names are 1 to {_MAX_EXTENSION_NAME_CHARS} lower-case letters and digits"
            )
        if value.__class__ is str:
            if not value.isprintable() and _FORBIDDEN_CHARACTER.search(value):
                raise _invalid(f"{name} has a control character or a noncharacter in it", name)
        elif value is not None:
            _check_scalar(value, name)
    if "expirytime" in attributes:
        _check_time(attributes["expirytime"], "expirytime")
    if None in attributes.values():
        return {name: value for name, value in attributes.items() if value is not None}
    return attributes


def _check_scalar(value: Any, name: str) -> None:
    if value.__class__ is int:
        if not _MIN_INTEGER <= value <= _MAX_INTEGER:
            raise _invalid(f"{name} is not a 32-bit integer", name)
    elif value.__class__ is not bool:
        raise _invalid(f"{name} is not a string, a boolean or an integer", name)


def clean_text(text: str) -> str:
    """The text with U+FFFD for each character that no attribute may have: data knows no such rule."""
    return text if text.isprintable() else _FORBIDDEN_CHARACTER.sub("\ufffd", text)


def extension_text(value: ExtensionValue) -> str:
    """An extension's value as a string, in the canonical form of CloudEvents (``true``, ``42``)."""
    if value is True:
        return "true"
    if value is False:
        return "false"
    return str(value)
