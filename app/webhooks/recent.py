"""The last hour of one webhook's attempts, in memory of its owner: a picture, not a record.

After a restart or a move it begins anew. Three numbers for each five minutes, at most twelve times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from app.webhooks.model import Reason

__all__ = ["BUCKETS", "BUCKET_S", "Activity", "Bucket", "Recent"]

BUCKET_S: Final = 300
BUCKETS: Final = 12
_BUCKET_MS: Final = BUCKET_S * 1000


class Bucket(NamedTuple):
    """Attempts of five minutes.

    Attributes:
        start_ms: A multiple of five minutes since 1970.
        delivered: Attempts that the receiver took.
        failed: All others.
    """

    start_ms: int
    delivered: int
    failed: int


@dataclass(frozen=True, slots=True)
class Activity:
    """What the owner of a webhook knows of it at one moment.

    Attributes:
        since_ms: Since when it has owned it; what was before is not in the buckets.
        buckets: The last hour, oldest first; the last one is not over.
        in_flight: Attempts under way.
        failures: Failed attempts since the last success.
        blocked: Why no attempt may start now; None: one may.
        paced: Whether attempts go one by one, as it only fails.
    """

    since_ms: int
    buckets: list[Bucket]
    in_flight: int = 0
    failures: int = 0
    blocked: Reason | None = None
    paced: bool = False


class Recent:
    """Counts attempts."""

    __slots__ = ("_buckets",)

    def __init__(self) -> None:
        # Each as a `Bucket` that counts, oldest first; five minutes without attempts are not there.
        self._buckets: list[list[int]] = []

    def note(self, now_ms: int, *, ok: bool) -> None:
        """An attempt ended. A clock that went back counts into the latest five minutes."""
        start_ms = now_ms - now_ms % _BUCKET_MS
        if not self._buckets or self._buckets[-1][0] < start_ms:
            self._buckets = [*self._buckets[1 - BUCKETS :], [start_ms, 0, 0]]
        self._buckets[-1][1 if ok else 2] += 1

    def over(self, now_ms: int) -> bool:
        """Whether nothing of it is in the last hour, nor will be."""
        end_ms = now_ms - now_ms % _BUCKET_MS
        return not self._buckets or self._buckets[-1][0] <= end_ms - BUCKETS * _BUCKET_MS

    def last_hour(self, now_ms: int) -> list[Bucket]:
        """Twelve buckets, oldest first; the last one is not over."""
        end_ms = now_ms - now_ms % _BUCKET_MS
        known = {counted[0]: Bucket(*counted) for counted in self._buckets}
        starts = range(end_ms - (BUCKETS - 1) * _BUCKET_MS, end_ms + 1, _BUCKET_MS)
        return [known.get(start_ms, Bucket(start_ms, 0, 0)) for start_ms in starts]
