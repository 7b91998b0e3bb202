"""Why there is no answer. What an error was raised from (of the system, of TLS) is its cause.

None of them shows what was sent or received.
"""

from __future__ import annotations

__all__ = [
    "AnswerTooLarge",
    "ExchangeFailed",
    "HungUp",
    "MalformedAnswer",
    "NameNotResolved",
    "NotConnected",
    "ProxyFailed",
]


class ExchangeFailed(Exception):
    """Base of what this client raises, beside TimeoutError and what the caller's check of an address raises."""


class NameNotResolved(ExchangeFailed):
    """The host has no address."""


class NotConnected(ExchangeFailed):
    """No connection came about: refused, unreachable, no TLS, or the proxy gave no tunnel."""


class ProxyFailed(ExchangeFailed):
    """Our own proxy is not there, or serves nobody like us: nothing was asked of the host behind it."""


class HungUp(ExchangeFailed):
    """The connection ended before the answer did."""


class MalformedAnswer(ExchangeFailed):
    """What came is not HTTP/1.0 or HTTP/1.1."""


class AnswerTooLarge(ExchangeFailed):
    """A head, or what frames a body, is longer than we read."""
