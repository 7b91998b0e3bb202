"""Which records of one partition are done, for one opening of its number.

The position is the first offset that is not done: everything below it has all its effects. Records may be done in
any order; the position never passes an unfinished one.
"""

from __future__ import annotations

from collections import deque

__all__ = ["Span", "Tracker"]


class Span:
    """The records of one partition in one slice; those before `offsets[at]` are done."""

    __slots__ = ("at", "bytes_", "delivered_at", "last", "offsets", "undone")

    def __init__(self, offsets: list[int], bytes_: int, delivered_at: float) -> None:
        self.delivered_at = delivered_at
        self.offsets = offsets
        self.at = 0
        self.last = offsets[-1]
        self.bytes_ = bytes_
        self.undone = set(offsets)


class Tracker:
    """Delivered and done offsets of one partition.

    Args:
        start: The first offset that is not done; where the partition is read from.

    Attributes:
        next: What is below it was delivered, or is nothing to deliver.
        position: The first offset that is not done.
        placed: Whether the consumer was told to read from `start`.
    """

    __slots__ = ("_spans", "next", "placed", "position", "start", "unfinished", "unfinished_bytes")

    def __init__(self, start: int) -> None:
        self.start = start
        self.next = start
        self.position = start
        self.placed = False
        self.unfinished = 0
        self.unfinished_bytes = 0
        self._spans: deque[Span] = deque()

    @property
    def oldest_at(self) -> float | None:
        """When the oldest unfinished record was delivered, in monotonic seconds."""
        return self._spans[0].delivered_at if self._spans else None

    def deliver(self, offsets: list[int], bytes_: int, at: float) -> Span:
        """Note that these records, in order and beyond all earlier ones, are on their way to the agent."""
        self.next = offsets[-1] + 1
        span = Span(offsets, bytes_, at)
        self._spans.append(span)
        self.unfinished += len(offsets)
        self.unfinished_bytes += bytes_
        return span

    def join(self, span: Span, later: Span) -> None:
        """Make a span that waits, and the next one after it, one."""
        self._spans.remove(later)
        span.offsets += later.offsets
        span.last = later.last
        span.bytes_ += later.bytes_
        span.undone |= later.undone

    def split(self, span: Span, offsets: list[int], bytes_: int) -> Span:
        """Make the last `offsets` of a span that waits one of their own, which comes next."""
        later = Span(offsets, bytes_, span.delivered_at)
        self._spans.insert(self._spans.index(span) + 1, later)
        del span.offsets[-len(offsets) :]
        span.last = span.offsets[-1]
        span.bytes_ -= bytes_
        span.undone -= later.undone
        return later

    def pass_by(self, offset: int) -> bool:
        """Nothing below this offset is left to deliver: what lies between are transaction markers, or was aborted.

        Returns:
            Whether the position moved.
        """
        if offset <= self.next:
            return False
        before = self.position
        self.next = offset
        self._advance()
        return self.position != before

    def unplace(self) -> None:
        """Read on behind what was delivered: what was fetched since may be lost on its way here."""
        self.start = self.next
        self.placed = False

    def finish(self, span: Span, offset: int) -> None:
        """Mark one record done; a second time changes nothing."""
        if offset not in span.undone:
            return
        span.undone.discard(offset)
        self.unfinished -= 1
        if not span.undone:
            self.unfinished_bytes -= span.bytes_
        self._advance()

    def finish_rest(self, span: Span, held: set[int]) -> None:
        """Mark a whole span done, but for the offsets in `held`."""
        before = len(span.undone)
        span.undone &= held
        self.unfinished -= before - len(span.undone)
        if before and not span.undone:
            self.unfinished_bytes -= span.bytes_
        self._advance()

    def _advance(self) -> None:
        spans = self._spans
        while spans:
            span = spans[0]
            if undone := span.undone:
                offsets, at = span.offsets, span.at
                while offsets[at] not in undone:
                    at += 1
                span.at = at
                self.position = max(self.position, offsets[at])
                return
            self.position = spans.popleft().last + 1
        self.position = self.next
