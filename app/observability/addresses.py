"""Texts without addresses: what `/health` says is read by people who must not learn where things are (contracts 7).

Messages of ours name none. Those of clients and of the system do, in many forms; and who adds a check cannot know all.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Final

from app.observability.redaction import redacted

__all__ = ["ADDRESS", "unaddressed"]

ADDRESS: Final = "[address]"

_URL: Final = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>()\[\]]*(?:\[[^\s\]]*\][^\s'\"<>()\[\]]*)?")
# As sockets of Python name a peer: ('broker-1', 9092), and with four parts for IPv6.
_PEER: Final = re.compile(r"\(\s*(['\"])[^'\"]*\1\s*,\s*\d{1,5}[^()]*\)")
_BRACKETED: Final = re.compile(r"\[[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:%\w+)?\](?::\d{1,5})?")
_NUMERIC: Final = re.compile(r"(?<![\w.:-])[0-9A-Fa-f:.]{2,45}(?:%\w+)?(?![\w-])")
_IPV4: Final = re.compile(r"(?<![\w.-])\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?(?![\w-])")
_HOST_AND_PORT: Final = re.compile(r"(?<![\w./:-])(?=[\w.-]*[A-Za-z.])\w[\w.-]*:\d{1,5}(?![\w:])")
# A name without a port: topics and settings look the same, so only behind the words with which clients name a host.
_NAMED_HOST: Final = re.compile(
    r"(?i)(\b(?:host(?:name)?|resolv(?:e|ing)|getaddrinfo(?:\(\))?(?: failed)?(?: for)?|lookup|valid for)"
    r"(?:\s*[:=]\s*|\s+))"
    r"(?:(['\"])[^'\"]*\2|(?!\[)[A-Za-z0-9][\w-]*(?:\.[\w-]+)+\.?)"
)


def unaddressed(value: Any) -> Any:
    """A JSON value with every address in its texts replaced by `[address]`, and secrets by `[redacted]`."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return {key: unaddressed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [unaddressed(item) for item in value]
    return value


def _text(text: str) -> str:
    for pattern in (_URL, _PEER, _BRACKETED, _IPV4):
        text = pattern.sub(ADDRESS, text)
    text = _HOST_AND_PORT.sub(ADDRESS, _NUMERIC.sub(_numeric, text))
    return redacted(_NAMED_HOST.sub(rf"\1{ADDRESS}", text))


def _numeric(found: re.Match[str]) -> str:
    """Times of day and versions look alike; what is no address stays."""
    text = found.group()
    for bare in (text, text.rstrip("."), text.rstrip(".:")):
        try:
            ipaddress.ip_address(bare)
        except ValueError:
            continue
        return ADDRESS + text[len(bare) :]
    return text
