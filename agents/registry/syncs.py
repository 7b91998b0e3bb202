"""The synchronisations that a number has heard of: what it did for each (contracts 9.5, Sync)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from app.integrations.registry_sync import SyncMode, SyncPart

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

__all__ = ["Syncs"]

REMEMBERED: Final = 20


class Syncs:
    """In memory: they are lost with the worker, and can be asked for again."""

    def __init__(self) -> None:
        self._parts: dict[str, SyncPart] = {}

    def begin(self, sync_id: str, mode: SyncMode) -> None:
        """One was asked for; heard twice, it begins once."""
        if sync_id in self._parts:
            return
        self._parts[sync_id] = SyncPart(sync_id, mode)
        ended = [part.id for part in self._parts.values() if part.done]
        for oldest in ended[: max(0, len(self._parts) - REMEMBERED)]:
            del self._parts[oldest]

    def get(self, sync_id: str) -> SyncPart | None:
        """The part of one."""
        return self._parts.get(sync_id)

    def ids(self) -> list[str]:
        """Of those that are remembered."""
        return list(self._parts)

    def pull_over(self, sync_id: str, error: str | None) -> None:
        """All that was pulled for it is folded."""
        part = self._parts.get(sync_id)
        if part is not None and part.pulling:
            part.pulling = False
            if error is not None:
                part.fail("pull", error)

    def push_over(self, error: str | None) -> None:
        """Everything that the registry is to be told was tried."""
        for part in self._open():
            if part.tells:
                part.pushing = False
                if error is not None:
                    part.fail("push", error)

    @property
    def telling(self) -> bool:
        """Whether somebody waits for pushes."""
        return any(part.tells for part in self._open())

    def pushed(self, dataset_id: str) -> None:
        """The registry has a state that it had not."""
        for part in self._open():
            if part.pushing:
                part.pushed += 1
                part.failed.pop(dataset_id, None)

    def pulled(self) -> None:
        """A state of the registry was taken over."""
        for part in self._open():
            part.pulled += part.pulling

    def failed(self, what: str, why: str) -> None:
        """Something was not taken."""
        for part in self._open():
            part.fail(what, why)

    def conflict(self, dataset_id: str, conflict: Mapping[str, Any]) -> None:
        """Both sides had changed."""
        for part in self._open():
            part.conflict(dataset_id, conflict)

    def _open(self) -> Iterator[SyncPart]:
        return (part for part in self._parts.values() if not part.done)
