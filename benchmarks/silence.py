"""A registry, a logger and a tracer that do nothing, in the place of ours: what observability is measured against."""

import logging
from typing import Any, Self

from prometheus_client.metrics import MetricWrapperBase

from agents import router
from app.engine import output_queue
from app.observability import metrics, storage
from app.observability.tracing import Messages

__all__ = ["Switch"]


class Nothing:
    """A metric of any kind that counts nothing."""

    def labels(self, *_: Any, **__: Any) -> Self:
        return self

    def inc(self, *_: Any) -> None: ...

    dec = set = observe = set_function = inc

    def passage(self, *_: Any, **__: Any) -> None: ...

    def time(self) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


class Switch:
    """Turns what counts, what is logged and what is traced off and on, in a process that works meanwhile."""

    def __init__(self) -> None:
        self._metrics = {name: one for name, one in vars(metrics).items() if isinstance(one, MetricWrapperBase)}
        self._add = storage.StorageTally.add
        self._passage = Messages.passage
        self._nothing = Nothing()

    def turn(self, *, on: bool) -> None:
        """From here on everything counts, or nothing does."""
        for name, metric in self._metrics.items():
            setattr(metrics, name, metric if on else self._nothing)
        storage.StorageTally.add = self._add if on else Nothing.inc  # type: ignore[assignment]  # takes anything
        Messages.passage = self._passage if on else Nothing.passage  # type: ignore[assignment, method-assign]
        # They keep what they have looked up.
        router._consumed.cache_clear()  # noqa: SLF001
        output_queue._outputs.cache_clear()  # noqa: SLF001
        logging.disable(logging.NOTSET if on else logging.CRITICAL)
