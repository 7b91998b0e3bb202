"""The bytes of a request: where it goes, and its head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from yarl import URL

__all__ = ["Origin", "Target", "head_of", "head_with"]

_ACCEPT: Final = "accept"
_ACCEPTS_ALL: Final = "Accept: */*\r\n"


class Origin(NamedTuple):
    """Whom a connection leads to. Connections are kept by it, as TLS and proxy are the same for all.

    Attributes:
        secure: Whether it speaks TLS.
        host: Lower-case, without a dot at its end and, of an IPv6 address, without brackets.
        port: Of the URL, or that of its scheme.
    """

    secure: bool
    host: str
    port: int

    @classmethod
    def of(cls, url: URL) -> Origin:
        """The origin of an http or https URL."""
        secure = url.scheme == "https"
        host = (url.raw_host or "").lower().removesuffix(".")
        return cls(secure, host, url.port or (443 if secure else 80))

    @property
    def authority(self) -> str:
        """Host and port, as CONNECT has them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Target(NamedTuple):
    """A URL, as far as requests have it.

    Attributes:
        origin: Whom to connect to.
        start: What follows the method: the request line, `Host`, and what a proxy must be told.
    """

    origin: Origin
    start: str

    @classmethod
    def of(cls, url: URL, *, through_proxy: bool = False, proxy_authorization: str | None = None) -> Target:
        """Read a URL.

        Args:
            url: http or https.
            through_proxy: Whether an http request goes to a proxy, which is asked for the whole URL.
            proxy_authorization: The proxy's credentials, as its header has them.
        """
        origin = Origin.of(url)
        by_proxy = through_proxy and not origin.secure
        host = origin.authority.removesuffix(":443" if origin.secure else ":80")
        path = f"http://{host}{url.raw_path_qs}" if by_proxy else url.raw_path_qs
        start = f" {path} HTTP/1.1\r\nHost: {host}\r\n"
        if by_proxy and proxy_authorization is not None:
            start += f"Proxy-Authorization: {proxy_authorization}\r\n"
        return cls(origin, start)


def head_of(
    method: str,
    target: Target,
    fixed: Iterable[tuple[str, str]],
    custom: Mapping[str, str],
    *,
    body_bytes: int | None,
) -> bytes:
    """The head of a request.

    Args:
        method: As it is written.
        target: What is asked.
        fixed: Header fields that no custom one replaces, whatever its case.
        custom: Other header fields.
        body_bytes: What follows the head; None: nothing, and no word about it.

    Raises:
        ValueError: A line break or NUL in a name or value, which could begin another field or request.
    """
    lines = [f"{name}: {value}\r\n" for name, value in fixed]
    accepts = False
    if custom:
        taken = {name.lower() for name, _ in fixed}
        for name, value in custom.items():
            lower = name.lower()
            accepts = accepts or lower == _ACCEPT
            if lower not in taken:
                lines.append(f"{name}: {value}\r\n")
    if not accepts:
        lines.append(_ACCEPTS_ALL)
    if body_bytes is not None:
        lines.append(f"Content-Length: {body_bytes}\r\n")
    text = "".join(lines)
    if text.count("\n") != len(lines) or text.count("\r") != len(lines) or "\0" in text:
        raise ValueError("a header field holds a line break")
    return f"{method}{target.start}{text}\r\n".encode()


def head_with(method: str, target: Target, written: str, *, body_bytes: int) -> bytes:
    """The same without custom fields.

    Args:
        method: As it is written.
        target: What is asked.
        written: Lines of fields that hold no other line break, and no Accept.
        body_bytes: What follows the head.
    """
    return f"{method}{target.start}{written}{_ACCEPTS_ALL}Content-Length: {body_bytes}\r\n\r\n".encode()
