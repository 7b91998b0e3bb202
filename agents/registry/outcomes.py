"""Writes down what the registry said, tells others, and counts it for whoever asked for a synchronisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from agents.registry.calls import CONFLICT, Pushed, Refused
from app.events import STRUCTURED_HEADERS, canonical_json, derived_event, format_time
from app.integrations.registry import acknowledged, change_kind, refused
from app.integrations.registry_links import is_waiting, linked
from tables.datasets import DATASETS

if TYPE_CHECKING:
    from agents.registry.syncs import Syncs
    from app.engine import Context, Unit
    from app.integrations.registry import DatasetRow, Link
    from app.topics import Topics

__all__ = ["Outcomes"]


class Outcomes:
    """Of one number."""

    def __init__(self, context: Context, topics: Topics, syncs: Syncs) -> None:
        self._context = context
        self._topics = topics
        self._syncs = syncs

    def failed(self, dataset_id: str, why: str) -> None:
        """A push was not taken."""
        self._syncs.failed(dataset_id, why)

    def pushed(self, unit: Unit, key: bytes, told: DatasetRow, outcome: Pushed | Refused) -> bool:
        """Write what the registry said of a state; whether the dataset has gone on meanwhile."""
        row = unit.get(DATASETS, key)
        if row is None:
            return False
        if isinstance(outcome, Refused):
            after = refused(row, told)
            if outcome.status == CONFLICT:
                self.conflict(
                    unit, row.id, told.version, {"vault": row.id, "registry": outcome.other_id, "winner": "registry"}
                )
        else:
            after = acknowledged(row, told, outcome.registration_id, self._context.clock.now_ms())
            self.change(unit, change_kind(row, told), told, outcome.registration_id)
            unit.on_done(lambda: self._syncs.pushed(row.id))
        unit.put(DATASETS, key, after)
        return is_waiting(after)

    def linked(self, unit: Unit, key: bytes, link: Link, outcome: Pushed | Refused) -> bool:
        """Write what the registry said of a link; whether there is more to say of the dataset."""
        row = unit.get(DATASETS, key)
        if row is None or link not in row.links:
            return row is not None and is_waiting(row)
        after = linked(row, link, refused=isinstance(outcome, Refused))
        if isinstance(outcome, Pushed):
            more = {"model_id": link.model_id, "relationship": link.relationship}
            told = msgspec.structs.replace(after, version=link.version)
            self.change(unit, "linked", told, after.registration_id, **more)
            unit.on_done(lambda: self._syncs.pushed(row.id))
        unit.put(DATASETS, key, after)
        return is_waiting(after)

    def change(self, unit: Unit, kind: str, row: DatasetRow, registration_id: str | None, **more: Any) -> None:
        """Tell others what became of a dataset (contracts 9.1)."""
        data: dict[str, Any] = {"dataset_id": row.id, **more}
        if registration_id is not None:
            data["registration_id"] = registration_id
        if "version" in row.fields:
            data["version"] = row.fields["version"]
        self._send(unit, kind, row.version, data, row.traceparent)

    def conflict(self, unit: Unit, dataset_id: str, version: int, conflict: dict[str, Any]) -> None:
        """Tell others of a conflict, and whoever waits for a synchronisation."""
        self._send(unit, "conflict", version, {"dataset_id": dataset_id, "conflict": conflict})
        unit.on_done(lambda: self._syncs.conflict(dataset_id, conflict))

    def _send(self, unit: Unit, kind: str, version: int, data: dict[str, Any], trace: str | None = None) -> None:
        dataset_id = data["dataset_id"]
        value = derived_event(
            f"registry.{kind}",
            id_=f"{dataset_id}-{version}-{kind}",
            source=f"/vault-stream/{self._topics.app_id}",
            subject=dataset_id,
            time=format_time(self._context.clock.now_ms()),
            data=canonical_json(data),
        )
        hop = () if trace is None else (("traceparent", trace.encode()),)
        unit.send(self._topics.registry_changes, dataset_id.encode(), value, (*STRUCTURED_HEADERS, *hop))
