"""Changes of the health of upstreams, as events in the log that auditors read (contracts 7).

Every worker sees how its own calls end; the owner of number 0 tells (architecture 2). The others follow what it must
have told, so that whoever takes over goes on from there.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from app.engine.errors import EngineError
from app.events import STRUCTURED_HEADERS, record_key
from app.integrations.upstream_health import HealthRules, UpstreamHealth, change_event

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from app.engine.engine import Engine
    from app.events import CloudEvent
    from app.settings import Settings

__all__ = ["Audible", "HealthNews", "health_news"]

log = logging.getLogger("app.upstreams")

LOOK_EVERY_S: Final = 1.0
TELLER: Final = 0
"""The number whose owner tells."""


class Audible(Protocol):
    """An upstream that says how each call ended: why it failed, or None."""

    on_result: Callable[[str | None], None]


def health_news(settings: Settings, engine: Engine, upstreams: Mapping[str, Audible | None], topic: str) -> HealthNews:
    """Wired to a worker.

    Args:
        topic: Where the events go.
    """
    health = settings.health
    rules = HealthRules(degraded_after_s=health.degraded_after_s, restored_after_s=health.restored_after_s)
    return HealthNews(engine, upstreams, rules, topic)


class HealthNews:
    """Tells of each upstream when it is degraded, and when it is restored.

    Args:
        engine: Says who tells, and sends.
        upstreams: By name; None is one that is off.
        topic: Where the events go.
    """

    def __init__(self, engine: Engine, upstreams: Mapping[str, Audible | None], rules: HealthRules, topic: str) -> None:
        self._engine = engine
        self._topic = topic
        self._source = f"/vault-stream/{engine.config.app_id}"
        self._health = {name: UpstreamHealth(rules) for name, upstream in upstreams.items() if upstream is not None}
        self._events: dict[str, CloudEvent] = {}
        self._followed = False
        self._unsent = False
        self._task: asyncio.Task[None] | None = None
        for name, upstream in upstreams.items():
            if upstream is not None:
                upstream.on_result = partial(self._heard, name)

    def start(self) -> None:
        """Look once a second, until `stop`."""
        self._task = asyncio.create_task(self._run(), name="news of the health of upstreams")

    async def stop(self) -> None:
        """Look no more; what was not told is told by the next owner, if it lasts."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _heard(self, name: str, problem: str | None) -> None:
        clock = self._engine.clock
        self._health[name].heard(problem, clock.monotonic_s(), clock.now_ms())

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self.look()
            except Exception:
                # Nothing else depends on it, and it must not end in silence.
                log.exception("the news of the health of upstreams failed; they are looked at again")

    async def look(self) -> None:
        """Tell what is due, or follow what another worker must have told; neither while nobody knows who does."""
        ownership, clock = self._engine.ownership, self._engine.clock
        owner = ownership.owner(TELLER)
        if owner is None:
            return
        if owner.name != self._engine.instance:
            self._followed = True
            self._events.clear()
            for health in self._health.values():
                if health.due(clock.monotonic_s()) is not None:
                    health.told(clock.monotonic_s())
            return
        if not ownership.is_mine(TELLER) or not self._engine.lease_valid():
            return
        if self._followed:
            self._followed = False
            for health in self._health.values():
                health.took_over()
        for name, health in self._health.items():
            await self._tell(name, health)

    async def _tell(self, name: str, health: UpstreamHealth) -> None:
        clock = self._engine.clock
        change = health.due(clock.monotonic_s())
        if change is None:
            return
        if name not in self._events:
            # Once: whoever gets it twice must get the same bytes.
            self._events[name] = change_event(change, name, self._source, self._engine.instance, clock.now_ms())
        event = self._events[name]
        try:
            await self._engine.outputs.send(self._topic, record_key(event), event.posted, STRUCTURED_HEADERS)
        except EngineError as error:
            if not self._unsent:
                log.warning("the event about the health of %s waits for the broker: %s", name, error)
            self._unsent = True
            return
        self._unsent = False
        del self._events[name]
        health.told(clock.monotonic_s())
        if change.degraded:
            log.warning("%s is degraded: %d calls have failed: %s", name, change.calls, change.problem)
        else:
            log.info("%s is restored after %.0f s", name, change.lasted_s)
