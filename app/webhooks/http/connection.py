"""One connection to a receiver: one request at a time, and its answer."""

from __future__ import annotations

import asyncio
import math
import select
import time
from typing import TYPE_CHECKING, Final, NoReturn, cast

from app.webhooks.http.answers import AnswerReader
from app.webhooks.http.errors import AnswerTooLarge, HungUp, MalformedAnswer

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from app.webhooks.http.answers import Answer

__all__ = ["Connection"]

# The finest step of an event loop's timers.
_TIMER_STEP_S: Final = 0.001


class Connection(asyncio.Protocol):
    """A transport's protocol, made by the pool and the dialler only.

    Attributes:
        gone: Done once the connection is closed.
        on_gone: Called then.
    """

    __slots__ = (
        "_deadline_s", "_loop", "_poll", "_reader", "_timer", "_timer_s", "_transport", "_waiter", "gone", "on_gone",
    )  # fmt: skip

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = AnswerReader()
        self._transport: asyncio.Transport | None = None
        self._poll = select.poll()
        self._waiter: asyncio.Future[Answer] | None = None
        self._deadline_s = math.inf
        # It outlives an exchange that ends in time: to look at the clock again costs the next one less than a timer.
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = math.inf
        self.gone: asyncio.Future[None] = self._loop.create_future()
        self.on_gone: Callable[[Connection], None] | None = None

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent: the last one is answered, to its end, and the receiver keeps on."""
        transport = self._transport
        return (
            self._reader.reusable
            and transport is not None
            and not transport.is_closing()
            # An answer that came before all of the request was sent: what is left would not be read.
            and not transport.get_write_buffer_size()
        )

    def unasked(self) -> bool:
        """Whether bytes, or the end, have come that the event loop has not read yet; between two requests nothing may.

        Read after the next request, they would pass for its answer.
        """
        return bool(self._poll.poll(0))

    def exchange(self, request: bytes, timeout_s: float | None, *, head_only: bool = False) -> asyncio.Future[Answer]:
        """Send a request and read its answer, which is to be awaited.

        Without an answer the connection is not `reusable`, and whether the receiver has the request is unknown.

        Args:
            request: Head and body.
            timeout_s: For both; None: somebody else sees to it.
            head_only: No body of the answer is waited for.

        Raises:
            TimeoutError: The time is over.
            HungUp: The connection ended before the answer did.
            MalformedAnswer: As `AnswerReader`.
            AnswerTooLarge: As `AnswerReader`.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            raise HungUp("closed before the request")
        if timeout_s is not None and timeout_s <= 0:
            raise TimeoutError
        waiter = self._waiter = self._loop.create_future()
        self._reader.begin(head_only=head_only)
        self._limit(timeout_s)
        transport.write(request)
        return waiter

    async def start_tls(self, tls: ssl.SSLContext, host: str) -> None:
        """Speak TLS from now on, inside of what is there.

        Args:
            tls: Verifies certificates.
            host: Whose certificate it must be.

        Raises:
            OSError: No TLS came about.
            HungUp: The connection is closed.
        """
        if self._transport is None:
            raise HungUp("closed before TLS")
        transport = await self._loop.start_tls(self._transport, self, tls, server_hostname=host)
        if transport is None:
            raise HungUp("closed during TLS")
        self._transport = transport
        # What was spoken outside is over, whatever its answer said of a body.
        self._reader.close()
        self._reader = AnswerReader()

    def close(self) -> None:
        """Say goodbye; what was not read is dropped."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Hang up at once."""
        if self._transport is not None:
            self._transport.abort()

    # -- called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there, TLS included."""
        self._transport = cast("asyncio.Transport", transport)
        # With TLS these are records, and one that holds no data, as a session ticket, costs a new connection.
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer, or of nothing that was asked for."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            self.abort()
            return
        try:
            if not self._reader.feed(data):
                return
        except (MalformedAnswer, AnswerTooLarge) as error:
            waiter.set_exception(error)
            return
        if self._reader.answer is not None:
            waiter.set_result(self._reader.answer)
        elif self._transport is not None:
            # Who floods us costs no more than who says nothing: the time runs out, unread.
            self._transport.pause_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is closed, by whomever."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            try:
                waiter.set_result(self._reader.end() if error is None else _break_off(error))
            except HungUp as hung_up:
                waiter.set_exception(hung_up)
        # What it ended with may lead back to who holds this connection.
        self._waiter = None
        self._reader.close()
        self._stop_timer()
        self._transport = None
        if not self.gone.done():
            self.gone.set_result(None)
        if self.on_gone is not None:
            self.on_gone(self)

    # -- the time limit

    def _limit(self, timeout_s: float | None) -> None:
        if timeout_s is None:
            self._deadline_s = math.inf
            return
        self._deadline_s = time.monotonic() + timeout_s
        if self._timer is None or self._timer_s > self._deadline_s:
            self._stop_timer()
            self._set_timer(timeout_s)

    def _set_timer(self, after_s: float) -> None:
        self._timer_s = self._deadline_s
        self._timer = self._loop.call_later(after_s, self._expire)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        if self._waiter is None or self._waiter.done() or self._deadline_s == math.inf:
            return
        left_s = self._deadline_s - time.monotonic()
        if left_s > _TIMER_STEP_S:
            # It was set for an earlier exchange.
            self._set_timer(left_s)
        else:
            self._waiter.set_exception(TimeoutError())


def _break_off(error: Exception) -> NoReturn:
    raise HungUp("broken off") from error
