"""How far our clock is from those of others (`vault_stream_clock_skew_seconds`), by what they answer anyway.

What a peer says of its time lies between our sending and its answer. So only that much is shown as cannot be explained
by the way there and back, and by how coarsely it tells the time: a slow answer is no skew. Who has said nothing for a
quarter of an hour is not shown any more: an alert must end when the clock was put right, though nobody asked since.
"""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

from app.observability import metrics

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PeerClock"]

LOOK_EVERY_S: Final = 1.0
DATE_RESOLUTION_S: Final = 1.0
FORGET_AFTER_S: Final = 900.0
_told_at_s: dict[str, float] = {}


def _forget() -> None:
    for peer, at_s in list(_told_at_s.items()):
        if time.monotonic() - at_s > FORGET_AFTER_S:
            del _told_at_s[peer]
            metrics.CLOCK_SKEW_SECONDS.remove(peer)


metrics.before_scrape(_forget)


class PeerClock:
    """What is known of one peer's clock.

    Args:
        peer: broker, policy, governance or registry.
        monotonic_s: Of our own looks: more than one a second says nothing new.
    """

    def __init__(self, peer: str, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._peer = peer
        self._monotonic_s = monotonic_s
        self._look_at_s = float("-inf")

    def told(self, at_s: float, sent_s: float, answered_s: float, resolution_s: float = 0.0) -> None:
        """The peer's clock showed `at_s`, or up to the resolution more, between two times of ours.

        All are seconds since 1970.
        """
        now_s = self._monotonic_s()
        if now_s < self._look_at_s:
            return
        self._look_at_s = now_s + LOOK_EVERY_S
        least_s, most_s = sent_s - at_s - resolution_s, answered_s - at_s
        _told_at_s[self._peer] = time.monotonic()
        metrics.CLOCK_SKEW_SECONDS.labels(peer=self._peer).set(max(least_s, 0.0) + min(most_s, 0.0))

    def told_by_date(self, date: str | None, sent_s: float, answered_s: float) -> None:
        """As `told`, by the `Date` header of an answer; whatever is none is passed over."""
        if date is None or self._monotonic_s() < self._look_at_s:
            return
        try:
            at_s = parsedate_to_datetime(date).timestamp()
        except (ValueError, OverflowError):
            return
        self.told(at_s, sent_s, answered_s, DATE_RESOLUTION_S)
