"""Tells the registry what it does not know yet: 16 datasets at a time for each number, one call a dataset.

A registry that does not answer is asked by one push at a time, with growing gaps; a dataset that alone is not taken
waits by itself.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Final

from agents.registry.calls import CONFLICT, GONE, Refused
from app.integrations.registry import NEVER, is_dirty
from app.integrations.registry_links import is_waiting, waiting_links
from app.integrations.upstream import Unavailable, backoff_s
from tables.datasets import DATASETS

if TYPE_CHECKING:
    from collections.abc import Callable

    from agents.registry.calls import Pushed, RegistryCalls
    from agents.registry.gate import OpenGate
    from agents.registry.outcomes import Outcomes
    from app.engine import Context, Unit
    from app.integrations.registry import DatasetRow, Link

__all__ = ["LOOK_AHEAD", "WINDOW", "Pusher"]

log = logging.getLogger("app.agents.registry")

WINDOW: Final = 16
LOOK_AHEAD: Final = 256
# Whoever waits for a synchronisation is told that the registry does not answer.
GIVE_UP_AFTER: Final = 3


class Pusher:
    """The pushes of one number.

    Args:
        outcomes: Writes down what the registry said.
        gate: What must not be told yet.
        wanted: Whether anything is to be pushed at the moment.
    """

    def __init__(
        self,
        context: Context,
        calls: RegistryCalls,
        outcomes: Outcomes,
        gate: OpenGate,
        jitter: Callable[[], float],
        wanted: Callable[[], bool],
    ) -> None:
        self._context = context
        self._calls = calls
        self._outcomes = outcomes
        self._gate = gate
        self._jitter = jitter
        self._wanted = wanted
        self._running: set[bytes] = set()
        self._found: deque[bytes] = deque()
        # What has failed before and is due again, the oldest first: behind what was never tried, or a few that are
        # never taken would be all that is ever tried.
        self._due: dict[bytes, None] = {}
        self._since_due = 0
        # Whether the index may hold dirty rows beside those found, due, running and delayed.
        self._look = True
        self._attempts: dict[bytes, int] = {}
        self._delayed: dict[bytes, float] = {}
        self._failures = 0
        self._not_before_s = 0.0
        self._draining = False

    @property
    def busy(self) -> bool:
        """Whether answers are still on their way."""
        return bool(self._running)

    @property
    def silent(self) -> bool:
        """Whether the registry does not answer, for long enough to say so."""
        return self._failures >= GIVE_UP_AFTER

    @property
    def idle(self) -> bool:
        """Whether everything that the registry is to be told was tried."""
        return not (self._running or self._found or self._due or self._look or self._gate.closed)

    def drain(self) -> None:
        """Start nothing more."""
        self._draining = True

    def look(self) -> None:
        """Rows have changed."""
        self._look = True
        self._context.tick_now()

    def retry_now(self) -> None:
        """Somebody waits: what failed is tried again."""
        self._due |= dict.fromkeys(self._delayed)
        self._delayed.clear()
        self._not_before_s = 0.0
        self._failures = 0
        self.look()

    def tick(self, unit: Unit) -> None:
        """Start pushes of dirty rows, as many as may be under way."""
        if self._draining or not self._wanted():
            return
        now_s = self._context.clock.monotonic_s()
        if now_s < self._not_before_s:
            self._context.tick_at(self._not_before_s)
            return
        self._gate.tick(unit)
        if self._gate.shut:
            return
        for key in [key for key, due_s in self._delayed.items() if due_s <= now_s]:
            del self._delayed[key]
            self._due[key] = None
        free = (1 if self._failures else WINDOW) - len(self._running)
        while free > 0 and (found := self._next(unit)) is not None:
            self._running.add(found[0])
            self._context.spawn(self._tell(*found))
            free -= 1
        if self._delayed:
            self._context.tick_at(min(self._delayed.values()))

    def _next(self, unit: Unit) -> tuple[bytes, DatasetRow] | None:
        """A row to be told of which no push is under way or delayed."""
        while self._found or self._due or self._look:
            if self._look and not self._found:
                self._find(unit)
                continue
            key = self._take()
            if key in self._running or key in self._delayed or not self._gate.lets(key):
                continue
            row = unit.get(DATASETS, key)
            if row is not None and is_waiting(row):
                return key, row
            self._attempts.pop(key, None)
        return None

    def _take(self) -> bytes:
        """What is due again comes after what was never tried, but not after an endless stream of it."""
        if self._due and (not self._found or self._since_due >= WINDOW):
            self._since_due = 0
            key = next(iter(self._due))
            del self._due[key]
            return key
        self._since_due += 1
        return self._found.popleft()

    def _find(self, unit: Unit) -> None:
        """Ask the index, as rarely as can be: each time it walks over the tombstones of all that was pushed."""
        limit = LOOK_AHEAD + len(self._running) + len(self._delayed) + len(self._due) + self._gate.held
        dirty = unit.scan_index(DATASETS, limit=limit)
        self._look = len(dirty) == limit
        for key in dirty:
            if key not in self._attempts:
                self._found.append(key)
            elif key not in self._delayed:
                self._due[key] = None

    async def _tell(self, key: bytes, row: DatasetRow) -> None:
        try:
            if row.seen_ms != NEVER:
                # Its version counts what was pulled, too, and by when that was: another life might count otherwise, and
                # must not give another state the same idempotency key.
                await self._context.checkpoint()
            await self._context.until_may_act()
            try:
                again = await self._one_call(key, row)
            except Unavailable as error:
                self._outcomes.failed(row.id, str(error))
                self._gate.changed(key)
                self._back_off(key, error, alone=error.status == GONE and not is_dirty(row))
                return
            if again:
                self._found.append(key)
            self._failures = 0
            self._attempts.pop(key, None)
        finally:
            self._running.discard(key)
            self._context.tick_now()

    async def _one_call(self, key: bytes, row: DatasetRow) -> bool:
        """The dataset, or one of its links; whether there is more to say."""
        link: Link | None = None
        outcome: Pushed | Refused
        if is_dirty(row):
            outcome = await self._calls.push(row)
        else:
            link, outcome = await self._link(row)
        if isinstance(outcome, Refused):
            what = "a dataset, which waits for its next change" if link is None else "a link"
            log.warning("the registry answered %s to %s", outcome.status, what)
            if link is not None or outcome.status != CONFLICT:
                # What another has under this id is listed as a conflict, and once.
                self._outcomes.failed(row.id, f"answered {outcome.status}")
        if link is None:
            return await self._context.submit(lambda unit: self._outcomes.pushed(unit, key, row, outcome))
        return await self._context.submit(lambda unit: self._outcomes.linked(unit, key, link, outcome))

    async def _link(self, row: DatasetRow) -> tuple[Link, Pushed | Refused]:
        """The first of its links that the registry has an answer to: a model that is not there holds no other back.

        Raises:
            Unavailable: There is none.
        """
        *others, last = waiting_links(row)
        for link in others:
            try:
                return link, await self._calls.link(row, link)
            except Unavailable as error:
                if error.status != GONE or self._draining:
                    raise
            await self._context.until_may_act()
        return last, await self._calls.link(row, last)

    def _back_off(self, key: bytes, error: Unavailable, *, alone: bool) -> None:
        """Try it again later.

        Args:
            alone: The failure says nothing of the registry: it does not know the model of a link.
        """
        now_s = self._context.clock.monotonic_s()
        attempts = self._attempts[key] = self._attempts.get(key, 0) + 1
        self._delayed[key] = now_s + backoff_s(attempts, self._jitter(), error.retry_after_s)
        if alone or now_s < self._not_before_s:
            return  # Where it was under way together with another, that one has already told us.
        self._failures += 1
        wait_s = backoff_s(self._failures, self._jitter(), error.retry_after_s)
        self._not_before_s = now_s + wait_s
        log.warning("pushes to the registry wait %.1f s: %s", wait_s, error)
