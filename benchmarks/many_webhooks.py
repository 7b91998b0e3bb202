"""Part: ten thousand webhooks: what matching costs with them, and what they cost a worker in memory."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from app.events import CloudEvent, VaultEventType, decode_record
from app.webhooks.matching import MatchIndex
from app.webhooks.model import WebhookFilter
from benchmarks.bench import Bench, say
from benchmarks.deliveries_stage import Stage

__all__ = ["run"]

MATCHING: Final = 10
WEBHOOKS: Final = 10_000
AT_ONCE: Final = 64
LOOPS: Final = 30
EVENTS_A_LOOP: Final = 1_000
SETTLE_S: Final = 5.0
Subscription = tuple[list[str], WebhookFilter | None]

# What the others want, who do not match.
OTHERS: Final[Mapping[str, Callable[[int], Subscription]]] = {
    "other types": lambda _: (["version.*", "dataset.deleted"], None),
    "other datasets": lambda n: (["dataset.*"], WebhookFilter(dataset_id=(f"ds-{n}",))),
    "one tenant, other datasets": lambda n: (["*"], WebhookFilter(tenant_id=("all",), dataset_id=(f"ds-{n}",))),
    "one dataset, other kinds": lambda n: (
        ["dataset.*"],
        WebhookFilter(dataset_id=("mine",), data={"kind": (f"kind-{n}",)}),
    ),
}


def run(bench: Bench) -> dict[str, float]:
    """The ratio of matching, and megabytes."""
    return {"many_match_ratio": round(_worst_ratio(), 3), **asyncio.run(_memory(bench))}


def _worst_ratio() -> float:
    event = _event()
    ratios = []
    for name, other in OTHERS.items():
        few, many = _index(MATCHING, other), _index(WEBHOOKS, other)
        # In turn, so that a neighbour on the machine hurts both.
        best = {id(few): float("inf"), id(many): float("inf")}
        for _ in range(LOOPS):
            for index in (few, many):
                best[id(index)] = min(best[id(index)], _loop_s(index, event))
        ratios.append(best[id(many)] / best[id(few)])
        say(f"  {name}: {best[id(few)] / EVENTS_A_LOOP * 1e6:.2f} us, with {WEBHOOKS:,}: x {ratios[-1]:.2f}")
    return max(ratios)


def _event() -> CloudEvent:
    data = {"dataset_id": "mine", "name": "x", "tenant_id": "all", "kind": "this", "tags": ["a"] * 5}
    fields: dict[str, Any] = {
        "specversion": "1.0",
        "id": "e1",
        "source": "/vault",
        "type": str(VaultEventType.DATASET_CREATED),
        "subject": "mine",
        "tenantid": "all",
        "data": data,
    }
    return decode_record(json.dumps(fields).encode(), [])


def _index(count: int, other: Callable[[int], Subscription]) -> MatchIndex:
    index = MatchIndex()
    for number in range(count):
        patterns, only = (["dataset.*"], WebhookFilter(dataset_id=("mine",))) if number < MATCHING else other(number)
        index.set(f"wh_{number}", patterns, only)
    return index


def _loop_s(index: MatchIndex, event: CloudEvent) -> float:
    began_s = time.perf_counter()
    for _ in range(EVENTS_A_LOOP):
        index.match(event)
    return time.perf_counter() - began_s


async def _memory(bench: Bench) -> dict[str, float]:
    """Of a worker that was started again, so that what making them cost is not in it."""
    async with Stage(bench) as stage:
        await _make(stage, MATCHING)
        few_mb = await _started_again_mb(stage)
        await _make(stage, WEBHOOKS - MATCHING)
        many_mb = await _started_again_mb(stage)
    say(f"  {few_mb:.0f} MB, with {WEBHOOKS:,} webhooks {many_mb:.0f} MB")
    return {"many_webhooks_mb": round(many_mb - few_mb, 1)}


async def _make(stage: Stage, count: int) -> None:
    numbers = iter(range(count))

    async def some() -> None:
        for number in numbers:
            headers = {"Authorization": f"Bearer token-{number}"}
            only = {"dataset_id": [f"ds-{number}"]}
            await stage.webhook("http://127.0.0.1:9/hook", ("dataset.*", "version.*"), headers=headers, filter=only)

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))


async def _started_again_mb(stage: Stage) -> float:
    await stage.worker.kill()
    await stage.worker.start()
    await stage.until_ready()
    await asyncio.sleep(SETTLE_S)
    return stage.rss_mb()
