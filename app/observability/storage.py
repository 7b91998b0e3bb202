"""Counts of what the tables do with the disk, cheap enough for each read (a fifth of the client's own).

Numbers of this process's own are added up where the work is, and moved into `storage_*` before each scrape.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from app.observability import metrics

if TYPE_CHECKING:
    from prometheus_client import Histogram

__all__ = ["CHECKPOINTS", "GETS", "PUTS", "RESTORES", "SCANS", "StorageTally"]

BACKEND: Final = "rocksdb"


class StorageTally:
    """One kind of operation, on one thread.

    Args:
        operation: get, put, scan, checkpoint or restore.
        direction: Of its bytes: read or write.
    """

    __slots__ = ("_bounds", "_buckets", "_bytes", "_bytes_total", "_done", "_failed", "_failures", "_latency", "_sum_s")

    def __init__(self, operation: str, direction: str) -> None:
        labels = {"backend": BACKEND, "operation": operation}
        self._done = metrics.STORAGE_OPERATIONS.labels(**labels, status="ok")
        self._failed = metrics.STORAGE_OPERATIONS.labels(**labels, status="error")
        self._bytes_total = metrics.STORAGE_BYTES.labels(backend=BACKEND, direction=direction)
        self._latency: Histogram = metrics.STORAGE_LATENCY_SECONDS.labels(**labels)
        self._bounds = self._latency._upper_bounds[:-1]  # noqa: SLF001  # the client tells them to nobody
        self._buckets = [0] * (len(self._bounds) + 1)
        self._sum_s = 0.0
        self._bytes = 0
        self._failures = 0
        metrics.before_scrape(self.flush)

    def add(self, duration_s: float, size_bytes: int = 0) -> None:
        """One that went well."""
        self._buckets[bisect_left(self._bounds, duration_s)] += 1
        self._sum_s += duration_s
        self._bytes += size_bytes

    def failed(self) -> None:
        """One that did not."""
        self._failures += 1

    def flush(self) -> None:
        """Move what was added up into the metrics."""
        buckets, self._buckets = self._buckets, [0] * len(self._buckets)
        self._done.inc(sum(buckets))
        self._failed.inc(self._failures)
        self._bytes_total.inc(self._bytes)
        # As `observe` does it, once for all.
        for bucket, count in zip(self._latency._buckets, buckets, strict=True):  # noqa: SLF001
            bucket.inc(count)
        self._latency._sum.inc(self._sum_s)  # noqa: SLF001
        self._sum_s, self._bytes, self._failures = 0.0, 0, 0


GETS: Final = StorageTally("get", "read")
"""Rows read by their key, where no newer one is in memory."""
SCANS: Final = StorageTally("scan", "read")
"""Ranges read, each from its first row to the last that was asked for."""
PUTS: Final = StorageTally("put", "write")
"""Batches of rows and index written by checkpoints."""
RESTORES: Final = StorageTally("restore", "write")
"""Batches written from a changelog."""
CHECKPOINTS: Final = StorageTally("checkpoint", "write")
"""Whole checkpoints of a number: changelog and disk. Their bytes are those of their `put`."""
