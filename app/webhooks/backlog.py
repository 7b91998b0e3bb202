"""The waiting deliveries of one webhook, as far as they are in memory.

The table's index holds all of them, in due order by class and in sequence by lane; memory holds the beginning of each
class, up to a *horizon*, and is filled again from the index. So a million waiting rows cost a few hundred entries.

A *class* is the number of attempts made (0: never tried). A *lane* is a subject: of its deliveries only the head, the
one with the lowest sequence, is offered, and none while one is in flight. With `best_effort` ordering only those that
were never tried are kept in order; with `strict` ordering all are.

Pure: no clock; times are wall-clock milliseconds.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from typing import Final, NamedTuple

__all__ = ["MAX_CLASS", "Backlog", "Entry", "Horizon"]

MAX_CLASS: Final = 255
DEFAULT_SHARE: Final = 500
FIRSTS_A_RETRY: Final = 2

Horizon = tuple[int, int]


class Entry(NamedTuple):
    """One waiting delivery; entries sort by due time.

    Attributes:
        next_at_ms: When it is due.
        sequence: Its place in its lane.
        tries: Its class: 0 if never tried, else the number of attempts, at most 255.
        lane: Of its subject; None without one.
    """

    next_at_ms: int
    sequence: int
    delivery_id: str
    webhook_id: str
    tries: int
    lane: bytes | None


@dataclass(slots=True)
class _Class:
    """What may be offered of one class, sorted; from `horizon` on, ask the index (None: all of it is here)."""

    entries: list[Entry] = field(default_factory=list)
    horizon: Horizon | None = None


@dataclass(slots=True)
class _Lane:
    """One subject.

    Attributes:
        head: The one that its class offers.
        followers: What must wait behind it, by sequence; the beginning of the lane, without a hole.
        more: The index has followers that are not here.
        floor: Those have no lower sequence. Without it each look would walk over all that ended before them.
    """

    busy: bool = False
    head: Entry | None = None
    followers: list[tuple[int, Entry]] = field(default_factory=list)
    more: bool = False
    floor: int = 0

    @property
    def free(self) -> bool:
        """Whether a new delivery would be its head, with none in flight."""
        return not (self.busy or self.head or self.followers or self.more)

    def leave(self, sequence: int) -> None:
        """A follower, and whatever comes after it, is in the index only."""
        self.floor = min(self.floor, sequence) if self.more else sequence
        self.more = True


class Backlog:
    """See the module.

    Args:
        strict: Whether retried deliveries keep their place, too.

    Attributes:
        share: How many entries a class may have in memory, and how many followers there may be.
    """

    # There may be ten thousand, most of them empty.
    __slots__ = (
        "_classes", "_firsts_in_row", "_followers", "_hungry_lanes", "_known", "_lanes", "share", "strict",
    )  # fmt: skip

    def __init__(self, *, strict: bool) -> None:
        self.strict = strict
        self.share = DEFAULT_SHARE
        self._known: dict[str, Entry] = {}
        self._classes: dict[int, _Class] = {}
        self._lanes: dict[bytes, _Lane] = {}
        self._hungry_lanes: dict[bytes, None] = {}
        self._followers = 0
        self._firsts_in_row = 0

    def __len__(self) -> int:
        """How many entries are in memory."""
        return len(self._known)

    @property
    def idle(self) -> bool:
        """Whether nothing waits, here or in the index."""
        return not self._known and self.all_here

    @property
    def empty(self) -> bool:
        """Whether it is idle and no lane is busy: it does what a new one would."""
        return not self._lanes and self.idle

    @property
    def classes(self) -> int:
        """How many classes have entries or rows in the index."""
        return len(self._classes)

    def lane_free(self, lane: bytes | None) -> bool:
        """Whether a new delivery would be the head of its lane, with none in flight, as far as lanes are known."""
        if lane is None:
            return True
        return not self._heads_unknown and ((found := self._lanes.get(lane)) is None or found.free)

    def keeps(self, lane: bytes | None) -> bool:
        """Whether a new delivery has its place here, be it in the index or not."""
        class_, found = self._classes.get(0), None if lane is None else self._lanes.get(lane)
        whole = class_ is None or (class_.horizon is None and len(class_.entries) < self.share)
        return not self.strict and whole and self._followers < self.share and not (found is not None and found.more)

    def first_waits(self, now_ms: int) -> bool:
        """Whether a delivery that was never tried waits for nothing but a slot, or may do so beyond the horizon."""
        if (class_ := self._classes.get(0)) is None:
            return False
        top = self._top(0)
        return class_.horizon is not None or (top is not None and top.next_at_ms <= now_ms)

    def offer(self, entry: Entry) -> None:
        """A row waits: new, due at another time than before, or read from the index."""
        known = self._known.get(entry.delivery_id)
        if known == entry:
            return
        if known is not None:
            self.forget(entry.delivery_id)
        class_ = self._class(entry.tries)
        if class_.horizon is not None and entry[:2] >= class_.horizon:
            return
        if entry.lane is None or not self._in_order(entry):
            self._push(class_, entry)
        else:
            self._offer_lane(class_, entry, entry.lane)

    def put_back(self, entry: Entry) -> None:
        """A delivery that was taken waits again as it did; `release` its lane after it.

        It stays in memory, though there may be no room: in the index only, a later one of its lane would be the next.
        """
        known = self._known.get(entry.delivery_id)
        if known == entry:
            return
        if known is not None:
            self.forget(entry.delivery_id)
        class_ = self._class(entry.tries)
        if entry.lane is None or not self._in_order(entry):
            self._push(class_, entry, always=True)
        else:
            self._offer_lane(class_, entry, entry.lane, filling=True)

    def forget(self, delivery_id: str) -> None:
        """A delivery does not wait any more, without an attempt."""
        entry = self._known.get(delivery_id)
        if entry is None:
            return
        self._drop(entry)
        if entry.lane is not None and (lane := self._lanes.get(entry.lane)) is not None:
            self._promote(entry.lane, lane)

    def pick(self, now_ms: int, *, most_tries: bool = False) -> Entry | None:
        """The next due delivery, which stays where it is.

        Args:
            now_ms: Now.
            most_tries: Prefer what was tried most; else by due time, two first attempts for each retry.
        """
        if self._heads_unknown:
            return None
        due = [e for e in map(self._top, sorted(self._classes, reverse=True)) if e and e.next_at_ms <= now_ms]
        if most_tries or len(due) < 2:  # noqa: PLR2004  # nothing to choose from
            return due[0] if due else None
        first = due[-1] if due[-1].tries == 0 else None
        retry = min(e for e in due if e.tries > 0)
        return first if first is not None and self._firsts_in_row < FIRSTS_A_RETRY else retry

    def take(self, entry: Entry) -> None:
        """It starts: its lane is busy until `release`."""
        self._firsts_in_row = self._firsts_in_row + 1 if entry.tries == 0 else 0
        self._drop(entry)
        self.occupy(entry.lane)

    def occupy(self, lane: bytes | None) -> None:
        """A delivery of this lane is in flight."""
        if lane is not None:
            found = self._lane(lane)
            found.busy = True
            self._demote(found)

    def release(self, lane: bytes | None) -> None:
        """The delivery in flight is so no longer; if it waits again, `offer` it first."""
        if lane is not None and (found := self._lanes.get(lane)) is not None:
            found.busy = False
            self._promote(lane, found)

    def next_due_ms(self) -> int | None:
        """When the first entry that could be offered is due."""
        tops = [e.next_at_ms for e in map(self._top, list(self._classes)) if e]
        return min(tops, default=None)

    # -- filling from the index

    @property
    def all_here(self) -> bool:
        """Whether no class or free lane has anything in the index only."""
        return not self._hungry_lanes and all(class_.horizon is None for class_ in self._classes.values())

    def hungry_classes(self) -> list[tuple[int, Horizon]]:
        """Classes with room, and where their next rows begin in the index."""
        found = [(t, c.horizon, len(c.entries)) for t, c in self._classes.items() if c.horizon is not None]
        return [(t, horizon) for t, horizon, held in found if held <= self.share // 2 or self._whole(t)]

    def hungry_lanes(self) -> list[tuple[bytes, int]]:
        """Lanes whose next head is in the index only, and the sequence that it has at least."""
        return [(key, self._lanes[key].floor) for key in self._hungry_lanes]

    def fill_class(self, tries: int, entries: list[Entry], horizon: Horizon | None) -> None:
        """Entries read from the index, and where the rest begins; None: there is none."""
        self._class(tries).horizon = horizon
        for entry in entries:
            self.offer(entry)

    def fill_lane(self, lane: bytes, entries: list[Entry], floor: int | None) -> None:
        """The next entries of a lane, in order, read from the index; the rest has at least the sequence `floor`."""
        self._hungry_lanes.pop(lane, None)
        found = self._lane(lane)
        found.more = False
        for entry in entries:
            if entry.delivery_id not in self._known:
                self._offer_lane(self._class(entry.tries), entry, lane, filling=True)
        if floor is not None:
            found.leave(floor)
        self._promote(lane, found)

    # -- classes

    def _class(self, tries: int) -> _Class:
        found = self._classes.get(tries)
        if found is None:
            found = self._classes[tries] = _Class()
        return found

    @property
    def _heads_unknown(self) -> bool:
        """Whether a retry that keeps others waiting may still be in the index only."""
        return self.strict and any(c.horizon is not None and self._whole(t) for t, c in self._classes.items())

    def _whole(self, tries: int) -> bool:
        """Whether a class is always in memory: retries of strict lanes, of which each has one, resends aside."""
        return self.strict and tries > 0

    def _in_order(self, entry: Entry) -> bool:
        return self.strict or entry.tries == 0

    def _push(self, class_: _Class, entry: Entry, *, always: bool = False) -> bool:
        """Into its class, in the place of a later one if there is no room; whether it is in."""
        if len(class_.entries) >= self.share and not always and not self._whole(entry.tries):
            # Those never tried come in order, so a new one is the last of them.
            beyond = entry if entry.tries == 0 else max(entry, class_.entries[-1])
            class_.horizon = beyond[:2] if class_.horizon is None else min(class_.horizon, beyond[:2])
            if beyond is entry:
                return False
            class_.entries.pop()
            del self._known[beyond.delivery_id]
        self._known[entry.delivery_id] = entry
        insort(class_.entries, entry)
        return True

    def _pull_out(self, entry: Entry) -> None:
        entries = self._classes[entry.tries].entries
        del entries[bisect_left(entries, entry)]

    def _top(self, tries: int) -> Entry | None:
        """The first entry of a class that could be offered."""
        class_ = self._classes[tries]
        for entry in class_.entries:
            lane = self._lanes.get(entry.lane) if entry.lane is not None else None
            if lane is None or not lane.busy:
                return entry
        if not class_.entries and class_.horizon is None:
            del self._classes[tries]
        return None

    # -- lanes

    def _lane(self, key: bytes) -> _Lane:
        found = self._lanes.get(key)
        if found is None:
            found = self._lanes[key] = _Lane()
        return found

    def _offer_lane(self, class_: _Class, entry: Entry, key: bytes, *, filling: bool = False) -> None:
        lane = self._lane(key)
        firsts = self._classes.get(0)
        if self._whole(entry.tries) and not filling and firsts is not None and firsts.horizon is not None:
            # What was never tried and comes before it in the lane may be in the index only.
            self._reread(key, lane)
            return
        overtakes = lane.head is not None and entry.sequence < lane.head.sequence
        if not lane.free and not overtakes:
            self._follow(entry, lane)
        elif self._push(class_, entry, always=filling or overtakes):
            self._demote(lane)
            lane.head = entry
        elif lane.free:
            del self._lanes[key]

    def _demote(self, lane: _Lane) -> None:
        """The head goes back among the followers."""
        entry, lane.head = lane.head, None
        if entry is not None:
            # Never left to the index, where one that waits briefly is not; there is one head a lane.
            self._pull_out(entry)
            self._followers += 1
            insort(lane.followers, (entry.sequence, entry))

    def _follow(self, entry: Entry, lane: _Lane) -> None:
        last = lane.followers[-1][0] if lane.followers else None
        if (lane.more or self._followers >= self.share) and (last is None or entry.sequence > last):
            lane.leave(entry.sequence)
            return
        self._known[entry.delivery_id] = entry
        self._followers += 1
        insort(lane.followers, (entry.sequence, entry))

    def _reread(self, key: bytes, lane: _Lane) -> None:
        """Forget what is here of a lane, so that it is read from the index when it is free."""
        for entry in ([lane.head] if lane.head is not None else []) + [e for _, e in lane.followers]:
            self._drop(entry)
        lane.leave(0)
        self._promote(key, lane)

    def _drop(self, entry: Entry) -> None:
        """Out of memory, wherever it is."""
        del self._known[entry.delivery_id]
        if not self._known:
            # Nothing waits for its turn.
            self._firsts_in_row = 0
        lane = self._lanes.get(entry.lane) if entry.lane is not None else None
        if lane is None:
            self._pull_out(entry)
        elif lane.head is entry:
            lane.head = None
            self._pull_out(entry)
        elif self._in_order(entry):
            lane.followers.remove((entry.sequence, entry))
            self._followers -= 1
        else:
            self._pull_out(entry)

    def _promote(self, key: bytes, lane: _Lane) -> None:
        """Offer what a lane that is not busy has next, or ask the index for it."""
        if lane.busy:
            return
        if lane.head is None and lane.followers:
            _, lane.head = lane.followers.pop(0)
            self._followers -= 1
            insort(self._class(lane.head.tries).entries, lane.head)
        elif lane.head is None and lane.more:
            self._hungry_lanes[key] = None
        elif lane.free:
            del self._lanes[key]
