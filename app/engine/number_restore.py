"""The local copies of one number, made to say what their changelogs say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from app.engine.records import Record
from app.engine.restore import apply_records
from app.observability import metrics

if TYPE_CHECKING:
    from app.engine.agent import Agent
    from app.engine.services import Services
    from app.engine.store import Store

__all__ = ["restore_number"]

TP = tuple[str, int]


async def restore_number(services: Services, number: int) -> None:
    """Read the changelogs from where each copy stands to their ends; a copy that cannot be trusted from nothing.

    Raises:
        KafkaError, TimeoutError, OSError: The brokers do not say.
        StoreError: The disk does not.
    """
    start: dict[TP, int] = {}
    targets: dict[TP, list[tuple[Agent, int]]] = {}
    for agent in services.agents:
        for at, table in enumerate(agent.tables):
            targets.setdefault((services.changelog_topic(table.name), number), []).append((agent, at))
    ids = await services.topic_ids(sorted({topic for topic, _ in targets}))
    ends = {tp: end for tp, (_, end) in (await services.reader.bounds(list(targets))).items()}
    for agent in services.agents:
        logs = [services.changelog_topic(table.name) for table in agent.tables]
        _check(services.store(agent, number), {topic: ends[topic, number] for topic in logs}, ids)
    for (topic, partition), users in targets.items():
        start[topic, partition] = min(services.store(agent, partition).applied(topic) for agent, _ in users)

    remaining = sum(ends[tp] - at for tp, at in start.items())
    tables = {tp: agent.tables[at].name for tp, ((agent, at), *_) in targets.items()}
    at_now = dict(start)
    restoring = services.recovery.begin({tables[tp]: max(0, ends[tp] - at) for tp, at in start.items()})

    async def sink(tp: TP, records: Sequence[Record], position: int) -> None:
        nonlocal remaining
        for agent, at in targets[tp]:
            store = services.store(agent, number)
            await apply_records(store, agent.name, agent.tables[at], tp[0], records, position)
            metrics.RESTORED_ROWS.labels(table=agent.tables[at].name).inc(len(records))
        remaining -= len(records)
        metrics.RESTORE_REMAINING_ROWS.dec(len(records))
        restoring.moved(tables[tp], len(records), position - at_now[tp])
        at_now[tp] = position

    metrics.RESTORE_REMAINING_ROWS.inc(remaining)
    try:
        await services.reader.read(start, ends, sink)
    finally:
        restoring.end()
        # Control records and compacted rows were counted and never came.
        metrics.RESTORE_REMAINING_ROWS.dec(remaining)
    for agent in services.agents:
        services.store(agent, number).mark_current()


def _check(store: Store, ends: Mapping[str, int], ids: Mapping[str, str]) -> None:
    """Remove a copy that cannot be of these changelogs, and note of which ones it is from now on."""
    mine = {topic: ids[topic] for topic in ends if topic in ids}
    if store.damage:
        store.wipe("damaged", store.damage)
    if any(store.source_of(topic) not in ("", id_) for topic, id_ in mine.items()):
        store.wipe("recreated", "a changelog of it was deleted and made again")
    if any(store.applied(topic) > end for topic, end in ends.items()):
        store.wipe("ahead", "it is beyond the end of its changelog")
    store.note_sources(mine)
