"""Reads the registry's changes, page after page, and hands each to the owner of its dataset. Number 0 does it for all.

The place is written with each page, once the page is in the log: a registry, or a worker, that goes away in the middle
costs no page. What is read twice is folded once.
"""

from __future__ import annotations

import hashlib
import logging
from functools import partial
from typing import TYPE_CHECKING, Final

from app.events import STRUCTURED_HEADERS, canonical_json
from app.integrations.registry import DatasetRow, PullCursor
from app.integrations.registry_messages import (
    PASS_OVER,
    SYNC_PULLED,
    key_of_number,
    pass_message,
    pulled_message,
    sync_message,
)
from app.integrations.registry_pull import pulled_data
from app.integrations.upstream import Malformed, Unavailable, UpstreamError, backoff_s
from tables.datasets import CURSOR_KEY, DATASETS

if TYPE_CHECKING:
    from collections.abc import Callable

    from agents.registry.calls import RegistryCalls
    from agents.registry.syncs import Syncs
    from app.engine import Context, Unit
    from app.integrations.registry_pull import Page, Pulled
    from app.integrations.registry_sync import SyncMode
    from app.topics import Topics

__all__ = ["OVERLAP_MS", "Puller"]

log = logging.getLogger("app.agents.registry")

# A registry may stamp a change a little before it shows it.
OVERLAP_MS: Final = 2000
# A first pass has no earlier one to go by: so long may it and our clocks differ.
FIRST_OVERLAP_MS: Final = 600_000
MAX_REPEATS: Final = 5
MAX_EMPTY_PAGES: Final = 100
# 10 million datasets, where a page has 100.
MAX_PAGES: Final = 100_000
GIVE_UP_AFTER: Final = 3
# Pushes wait for a pass: not for ever where pulls alone fail.
PUSH_ANYWAY_AFTER: Final = 10
# Between the begins of two passes that pushes wait for.
MIN_GAP_S: Final = 0.5
_UNSERVED: Final = frozenset({400, 404, 405, 410, 415, 422, 501})
# The cursor is not known any more.
_FORGOTTEN: Final = frozenset({400, 404, 409, 410, 422})


class Puller:
    """One pass at a time, by the timer or because somebody asked.

    Args:
        interval_s: From the begin of a pass to the next; None: only when asked.
        numbers: How many there are.
    """

    def __init__(
        self,
        context: Context,
        calls: RegistryCalls,
        topics: Topics,
        syncs: Syncs,
        jitter: Callable[[], float],
        *,
        interval_s: float | None,
        numbers: int,
    ) -> None:
        self._context = context
        self._calls = calls
        self._topics = topics
        self._source = f"/vault-stream/{topics.app_id}"
        self._syncs = syncs
        self._jitter = jitter
        self._interval_s = interval_s
        self._numbers = numbers
        self._due_s = None if interval_s is None else context.clock.monotonic_s()
        self._asked: dict[str, SyncMode] = {}
        self._wanted: dict[int, str] = {}
        self._serving: dict[int, str] = {}
        self._began_s = -MIN_GAP_S
        self._running = False
        self._draining = False
        self._failures = 0
        self._recent: dict[str, tuple[int, bytes]] = {}

    @property
    def busy(self) -> bool:
        """Whether an answer is still on its way."""
        return self._running

    def drain(self) -> None:
        """Start nothing more."""
        self._draining = True

    def ask(self, sync_id: str, mode: SyncMode) -> None:
        """Somebody wants a pass of their own, now."""
        self._asked[sync_id] = mode
        self._due_s = self._context.clock.monotonic_s()
        self._context.tick_now()

    def want(self, number: int, token: str) -> None:
        """A number holds its pushes back until a pass that begins from now on is over."""
        if self._serving.get(number) == token:
            return
        self._wanted[number] = token
        if not self._failures:
            now_s = self._context.clock.monotonic_s()
            soon_s = max(now_s, self._began_s + MIN_GAP_S)
            self._due_s = soon_s if self._due_s is None else min(self._due_s, soon_s)
            self._context.tick_now()

    def tick(self) -> None:
        """Begin a pass that is due."""
        if self._running or self._draining or self._due_s is None:
            return
        if self._context.clock.monotonic_s() < self._due_s:
            self._context.tick_at(self._due_s)
            return
        self._running = True
        self._context.spawn(self._run())

    async def _run(self) -> None:
        clock = self._context.clock
        self._began_s = clock.monotonic_s()
        syncs, self._asked = self._asked, {}
        self._serving, self._wanted = self._wanted, {}
        try:
            error: UpstreamError | None = None
            try:
                if not await self._pass():
                    self._asked, syncs = syncs | self._asked, {}
                    self._wanted, self._serving = self._serving | self._wanted, {}
            except UpstreamError as problem:
                error = problem
            self._schedule(error)
            await self._report(syncs, error)
        finally:
            self._serving = {}
            self._running = False
            self._context.tick_now()

    def _schedule(self, error: UpstreamError | None) -> None:
        """When the next pass begins."""
        if error is None:
            self._failures = 0
            self._due_s = None if self._interval_s is None else self._began_s + self._interval_s
            if self._wanted or self._asked:
                self._due_s = self._began_s + MIN_GAP_S
            return
        self._failures += 1
        retry_after_s = error.retry_after_s if isinstance(error, Unavailable) else None
        wait_s = backoff_s(self._failures, self._jitter(), retry_after_s)
        self._due_s = self._context.clock.monotonic_s() + wait_s
        log.warning("the registry's changes are read again in %.1f s: %s", wait_s, error)

    async def _report(self, syncs: dict[str, SyncMode], error: UpstreamError | None) -> None:
        """Tell those who wait; or, where the pass failed, have them wait for the next."""
        if error is not None and self._failures < GIVE_UP_AFTER:
            self._asked, syncs = syncs | self._asked, {}
        wants = self._serving
        if error is not None and not self._give_way(error):
            self._wanted, wants = wants | self._wanted, {}
        if syncs or wants:
            why = None if error is None else str(error)
            await self._context.submit(lambda unit: self._over(unit, syncs, wants, why))
        if error is not None and self._interval_s is None and not (self._asked or self._wanted):
            # Nobody waits for it any more.
            self._failures, self._due_s = 0, None

    def _give_way(self, error: UpstreamError) -> bool:
        """Whether pushes must not wait any longer: this registry lists nothing, whatever it takes."""
        unserved = isinstance(error, Malformed) or error.status in _UNSERVED
        return self._failures >= (GIVE_UP_AFTER if unserved else PUSH_ANYWAY_AFTER)

    async def _pass(self) -> bool:
        """Read to the end; whether from the first page on.

        Where another pass was broken off, its end says nothing of what has changed on its first pages since. A drain
        ends it behind a page.

        Raises:
            UpstreamError: It failed, or has no end; what was read until then is kept.
        """
        place = await self._context.submit(_place)
        whole = place.cursor is None
        asked, repeats, empty = {hash(place.cursor)}, 0, 0
        for _ in range(MAX_PAGES):
            if self._draining:
                return False
            await self._context.until_may_act()
            page = await self._page(place)
            for id_, why in page.refused:
                log.warning("the registry showed what is no dataset: %s", why)
                self._syncs.failed(id_ or "a dataset without an id", why)
            after = self._after(place, page)
            await self._context.submit(partial(self._publish, page, after))
            self._remember(page, after)
            if page.cursor is None:
                return whole
            repeats += hash(page.cursor) in asked
            empty = 0 if page.items or page.refused else empty + 1
            if repeats > MAX_REPEATS or empty >= MAX_EMPTY_PAGES:
                await self._from_the_start_of(place)
                raise Malformed(
                    "the registry's cursors go round" if repeats > MAX_REPEATS else "the registry's pages are empty"
                )
            asked.add(hash(page.cursor))
            place = after
        raise Malformed("the registry's pages have no end")

    async def _page(self, place: PullCursor) -> Page:
        try:
            return await self._calls.changes(place)
        except UpstreamError as error:
            if place.cursor is not None and error.status in _FORGOTTEN:
                await self._from_the_start_of(place)
            raise

    async def _from_the_start_of(self, place: PullCursor) -> None:
        """Read the pass again from its first page: its cursor leads nowhere."""
        start = PullCursor(since_ms=place.since_ms, floor_ms=place.floor_ms)
        await self._context.submit(lambda unit: unit.put(DATASETS, CURSOR_KEY, DatasetRow(id="", cursor=start)))

    def _after(self, place: PullCursor, page: Page) -> PullCursor:
        """The place behind a page."""
        # A time that is not yet would hide everything until then.
        now_ms = self._context.clock.now_ms()
        times = [min(item.at_ms, now_ms) for item in page.items]
        # The floor of a first pass is no change that anybody has seen.
        known = (place.newest_ms, None if place.since_ms is None else place.floor_ms)
        newest_ms = max([*times, *(time_ms for time_ms in known if time_ms is not None)], default=None)
        floor_ms = now_ms - FIRST_OVERLAP_MS if place.floor_ms is None else place.floor_ms
        if page.cursor is not None:
            return PullCursor(since_ms=place.since_ms, cursor=page.cursor, newest_ms=newest_ms, floor_ms=floor_ms)
        if newest_ms is None:
            return PullCursor(since_ms=place.since_ms)
        return PullCursor(since_ms=max(min(floor_ms, newest_ms) - OVERLAP_MS, 0), floor_ms=newest_ms)

    def _publish(self, page: Page, after: PullCursor, unit: Unit) -> None:
        for item in page.items:
            if self._recent.get(item.id) != _mark(item):
                value = pulled_message(item, self._source)
                unit.send(self._topics.registry_datasets, item.id.encode(), value, STRUCTURED_HEADERS)
        if after != _place(unit):
            unit.put(DATASETS, CURSOR_KEY, DatasetRow(id="", cursor=after))

    def _remember(self, page: Page, after: PullCursor) -> None:
        """What the next pass will show again."""
        self._recent.update((item.id, _mark(item)) for item in page.items)
        ended = after.cursor is None
        from_ms = after.since_ms if ended else (after.floor_ms or 0) - OVERLAP_MS
        self._recent = {id_: mark for id_, mark in self._recent.items() if mark[0] >= (from_ms or 0)}

    def _over(self, unit: Unit, syncs: dict[str, SyncMode], wants: dict[int, str], error: str | None) -> None:
        """Tell the numbers; what was pulled for them is before this in their logs."""
        now_ms = self._context.clock.now_ms()
        for sync_id, mode in syncs.items():
            for number in range(self._numbers):
                self._send(unit, number, sync_message(SYNC_PULLED, sync_id, mode, self._source, now_ms, error))
        for number, token in wants.items():
            self._send(unit, number, pass_message(PASS_OVER, number, token, self._source, now_ms))

    def _send(self, unit: Unit, number: int, value: bytes) -> None:
        unit.send(self._topics.registry_datasets, key_of_number(number, self._numbers), value, STRUCTURED_HEADERS)


def _place(unit: Unit) -> PullCursor:
    row = unit.get(DATASETS, CURSOR_KEY)
    return PullCursor() if row is None or row.cursor is None else row.cursor


def _mark(item: Pulled) -> tuple[int, bytes]:
    return item.at_ms, hashlib.blake2b(canonical_json(pulled_data(item)), digest_size=8).digest()
