"""One synchronisation that was asked for: what each number did for it, and the whole (contracts 5, SyncResult).

Every number counts for itself, from the moment at which it hears of the synchronisation; a pull is over for a number
when it has folded all that was pulled, a push when it has tried everything that the registry was to be told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from app.events import canonical_json

__all__ = ["MAX_NAMED", "SyncMode", "SyncPart", "SyncResult", "merge_parts"]

MAX_NAMED: Final = 200
"""Conflicts and failures that a number lists one by one."""
MAX_SIDE_BYTES: Final = 2048
MAX_FIELD_CHARS: Final = 200


class SyncMode(StrEnum):
    """Which way."""

    PUSH = "push"
    PULL = "pull"
    BOTH = "both"

    @property
    def pulls(self) -> bool:
        """Whether the registry's changes are read."""
        return self is not SyncMode.PUSH

    @property
    def pushes(self) -> bool:
        """Whether the registry is told."""
        return self is not SyncMode.PULL


@dataclass(eq=False, slots=True)
class SyncPart:
    """What one number did.

    Attributes:
        pulling: The pull is not over.
        pushing: The push is not over; it begins where the pull ends.
        conflicts: As reported on `registry.changes`, each with its dataset id.
        failed: By what failed: a dataset id, or `pull`.
        not_named: Conflicts and failures beyond those that are listed.
    """

    id: str
    mode: SyncMode
    pulling: bool = False
    pushing: bool = False
    pushed: int = 0
    pulled: int = 0
    conflicts: list[dict[str, Any]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    not_named: int = 0

    def __post_init__(self) -> None:
        self.pulling, self.pushing = self.mode.pulls, self.mode.pushes

    @property
    def done(self) -> bool:
        """Nothing is counted any more."""
        return not (self.pulling or self.pushing)

    @property
    def tells(self) -> bool:
        """Whether the registry is to be told for it now."""
        return self.pushing and not self.pulling

    def conflict(self, dataset_id: str, conflict: Mapping[str, Any]) -> None:
        """List a conflict."""
        if len(self.conflicts) < MAX_NAMED:
            self.conflicts.append({"dataset_id": dataset_id, **{side: _brief(told) for side, told in conflict.items()}})
        else:
            self.not_named += 1

    def fail(self, what: str, why: str) -> None:
        """List a failure; the last one of a thing counts."""
        if what in self.failed or len(self.failed) < MAX_NAMED:
            self.failed[what] = why
        else:
            self.not_named += 1

    def show(self, waiting: int) -> dict[str, Any]:
        """As one worker tells another.

        Args:
            waiting: Datasets that the registry is still to be told of.
        """
        return {
            "mode": self.mode.value,
            "done": self.done,
            "pushed": self.pushed,
            "pulled": self.pulled,
            "conflicts": self.conflicts,
            "failed": [{"id": what, "reason": why} for what, why in self.failed.items()],
            "not_named": self.not_named,
            "waiting": waiting,
        }


def _brief(told: Any) -> Any:
    """What a side had, or what tells it apart where that is long: the answer has many of them."""
    if not isinstance(told, dict) or len(canonical_json(told)) <= MAX_SIDE_BYTES:
        return told
    return {
        name: told[name][:MAX_FIELD_CHARS]
        for name in ("name", "version", "status", "updated_at")
        if isinstance(told.get(name), str)
    }


@dataclass(frozen=True, slots=True)
class SyncResult:
    """The whole.

    Attributes:
        state: `running`, `done`, or `failed` where the part of a number was lost with its worker.
    """

    id: str
    state: str
    parts: tuple[Mapping[str, Any], ...]

    def show(self) -> dict[str, Any]:
        """As the API shows it."""
        parts = self.parts
        # Of one thing that failed for all, such as the pull, every number has heard.
        failed = {(one["id"], one["reason"]): one for part in parts for one in part["failed"]}
        return {
            "id": self.id,
            "state": self.state,
            "mode": next((part["mode"] for part in parts), None),
            "pushed": sum(part["pushed"] for part in parts),
            "pulled": sum(part["pulled"] for part in parts),
            "conflicts": [one for part in parts for one in part["conflicts"]],
            "failed": list(failed.values()),
            "not_named": sum(part["not_named"] for part in parts),
            "waiting": sum(part["waiting"] for part in parts),
        }


def merge_parts(
    sync_id: str, parts: Mapping[int, Mapping[str, Any] | None], count: int, *, young: bool
) -> SyncResult | None:
    """The whole of a synchronisation; None if nobody knows it.

    Args:
        parts: By number; None where its owner has none of this id; absent where no owner answered.
        count: How many numbers there are.
        young: It was asked for so lately that some may not have heard of it yet.
    """
    found = tuple(part for part in parts.values() if part is not None)
    if not found and not young and len(parts) == count:
        return None
    if len(found) == count and all(part["done"] for part in found):
        state = "done"
    elif young or len(parts) < count or len(found) == count:
        state = "running"
    else:
        state = "failed"
    return SyncResult(sync_id, state, found)
