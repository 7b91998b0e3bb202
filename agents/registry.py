"""Agent `registry`: folds dataset events into one row a dataset, and tells the registry what changed.

The table is the queue: only the latest state counts. A record is done when its row is merged; a push is a unit of its
own, 16 at a time for each number. A registry that does not answer is asked by one push at a time, with growing gaps; a
dataset that alone is not taken waits by itself.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from app.engine import Agent, Processor
from app.events import (
    STRUCTURED_HEADERS,
    InvalidEvent,
    canonical_json,
    decode_payload,
    decode_record,
    derived_event,
    format_time,
    parse_time_ms,
)
from app.integrations.registry import DatasetRow, acknowledged, change_kind, document, fold, is_dirty, refused
from app.integrations.upstream import Malformed, Rejected, Unavailable, backoff_s, draw_jitter
from tables.datasets import DATASETS, dataset_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.engine import Context, Record, Slice, Unit
    from app.events import CloudEvent
    from app.integrations.upstream import Answer, Upstream
    from app.topics import Topics

__all__ = ["RegistryOptions", "registry_agent"]

log = logging.getLogger("app.agents.registry")

WINDOW: Final = 16
LOOK_AHEAD: Final = 256
_CONFLICT: Final = 409
_GONE: Final = 404
# An id goes into a row and a record, which have limits of their own; whoever answers with more has none.
_MAX_ID_CHARS: Final = 512


@dataclass(frozen=True, slots=True)
class RegistryOptions:
    """Where datasets are pushed.

    Attributes:
        path_datasets: Of the upsert.
        path_dataset: Of the deletion; `{id}` is the dataset id, percent-encoded.
    """

    path_datasets: str = "/api/v1/datasets"
    path_dataset: str = "/api/v1/datasets/{id}"


def registry_agent(
    topics: Topics,
    registry: Upstream | None,
    options: RegistryOptions | None = None,
    *,
    jitter: Callable[[], float] = draw_jitter,
) -> Agent:
    """The agent.

    Args:
        topics: Their names.
        registry: None without an endpoint, or where nothing is pushed: then it folds, and pushes once there is one.
        options: The routes; the defaults of the settings.
        jitter: 0 to 1, for back-offs.
    """
    chosen = options or RegistryOptions()

    def processor(context: Context) -> Processor:
        return _Registry(context, topics, _Push(registry, chosen) if registry else None, jitter)

    return Agent(
        name="registry", topics=(topics.registry_datasets,), processor=processor, home=DATASETS, tables=(DATASETS,)
    )


@dataclass(frozen=True, slots=True)
class _Pushed:
    """The registry has it.

    Attributes:
        registration_id: Its name for the dataset; None after a deletion.
    """

    registration_id: str | None


@dataclass(frozen=True, slots=True)
class _Refused:
    """The registry will not take it.

    Attributes:
        other_id: What it holds in its place, if that is why.
    """

    status: int
    other_id: str | None = None


class _Push:
    """One dataset's way over the wire (contracts 5)."""

    def __init__(self, registry: Upstream, options: RegistryOptions) -> None:
        self._registry = registry
        self._options = options

    async def __call__(self, row: DatasetRow) -> _Pushed | _Refused:
        """Tell the registry; a repeat of one state has one idempotency key.

        Raises:
            Unavailable: Later, perhaps.
        """
        headers = {"Idempotency-Key": f"{quote(row.id, safe='')}:{row.version}"}
        told = document(row)
        try:
            if told is None:
                path = self._options.path_dataset.replace("{id}", quote(row.id, safe=""))
                await self._registry.send("DELETE", path, headers=headers, accept={_GONE})
                return _Pushed(None)
            answer = await self._registry.send(
                "POST", self._options.path_datasets, canonical_json(told), headers=headers, accept={_CONFLICT}
            )
        except Rejected as error:
            return _Refused(error.status or 0)
        found = _id_in(answer)
        if answer.status == _CONFLICT and (found is None or found not in {row.id, row.registration_id}):
            return _Refused(_CONFLICT, found)
        return _Pushed(found or row.registration_id or row.id)


def _id_in(answer: Answer) -> str | None:
    """The registration id in an answer; the status alone says that the dataset is registered."""
    try:
        body = answer.json()
    except Malformed:
        return None
    found = body.get("id") if isinstance(body, dict) else None
    return found if isinstance(found, str) and 0 < len(found) <= _MAX_ID_CHARS else None


class _Registry(Processor):
    def __init__(self, context: Context, topics: Topics, push: _Push | None, jitter: Callable[[], float]) -> None:
        super().__init__(context)
        self._topics = topics
        self._push = push
        self._jitter = jitter
        self._running: set[bytes] = set()
        self._found: deque[bytes] = deque()
        # Whether the index may hold dirty rows beside those found, running and delayed.
        self._look = True
        self._attempts: dict[bytes, int] = {}
        self._delayed: dict[bytes, float] = {}
        self._failures = 0
        self._not_before_s = 0.0
        self._draining = False

    async def opened(self, unit: Unit) -> None:  # noqa: ARG002  (the tick reads what is dirty)
        self._wake()

    async def process(self, slice_: Slice, unit: Unit) -> None:
        rows: dict[bytes, DatasetRow] = {}
        for record in slice_.records:
            try:
                event = _read(record)
            except InvalidEvent as error:
                unit.quarantine(record, error.reason, error.detail)
                continue
            key = dataset_key(event.data["dataset_id"])
            row = rows[key] if key in rows else unit.get(DATASETS, key)
            rows[key] = fold(row, event, _time_ms(event, record))
        for key, row in rows.items():
            unit.put(DATASETS, key, row)
        if rows:
            self._look = True
            self._wake()

    async def tick(self, unit: Unit) -> None:
        """Start pushes of dirty rows, as many as may be under way."""
        if self._push is None or self._draining:
            return
        now_s = self.context.clock.monotonic_s()
        if now_s < self._not_before_s:
            self.context.tick_at(self._not_before_s)
            return
        for key in [key for key, due_s in self._delayed.items() if due_s <= now_s]:
            del self._delayed[key]
            self._found.append(key)
        free = (1 if self._failures else WINDOW) - len(self._running)
        while free > 0 and (found := self._next(unit)) is not None:
            self._running.add(found[0])
            self.context.spawn(self._tell(self._push, *found))
            free -= 1
        if self._delayed:
            self.context.tick_at(min(self._delayed.values()))

    def _next(self, unit: Unit) -> tuple[bytes, DatasetRow] | None:
        """A dirty row of which no push is under way or delayed."""
        while self._found or self._look:
            if not self._found:
                self._find(unit)
                continue
            key = self._found.popleft()
            if key in self._running or key in self._delayed:
                continue
            row = unit.get(DATASETS, key)
            if row is not None and is_dirty(row):
                return key, row
            self._attempts.pop(key, None)
        return None

    def _find(self, unit: Unit) -> None:
        """Ask the index, as rarely as can be: each time it walks over the tombstones of all that was pushed."""
        limit = LOOK_AHEAD + len(self._running) + len(self._delayed)
        dirty = unit.scan_index(DATASETS, limit=limit)
        self._look = len(dirty) == limit
        self._found.extend(dirty)

    def begin_drain(self) -> None:
        self._draining = True

    def busy(self) -> bool:
        return bool(self._running)

    def _wake(self) -> None:
        if self._push is not None:
            self.context.tick_now()

    async def _tell(self, push: _Push, key: bytes, row: DatasetRow) -> None:
        try:
            await self.context.until_may_act()
            try:
                outcome = await push(row)
            except Unavailable as error:
                self._back_off(key, error)
                return
            if isinstance(outcome, _Refused):
                log.warning("the registry answered %s to a dataset, which waits for its next change", outcome.status)
            if await self.context.submit(lambda unit: self._acknowledge(unit, key, row, outcome)):
                self._found.append(key)
            self._failures = 0
            self._attempts.pop(key, None)
        finally:
            self._running.discard(key)
            self._wake()

    def _back_off(self, key: bytes, error: Unavailable) -> None:
        now_s = self.context.clock.monotonic_s()
        attempts = self._attempts[key] = self._attempts.get(key, 0) + 1
        self._delayed[key] = now_s + backoff_s(attempts, self._jitter(), error.retry_after_s)
        if now_s < self._not_before_s:
            return  # It was under way together with one that has already told us.
        self._failures += 1
        wait_s = backoff_s(self._failures, self._jitter(), error.retry_after_s)
        self._not_before_s = now_s + wait_s
        log.warning("pushes to the registry wait %.1f s: %s", wait_s, error)

    def _acknowledge(self, unit: Unit, key: bytes, pushed: DatasetRow, outcome: _Pushed | _Refused) -> bool:
        """Write what the registry said of a state; whether the dataset has gone on meanwhile."""
        row = unit.get(DATASETS, key)
        if row is None:
            return False
        data: dict[str, Any] = {"dataset_id": row.id}
        if isinstance(outcome, _Refused):
            after, kind = refused(row, pushed), "conflict"
            data["conflict"] = {"vault": row.id, "registry": outcome.other_id, "winner": "registry"}
        else:
            after, kind = acknowledged(row, pushed, outcome.registration_id), change_kind(row, pushed)
            if outcome.registration_id is not None:
                data["registration_id"] = outcome.registration_id
            if "version" in pushed.fields:
                data["version"] = pushed.fields["version"]
        unit.put(DATASETS, key, after)
        if not isinstance(outcome, _Refused) or outcome.status == _CONFLICT:
            self._send_change(unit, f"{row.id}-{pushed.version}-{kind}", kind, data)
        return is_dirty(after)

    def _send_change(self, unit: Unit, id_: str, kind: str, data: dict[str, Any]) -> None:
        dataset_id = data["dataset_id"]
        value = derived_event(
            f"registry.{kind}",
            id_=id_,
            source=f"/vault-stream/{self._topics.app_id}",
            subject=dataset_id,
            time=format_time(self.context.clock.now_ms()),
            data=canonical_json(data),
        )
        unit.send(self._topics.registry_changes, dataset_id.encode(), value, STRUCTURED_HEADERS)


def _read(record: Record) -> CloudEvent:
    """The dataset event in a record.

    Raises:
        InvalidEvent: It is none.
    """
    event = decode_record(record.value, record.headers)
    decode_payload(event)
    if "dataset_id" not in event.data:
        raise InvalidEvent("invalid_data", "data.dataset_id is missing: the event is of no dataset")
    return event


def _time_ms(event: CloudEvent, record: Record) -> int:
    """The event's time, else its vault record's, which travels in a header, else this record's."""
    if event.time is not None:
        return parse_time_ms(event.time)
    stated = next((value for name, value in record.headers if name == "vs-timestamp"), b"")
    return int(stated) if stated and stated.isdigit() else record.timestamp
