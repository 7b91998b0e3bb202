"""The types that settings are made of: each says, in the error, what a value must be.

No message repeats the value: it may be a secret that was put under the wrong name.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import re
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, Strict
from yarl import URL

T = TypeVar("T")

_HOST_NAME = re.compile(r"(?=.{1,253}\Z)(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?\Z")
_DNS_NAME = re.compile(r"(?=.{1,253}\Z)(?!-)[A-Za-z0-9-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*\Z")
# "Ends in a number" in the URL standard: resolvers take 127.1 and 0x7f.1 for addresses.
_NUMBER_LABEL = re.compile(r"(?:[0-9]+|0[xX][0-9A-Fa-f]*)\Z")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}\Z")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}\Z")
_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}\Z")
_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_FAULT = re.compile(r"[a-z0-9_:.-]{1,200}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_AES_KEY_BYTES: Final = 32
_ED25519_KEY_BYTES: Final = (32, 64)  # the seed alone, or seed and public key as libsodium writes them
_MAX_PORT: Final = 65535


def is_ip_address(host: str) -> bool:
    """Whether `host` is an IPv4 or IPv6 literal, without brackets."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether listening on `host` can be reached from this machine only."""
    if host.lower() == "localhost":
        return True
    return is_ip_address(host) and ipaddress.ip_address(host).is_loopback


def is_wildcard(host: str) -> bool:
    """Whether `host` means every address of the machine, and so is no address to be reached at."""
    return is_ip_address(host) and ipaddress.ip_address(host).is_unspecified


def in_url(host: str) -> str:
    """`host` as it is written in a URL: an IPv6 literal in brackets."""
    return f"[{host}]" if ":" in host else host


def host_of(url: str) -> str:
    """The host of a URL as DNS and headers have it: an international name in its ASCII form.

    Raises:
        ValueError: It is no URL, or its host has no such form.
    """
    host = urlsplit(url).hostname or ""
    return host if host.isascii() else URL(url).raw_host or ""


def _json_list(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        parsed = json.loads(value)
    except ValueError:
        parsed = None
    if not isinstance(parsed, list):
        # pydantic turns a ValueError, and no TypeError, into an error of the field.
        raise ValueError(  # noqa: TRY004  # see above
            'must be a JSON list, as in ["a", "b"]'
        )
    return parsed


def _host(value: str) -> str:
    if not (is_ip_address(value) or _HOST_NAME.match(value)):
        raise ValueError("must be a host name or an IP address, without port and brackets")
    return value


def _dns_name(value: str) -> str:
    if is_ip_address(value) or not _DNS_NAME.match(value) or _NUMBER_LABEL.match(value.rpartition(".")[2]):
        raise ValueError("must be a DNS name, as in vault.example.com: no scheme, port or path")
    return value


def _brokers(value: str) -> str:
    parts = [part.strip() for part in value.split(",")]
    for part in parts:
        host, _, port = part.rpartition(":")
        known = is_ip_address(host.strip("[]")) or _HOST_NAME.match(host)
        if not known or not (port.isascii() and port.isdigit() and 0 < int(port) <= _MAX_PORT):
            raise ValueError("must be host:port, or several of them with commas between")
    return ",".join(parts)


def _matching(pattern: re.Pattern[str], must: str) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.match(value):
            raise ValueError(must)
        return value

    return AfterValidator(check)


def _token(value: SecretStr) -> SecretStr:
    if not _TOKEN.match(value.get_secret_value()):
        raise ValueError("must be visible ASCII characters without spaces, at most 4096")
    return value


def _url(value: str) -> str:
    must = "must be an http or https URL without user name, query and fragment"
    try:
        parts, host = urlsplit(value), host_of(value)
        port = parts.port
    except ValueError:
        raise ValueError(must) from None
    if parts.scheme not in {"http", "https"} or not (is_ip_address(host) or _HOST_NAME.match(host)) or port == 0:
        raise ValueError(must)
    if "@" in parts.netloc or parts.query or parts.fragment or any(c.isspace() for c in value):
        raise ValueError(must)
    return value.rstrip("/")


def _proxy(value: SecretStr) -> SecretStr:
    must = "must be an http or https URL of a proxy, as in http://proxy.example:3128"
    try:
        parts = urlsplit(value.get_secret_value())
        port = parts.port
    except ValueError:
        raise ValueError(must) from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0 or parts.path not in {"", "/"}:
        raise ValueError(must)
    return value


def _readable_file(value: Path) -> Path:
    if not value.is_file():
        raise ValueError("must name a file that exists")
    return value


def _folder(value: Path) -> Path:
    if not value.is_dir():
        raise ValueError("must name a folder that exists")
    return value


def _target(value: str) -> str:
    try:
        ipaddress.ip_network(value)
    except ValueError:
        if "/" in value or not _HOST_NAME.match(value):
            raise ValueError(
                "must be a network such as 10.1.0.0/16 (no host bits), an address, or a host name"
            ) from None
    return value


def _named_key(value: SecretStr, prefix: str, sizes: tuple[int, ...]) -> str:
    must = f"must be kid:{prefix}<base64 of {' or '.join(map(str, sizes))} bytes>"
    kid, colon, key = value.get_secret_value().partition(":")
    if not colon or not _KEY_ID.match(kid) or not key.startswith(prefix):
        raise ValueError(must)
    try:
        decoded = base64.b64decode(key.removeprefix(prefix), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(must) from None
    if len(decoded) not in sizes:
        raise ValueError(must)
    return kid


def _named_keys(prefix: str, sizes: tuple[int, ...]) -> AfterValidator:
    def check(values: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        kids = [_named_key(value, prefix, sizes) for value in values]
        if len(set(kids)) != len(kids):
            raise ValueError("must give each key its own kid")
        return values

    return AfterValidator(check)


def route(*placeholders: str) -> AfterValidator:
    """A path of an upstream: starts with `/` and holds exactly these `{placeholders}`."""
    shown = ", ".join(f"{{{name}}}" for name in placeholders) or "no {placeholder}"

    def check(value: str) -> str:
        if not value.startswith("/") or any(c.isspace() for c in value) or "?" in value or "#" in value:
            raise ValueError("must be a path that starts with / and has no query")
        if sorted(_PLACEHOLDER.findall(value)) != sorted(placeholders):
            raise ValueError(f"must contain exactly {shown}")
        return value

    return AfterValidator(check)


def seconds(least: float, most: float) -> Any:
    """The metadata of a duration in seconds, both bounds included, never NaN or infinite."""
    return Field(ge=least, le=most, allow_inf_nan=False)


JsonList = BeforeValidator(_json_list)
Host = Annotated[str, AfterValidator(_host)]
DnsName = Annotated[str, AfterValidator(_dns_name)]
Brokers = Annotated[str, AfterValidator(_brokers)]
PlainName = Annotated[str, _matching(_PLAIN_NAME, "must be 1 to 100 letters, digits, dots, hyphens or underscores")]
HeaderName = Annotated[str, _matching(_HEADER_NAME, "must be the name of an HTTP header")]
FaultPoint = Annotated[str, _matching(_FAULT, "must be <point>[:nth][:kill|stop|raise]")]
Sha256 = Annotated[str, _matching(_SHA256, "must be 64 lower-case hexadecimal digits, the SHA-256 of the token")]
Token = Annotated[SecretStr, AfterValidator(_token)]
HttpUrl = Annotated[str, AfterValidator(_url)]
ProxyUrl = Annotated[SecretStr, AfterValidator(_proxy)]
ReadableFile = Annotated[Path, AfterValidator(_readable_file)]
Folder = Annotated[Path, AfterValidator(_folder)]
Port = Annotated[int, Field(ge=1, le=_MAX_PORT)]
PortOrOff = Annotated[int, Field(ge=0, le=_MAX_PORT)]
Targets = Annotated[tuple[Annotated[str, AfterValidator(_target)], ...], JsonList]
Schedule = Annotated[
    tuple[Annotated[float, Strict(), seconds(0, 604_800)], ...], Field(min_length=1, max_length=50), JsonList
]
EncryptionKeys = Annotated[tuple[SecretStr, ...], _named_keys("", (_AES_KEY_BYTES,)), JsonList]
SigningKeys = Annotated[tuple[SecretStr, ...], _named_keys("whsk_", _ED25519_KEY_BYTES), JsonList]
