"""The contenders in turn, round after round, and what their rates are to each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from confluent_kafka import Consumer, TopicPartition

from app.topics import Topics
from benchmarks.bench import Bench, BenchmarkFailed, say
from benchmarks.contender import Measured
from benchmarks.records import PARTITIONS, PREFIX
from benchmarks.route_four import WEBHOOKS_EACH

__all__ = ["CONTENDERS", "Ratio", "figures_of", "ratios_of", "run_rounds"]

CONTENDERS: Final = ("bare", "consume", "stock_faust", "route", "route_four", "row", "stock_faust_table", "decode")
# Stock Faust's assignor may leave a lone member without a partition; ours must work the first time.
TRIES: Final = {"stock_faust": 3, "stock_faust_table": 3}
# Records in a topic for each event that the contender claims.
OUTPUTS: Final = {
    "route": {"deliveries": 1, "audit": 1},
    "route_four": {"deliveries": WEBHOOKS_EACH, "audit": 1},
}

Round = Mapping[str, Measured]


@dataclass(frozen=True, slots=True)
class Ratio:
    """The events a second of one contender over those of another, in the same round."""

    name: str
    of: str
    over: str


RATIOS: Final = (
    Ratio("consume_ratio_bare", "consume", "bare"),
    Ratio("route_ratio_bare", "route", "bare"),
    Ratio("route_ratio_stock_faust", "route", "stock_faust"),
    Ratio("route_four_ratio_bare", "route_four", "bare"),
    Ratio("route_four_ratio_route", "route_four", "route"),
    Ratio("row_ratio_bare", "row", "bare"),
    Ratio("row_ratio_stock_faust", "row", "stock_faust_table"),
)


def run_rounds(bench: Bench, names: Sequence[str], rounds: int) -> list[Round]:
    """All of them in turn, as often as asked; the order is the same in each round."""
    measured = []
    for number in range(1, rounds + 1):
        say(f"round {number} of {rounds}")
        measured.append({name: _contend(bench, name) for name in names})
    return measured


def _contend(bench: Bench, name: str) -> Measured:
    for left in reversed(range(TRIES.get(name, 1))):
        try:
            measured = _try(bench, name)
            break
        except BenchmarkFailed as error:
            if not left:
                raise
            say(f"{error}\nonce more")
    lag = f", p99 of the loop {p99_ms:.0f} ms" if (p99_ms := measured.figures.get("loop_lag_p99_ms")) else ""
    say(f"  {name:18} {measured.events_per_s:>9,.0f} events/s {measured.cpu_us:6.1f} us CPU an event{lag}")
    return measured


def _try(bench: Bench, name: str) -> Measured:
    job = bench.source_job(name)
    before = _written(bench.brokers)
    [measured] = bench.run(name, job)
    after = _written(bench.brokers)
    if not measured.events:
        raise BenchmarkFailed(f"{name}: it had emptied the topic before anybody could count")
    # A router that throws its events away would be quick.
    if after["quarantine"] != before["quarantine"]:
        raise BenchmarkFailed(f"{name}: records were quarantined")
    for output, each in OUTPUTS.get(name, {}).items():
        if after[output] - before[output] < each * measured.events:
            raise BenchmarkFailed(f"{name}: fewer records in {output} than events routed")
    return measured


def _written(brokers: str) -> dict[str, int]:
    """Records in the topics that are checked."""
    topics = Topics(PREFIX, PREFIX)
    names = {"quarantine": topics.quarantine, "deliveries": topics.deliveries, "audit": topics.audit}
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "bench-ends", "log_level": 0})
    try:
        return {
            output: sum(
                consumer.get_watermark_offsets(TopicPartition(name, partition), timeout=10.0)[1]
                for partition in range(PARTITIONS)
            )
            for output, name in names.items()
        }
    finally:
        consumer.close()


def ratios_of(rounds: Sequence[Round]) -> dict[str, list[float]]:
    """The value of each ratio in each round, where both contenders ran."""
    if not rounds:
        return {}
    return {
        ratio.name: [one[ratio.of].events_per_s / one[ratio.over].events_per_s for one in rounds]
        for ratio in RATIOS
        if {ratio.of, ratio.over} <= rounds[0].keys()
    }


def figures_of(rounds: Sequence[Round]) -> dict[str, float]:
    """Medians of the rounds: rates, processor time, and what the contenders said besides."""
    figures: dict[str, float] = {}
    for name in rounds[0] if rounds else ():
        runs = [one[name] for one in rounds]
        if name == "decode":
            figures["decode_us"] = round(median(run.elapsed_s / run.events * 1e6 for run in runs), 3)
            continue
        figures[f"{name}_events_per_s"] = round(median(run.events_per_s for run in runs))
        figures[f"{name}_cpu_us"] = round(median(run.cpu_us for run in runs), 2)
        for figure in runs[0].figures:
            figures[f"{name}_{figure}"] = round(median(run.figures.get(figure, 0.0) for run in runs), 1)
    return figures
