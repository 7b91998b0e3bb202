"""Part: what receivers that are out of order cost the others, at the same load. A: all are well; B: some are not."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from app.devstack.kafka import free_port
from benchmarks.bench import Bench, BenchmarkFailed, say
from benchmarks.deliver import most
from benchmarks.deliveries_stage import Publisher, ReceiverProcess, Stage
from benchmarks.post_receiver import HANG_S

__all__ = ["over_ms", "run"]

ROUNDS: Final = 3
WARM_UP_S: Final = 5.0
# What a p99 may be beside receivers that are out of order: the larger of these.
P99_RATIO: Final = 1.5
P99_MORE_MS: Final = 15.0
ABOVE_S: Final = HANG_S + 5
BELOW_S: Final = 5.0
RECEIVERS: Final = 100
DEAD: Final = 30
HEALTHY: Final = "ok"


@dataclass(frozen=True, slots=True)
class _Target:
    """One webhook: where it leads, and which events it gets."""

    url: str
    strategy: str
    timeout_s: float | None = None


def run(bench: Bench) -> dict[str, float]:
    """Rates and lateness of the healthy ones, B against A."""
    return asyncio.run(_run(bench))


def over_ms(well_ms: float, beside_ms: float) -> float:
    """By how much a p99 is above what it may be; below 0: it is within it."""
    return beside_ms - max(P99_RATIO * well_ms, well_ms + P99_MORE_MS)


async def _run(bench: Bench) -> dict[str, float]:
    figures: dict[str, float] = {}
    with ReceiverProcess() as receiver:
        per_s, _ = await most(bench, receiver)
        load_per_s = per_s / 2
        figures["isolation_load_per_s"] = round(load_per_s)
        well = f"{receiver.url}/{HEALTHY}"
        for percent in (5, 50):
            strategies = _spread(percent)
            two = [_Target(well, "a"), _Target(f"{receiver.url}/other/ok", "b")]
            beside = {
                name: [_Target(well, "a"), _Target(f"{receiver.url}/hang", "b", timeout_s)]
                for name, timeout_s in (("above", ABOVE_S), ("below", BELOW_S))
            }
            figures |= await _compare(bench, receiver, f"hang_{percent}", load_per_s, strategies, two, beside)
        names = [f"r{number}" for number in range(RECEIVERS)]
        dead = _dead(receiver.url)
        figures |= await _compare(
            bench,
            receiver,
            "dead",
            load_per_s,
            names,
            [_Target(well if at >= DEAD else f"{receiver.url}/other/ok", name) for at, name in enumerate(names)],
            {"30": [_Target(dead[at % len(dead)] if at < DEAD else well, name) for at, name in enumerate(names)]},
        )
    return figures


async def _compare(
    bench: Bench,
    receiver: ReceiverProcess,
    name: str,
    load_per_s: float,
    strategies: Sequence[str],
    well: Sequence[_Target],
    beside: dict[str, list[_Target]],
) -> dict[str, float]:
    ratios: dict[str, list[float]] = {kind: [] for kind in beside}
    overs: dict[str, list[float]] = {kind: [] for kind in beside}
    for _ in range(ROUNDS):
        rate, p99_ms = await _healthy(bench, receiver, load_per_s, strategies, well)
        say(f"  {name}: all well: {rate:,.0f}/s, p99 {p99_ms} ms")
        for kind, targets in beside.items():
            rate_beside, p99_beside_ms = await _healthy(bench, receiver, load_per_s, strategies, targets)
            say(f"  {name}, {kind}: {rate_beside:,.0f}/s, p99 {p99_beside_ms} ms")
            ratios[kind].append(rate_beside / rate)
            overs[kind].append(over_ms(p99_ms, p99_beside_ms))
    found: dict[str, float] = {}
    for kind in beside:
        found[f"{name}_{kind}_rate_ratio"] = round(median(ratios[kind]), 2)
        found[f"{name}_{kind}_p99_over_ms"] = round(median(overs[kind]), 1)
    return found


async def _healthy(
    bench: Bench, receiver: ReceiverProcess, load_per_s: float, strategies: Sequence[str], targets: Sequence[_Target]
) -> tuple[float, float]:
    """Deliveries a second to the healthy ones, and their p99 from the event's time to the POST."""
    async with Stage(bench) as stage:
        for one in targets:
            more = {} if one.timeout_s is None else {"timeout_s": one.timeout_s}
            await stage.webhook(one.url, filter={"data": {"strategy": [one.strategy]}}, **more)
        with Publisher(bench.brokers, stage.prefix, load_per_s, strategies):
            await asyncio.sleep(WARM_UP_S)
            await receiver.taken()
            began_s = asyncio.get_running_loop().time()
            await asyncio.sleep(bench.seconds)
            taken = (await receiver.taken()).get(f"/{HEALTHY}")
            elapsed_s = asyncio.get_running_loop().time() - began_s
    if taken is None:
        raise BenchmarkFailed("the healthy receivers got nothing")
    return taken["count"] / elapsed_s, taken["p99_ms"]


def _spread(percent: int) -> list[str]:
    """`b` so often in a hundred, evenly."""
    return ["b" if (at * percent) % 100 < percent else "a" for at in range(100)]


def _dead(url: str) -> list[str]:
    return [f"http://127.0.0.1:{free_port()}/refuse", *(f"{url}/{kind}" for kind in ("hang", "reset", "drip", "500"))]
