"""What becomes of ended spans: a bounded queue, a thread that sends, a count of what was lost, and an end in time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from typing import TYPE_CHECKING, Final

import requests
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from app.observability import metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from app.observability.tracing.spans import Tracer

__all__ = ["Counted", "Queue", "Tracing", "WatchedSession"]

log = logging.getLogger("app.tracing")

CLOSE_S: Final = 3.0
"""What the last spans may take at the end of the process."""
GIVE_UP_S: Final = 0.5
"""What those may take that are told to give up."""
_OK_FROM: Final = 200
_OK_BEFORE: Final = 300


class WatchedSession(requests.Session):
    """The connections to the collector; remembers why the last request failed, without an address.

    Nothing is taken from the environment: neither a proxy nor the credentials of a .netrc.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False
        self.problem = "no answer"

    def request(self, *args: object, **kwargs: object) -> requests.Response:
        """One request; an answer that is no 2xx sends nobody elsewhere.

        Raises:
            requests.RequestException: It failed, or was answered with a redirect, which the exporter takes for success.
        """
        try:
            answer = super().request(*args, **kwargs)  # type: ignore[arg-type]  # as they came
        except requests.RequestException as error:
            self.problem = f"no answer: {type(error).__name__}"
            raise
        if not _OK_FROM <= answer.status_code < _OK_BEFORE:
            self.problem = f"answered {answer.status_code}"
        if answer.is_redirect:
            raise requests.TooManyRedirects(self.problem)
        return answer


class Counted(SpanExporter):
    """An exporter whose results are counted, with one line in the log for each outage and one for its end.

    Args:
        exporter: Sends.
        problem: Why the last request failed.
    """

    def __init__(self, exporter: SpanExporter, problem: Callable[[], str]) -> None:
        self._exporter = exporter
        self._problem = problem
        self._lost = 0
        self._given_up = False
        self.taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch; never raises."""
        self.taken += len(spans)
        result = SpanExportResult.FAILURE
        if not self._given_up:
            try:
                result = self._exporter.export(spans)
            except Exception as error:  # noqa: BLE001  # whatever it is, spans are lost and events are not
                log.debug("the exporter failed: %s", type(error).__name__)
        outcome = "exported" if result is SpanExportResult.SUCCESS else "failed"
        metrics.SPANS.labels(outcome=outcome).inc(len(spans))
        self._tell(len(spans), failed=outcome == "failed")
        return result

    def give_up(self) -> None:
        """Send nothing more, and interrupt the waits of what is under way."""
        self._given_up = True
        self._exporter.shutdown()

    def shutdown(self) -> None:
        """End the connections."""
        if not self._given_up:
            self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is kept here."""
        return self._exporter.force_flush(timeout_millis)

    def _tell(self, count: int, *, failed: bool) -> None:
        if failed:
            if not self._lost:
                log.warning("spans cannot be exported, and are lost and counted until they can: %s", self._problem())
            self._lost += count
        elif self._lost:
            log.info("spans are exported again; %d were lost", self._lost)
            self._lost = 0


class Queue:
    """What the tracer gives ended spans to: a queue that is full drops and counts what comes, and nobody waits.

    Args:
        exporter: Asked by the thread of the queue, batch by batch.
        size: Of the queue, in spans.
        batch_size: At most so many at once.
        delay_ms: What a span waits for others at most.
    """

    def __init__(self, exporter: Counted, *, size: int = 2048, batch_size: int = 512, delay_ms: float = 5000) -> None:
        self._exporter = exporter
        self._size = size
        self._accepted = 0
        self._processor = BatchSpanProcessor(exporter, size, delay_ms, batch_size)
        self._closed = False

    def put(self, span: ReadableSpan) -> None:
        """Take a span, or drop it."""
        # Counted here, as the processor of the SDK drops without telling anybody but the log.
        if self._closed or self._accepted - self._exporter.taken >= self._size:
            metrics.SPANS.labels(outcome="dropped").inc()
            return
        self._accepted += 1
        self._processor.on_end(span)

    async def close(self, within_s: float) -> None:
        """Send what is left; after that time it is lost and counted."""
        if self._closed:
            return
        self._closed = True
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def end() -> None:
            self._processor.shutdown()  # type: ignore[no-untyped-call]  # the SDK left it without types
            with contextlib.suppress(RuntimeError):  # the loop did not wait so long
                loop.call_soon_threadsafe(ended.set)

        # A thread that may be left behind: one of a pool would be waited for at the end of the loop.
        threading.Thread(target=end, name="tracing-end", daemon=True).start()
        try:
            async with asyncio.timeout(within_s):
                await ended.wait()
        except TimeoutError:
            self._exporter.give_up()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GIVE_UP_S):
                    await ended.wait()
        lost = self._accepted - self._exporter.taken
        if lost > 0:
            metrics.SPANS.labels(outcome="dropped").inc(lost)


class Tracing:
    """The tracing of a process, from its start to `close`.

    Attributes:
        tracer: Makes the spans.
    """

    def __init__(self, tracer: Tracer, queue: Queue) -> None:
        self.tracer = tracer
        self._queue = queue

    async def close(self, within_s: float = CLOSE_S) -> None:
        """Send the last spans, for at most so long."""
        await self._queue.close(within_s)
