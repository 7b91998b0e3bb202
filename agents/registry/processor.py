"""One number of the registry agent: folds its slices, pushes its datasets; number 0 also pulls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from agents.registry.calls import RegistryCalls, RegistryPaths
from agents.registry.gate import Gate, OpenGate
from agents.registry.outcomes import Outcomes
from agents.registry.pulling import Puller
from agents.registry.pushing import LOOK_AHEAD, Pusher
from agents.registry.syncs import Syncs
from app.engine import Agent, Processor
from app.events import (
    STRUCTURED_HEADERS,
    InvalidEvent,
    decode_payload,
    decode_record,
    format_time,
    parse_time_ms,
    traceparent_of,
)
from app.integrations.registry import DELETED, DatasetRow, document, fold, is_clean, status_of
from app.integrations.registry_links import ask_link, is_waiting
from app.integrations.registry_messages import (
    LINK_ASKED,
    PASS_OVER,
    PASS_WANTED,
    PULLED,
    SYNC_ASKED,
    SYNC_BEGUN,
    SYNC_PULLED,
    check_message,
    is_message,
    key_of_number,
    sync_message,
)
from app.integrations.registry_pull import PullOutcome, conflict_of, fold_pulled, is_overruled, pulled_of
from app.integrations.registry_sync import SyncMode
from app.integrations.upstream import draw_jitter
from tables.datasets import DATASETS, DatasetReaders, dataset_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.engine import Context, Record, Slice, Unit
    from app.events import CloudEvent
    from app.integrations.upstream import Upstream
    from app.topics import Topics

__all__ = ["RegistryOptions", "registry_agent"]


@dataclass(frozen=True, slots=True)
class RegistryOptions:
    """How datasets are kept in step.

    Attributes:
        mode: What is done without being asked; pushes at once, pulls by the timer.
        interval_s: Of the pulls.
        numbers: How many there are.
    """

    paths: RegistryPaths = field(default_factory=RegistryPaths)
    mode: SyncMode = SyncMode.PUSH
    interval_s: float = 60.0
    numbers: int = 1


def registry_agent(
    topics: Topics,
    registry: Upstream | None,
    options: RegistryOptions | None = None,
    *,
    readers: DatasetReaders | None = None,
    jitter: Callable[[], float] = draw_jitter,
) -> Agent:
    """The agent.

    Args:
        topics: Their names.
        registry: None without an endpoint: then it folds, and pushes once there is one.
        options: The defaults of the settings.
        readers: Where the API finds the numbers that are open.
        jitter: 0 to 1, for back-offs.
    """
    chosen, known = options or RegistryOptions(), readers or DatasetReaders()

    def processor(context: Context) -> Processor:
        return _Registry(context, topics, registry, chosen, known, jitter)

    return Agent(
        name="registry", topics=(topics.registry_datasets,), processor=processor, home=DATASETS, tables=(DATASETS,)
    )


class _Registry(Processor):
    def __init__(
        self,
        context: Context,
        topics: Topics,
        registry: Upstream | None,
        options: RegistryOptions,
        readers: DatasetReaders,
        jitter: Callable[[], float],
    ) -> None:
        super().__init__(context)
        self._topics = topics
        self._options = options
        self._readers = readers
        self._syncs = Syncs()
        self._outcomes = Outcomes(context, topics, self._syncs)
        self._pusher: Pusher | None = None
        self._puller: Puller | None = None
        self._gate = OpenGate()
        if registry is None:
            return
        calls = RegistryCalls(registry, options.paths)
        # Whoever only pushes has the last word anyway.
        self._gate = Gate(context, topics, options.numbers) if options.mode is SyncMode.BOTH else OpenGate()
        self._pusher = Pusher(context, calls, self._outcomes, self._gate, jitter, self._pushes)
        if context.number == 0:
            interval_s = options.interval_s if options.mode.pulls else None
            self._puller = Puller(
                context, calls, topics, self._syncs, jitter, interval_s=interval_s, numbers=options.numbers
            )

    def _pushes(self) -> bool:
        return self._options.mode.pushes or self._syncs.telling

    async def opened(self, unit: Unit) -> None:  # noqa: ARG002  (the tick reads what is dirty)
        self._readers.opened(self.context.number, self)
        self.context.tick_now()

    async def closed(self) -> None:
        self._readers.closed(self.context.number, self)

    def begin_drain(self) -> None:
        for part in (self._pusher, self._puller):
            if part is not None:
                part.drain()

    def busy(self) -> bool:
        return any(part is not None and part.busy for part in (self._pusher, self._puller))

    async def tick(self, unit: Unit) -> None:
        """Begin what is due."""
        if self._pusher is not None:
            self._pusher.tick(unit)
            if self._syncs.telling and (self._pusher.idle or self._pusher.silent):
                self._syncs.push_over(None if self._pusher.idle else "the registry does not answer")
        if self._puller is not None:
            self._puller.tick()

    # -- slices

    async def process(self, slice_: Slice, unit: Unit) -> None:
        rows: dict[bytes, DatasetRow | None] = {}
        changed: set[bytes] = set()
        for record in slice_.records:
            try:
                event = _read(record, self._options.numbers)
            except InvalidEvent as error:
                unit.quarantine(record, error.reason, error.detail)
                continue
            if is_message(event) and event.type not in {PULLED, LINK_ASKED}:
                self._hear(unit, event)
                continue
            key = dataset_key(event.data["dataset_id"])
            row = rows[key] if key in rows else unit.get(DATASETS, key)
            rows[key] = self._fold(unit, row, event, record)
            if event.type != PULLED:
                changed.add(key)
        for key, row in rows.items():
            if row is not None:
                unit.put(DATASETS, key, row)
        if rows and self._pusher is not None:
            unit.on_done(lambda: self._look_at([key for key, row in rows.items() if key in changed and _waits(row)]))

    def _look_at(self, changed: list[bytes]) -> None:
        """Push what the vault has changed, in its turn."""
        for key in changed:
            self._gate.changed(key)
        if self._pusher is not None:
            self._pusher.look()

    def _fold(self, unit: Unit, row: DatasetRow | None, event: CloudEvent, record: Record) -> DatasetRow | None:
        time_ms = _time_ms(event, record)
        if event.type == PULLED:
            return self._fold_pulled(unit, row, event)
        if event.type == LINK_ASKED:
            return ask_link(row, event, time_ms)
        after = fold(row, event, time_ms)
        if row is not None and after is not row and is_overruled(row, event, time_ms):
            after = self._overruled(unit, after, event, time_ms)
        if row is None or after.version != row.version:
            trace = _kept_trace(event, record)
            if trace != after.traceparent:
                after = msgspec.structs.replace(after, traceparent=trace)
        return after

    def _overruled(self, unit: Unit, row: DatasetRow, event: CloudEvent, time_ms: int) -> DatasetRow:
        """The vault's change came after the registry's in our log, and is the older one."""
        version = row.version + 1
        after = msgspec.structs.replace(row, version=version, pushed=version if is_clean(row) else row.pushed)
        ours = {"event_type": event.type, "event_id": event.id, "updated_at": format_time(time_ms)}
        theirs = {"status": status_of(row), **(document(row) or {}), "updated_at": format_time(row.adopted_ms)}
        self._outcomes.conflict(unit, row.id, version, {"vault": ours, "registry": theirs, "winner": "registry"})
        return after

    def _fold_pulled(self, unit: Unit, row: DatasetRow | None, event: CloudEvent) -> DatasetRow | None:
        pulled = pulled_of(event.data)
        before = row or DatasetRow(id=pulled.id)
        after, outcome = fold_pulled(row, pulled)
        if outcome in {PullOutcome.VAULT_WON, PullOutcome.REGISTRY_WON}:
            self._outcomes.conflict(unit, after.id, after.version, conflict_of(before, pulled, outcome))
        taken_over = outcome in {PullOutcome.ADOPTED, PullOutcome.REGISTRY_WON}
        if taken_over:
            unit.on_done(self._syncs.pulled)
        # Also where the answer to a push was lost, and this is the answer.
        told = is_clean(after) and not is_clean(before)
        # Of what was deleted before anybody here has heard of it there is nothing to tell.
        if told or (taken_over and (before.version or status_of(after) != DELETED)):
            self._outcomes.change(unit, _kind(before, after), after, after.registration_id)
        return after if after is not before else row

    def _hear(self, unit: Unit, event: CloudEvent) -> None:
        """Of a synchronisation; in memory only, once the unit is real."""
        data: dict[str, Any] = event.data
        if event.type in {PASS_WANTED, PASS_OVER}:
            self._hear_of_pass(unit, event.type, int(data["number"]), str(data["token"]))
            return
        sync_id, mode = data["sync_id"], SyncMode(data["mode"])
        if event.type == SYNC_ASKED:
            value = sync_message(SYNC_BEGUN, sync_id, mode, event.source, self.context.clock.now_ms())
            for number in range(self._options.numbers):
                key = key_of_number(number, self._options.numbers)
                unit.send(self._topics.registry_datasets, key, value, STRUCTURED_HEADERS)
            # Where pushes wait for a pull, those that are asked for do, too.
            if self._puller is not None and (mode.pulls or self._options.mode is SyncMode.BOTH):
                puller = self._puller
                unit.on_done(lambda: puller.ask(sync_id, mode))
        elif event.type == SYNC_BEGUN:
            unit.on_done(lambda: self._begin(sync_id, mode))
        elif event.type == SYNC_PULLED:
            unit.on_done(lambda: self._pull_over(sync_id, data.get("error")))

    def _hear_of_pass(self, unit: Unit, type_: str, number: int, token: str) -> None:
        if type_ == PASS_OVER:
            unit.on_done(lambda: self._pass_over(token))
        elif self._puller is not None:
            puller = self._puller
            unit.on_done(lambda: puller.want(number, token))

    def _pass_over(self, token: str) -> None:
        if self._gate.over(token) and self._pusher is not None:
            self._pusher.look()

    def _begin(self, sync_id: str, mode: SyncMode) -> None:
        self._syncs.begin(sync_id, mode)
        if self._pusher is not None and mode.pushes:
            self._pusher.retry_now()

    def _pull_over(self, sync_id: str, error: str | None) -> None:
        self._syncs.pull_over(sync_id, error)
        if error is not None and self._gate.closed:
            self._syncs.push_over(error)
        if self._pusher is not None:
            self._pusher.look()

    # -- what the API reads

    async def dataset(self, dataset_id: str) -> DatasetRow | None:
        """See `DatasetReader.dataset`."""
        return await self.context.submit(lambda unit: unit.get(DATASETS, dataset_key(dataset_id)))

    async def sync(self, sync_id: str) -> dict[str, Any] | None:
        """See `DatasetReader.sync`."""

        def job(unit: Unit) -> dict[str, Any] | None:
            part = self._syncs.get(sync_id)
            return None if part is None else part.show(len(unit.scan_index(DATASETS, limit=LOOK_AHEAD)))

        return await self.context.submit(job)

    async def syncs(self) -> tuple[list[str], int]:
        """See `DatasetReader.syncs`."""

        def job(unit: Unit) -> tuple[list[str], int]:
            return self._syncs.ids(), len(unit.scan_index(DATASETS, limit=LOOK_AHEAD))

        return await self.context.submit(job)


def _waits(row: DatasetRow | None) -> bool:
    return row is not None and is_waiting(row)


def _kept_trace(event: CloudEvent, record: Record) -> str | None:
    """The context that a push follows from: of many events that one push tells of, the last; none in vain."""
    trace = traceparent_of(record.headers, event.extensions)
    return trace if trace is not None and int(trace[-1], 16) & 1 else None


def _kind(before: DatasetRow, after: DatasetRow) -> str:
    if status_of(after) == DELETED:
        return "deleted"
    return "registered" if before.registration_id is None else "updated"


def _read(record: Record, numbers: int) -> CloudEvent:
    """The dataset event, or the message, in a record.

    Args:
        numbers: How many there are.

    Raises:
        InvalidEvent: It is neither.
    """
    event = decode_record(record.value, record.headers)
    if is_message(event):
        check_message(event, numbers)
        return event
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
