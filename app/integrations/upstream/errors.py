"""How a call can fail: three ways, by what the caller has to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.integrations.upstream.answers import Answer


class UpstreamError(Exception):
    """A call that did not succeed. Its message shows no address, credential or body.

    Attributes:
        status: The HTTP status, or None if there was no answer.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Unavailable(UpstreamError):
    """The same request may succeed later.

    Attributes:
        retry_after_s: How long the upstream asked us to wait, at most an hour.
    """

    def __init__(self, message: str, *, status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message, status=status)
        self.retry_after_s = retry_after_s


class Rejected(UpstreamError):
    """The upstream will not take this request, however often it is sent.

    Attributes:
        answer: What it said; its body may name the reason.
    """

    def __init__(self, message: str, *, answer: Answer) -> None:
        super().__init__(message, status=answer.status)
        self.answer = answer


class Malformed(UpstreamError):
    """A success whose body cannot be used."""
