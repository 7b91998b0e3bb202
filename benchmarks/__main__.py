"""`python -m benchmarks`: all contenders in turn, round after round, on a Kafka of its own; ratios into latest.json."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Final

from confluent_kafka import Consumer, TopicPartition

from app.devstack.jars import JarsError
from app.devstack.kafka import KafkaServer, KafkaServerError
from app.devstack.leash import leashed
from app.topics import TopicAdmin, Topics, TopicSpec, apply, client_config, plan
from benchmarks.contender import START_DEADLINE_S, Job, Measured
from benchmarks.records import PARTITIONS, PREFIX, SOURCE_TOPIC, preload
from benchmarks.stock_faust import OUTPUT_SUFFIX

LATEST: Final = Path(__file__).parent / "latest.json"
CONTENDERS: Final = ("bare", "consume", "stock_faust", "route", "decode")
# More than any contender has handled in a second; one that empties the topic is measured until then.
PRELOAD_EVENTS_PER_S: Final = 300_000
PRELOAD_EVENTS_MAX: Final = 3_000_000
# Stock Faust's assignor may leave a lone member without a partition; ours must work the first time.
TRIES: Final = {"stock_faust": 3}
# The interpreter, the imports, and an end under load.
PROCESS_OVERHEAD_S: Final = 60.0


class BenchmarkFailed(Exception):
    """A contender gave no result, or not the one that it was to be measured for."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """One line of the result: the events a second of one contender over those of another, in the same round."""

    name: str
    of: str
    over: str
    goal: float | None


RATIOS: Final = (
    Ratio("consume_ratio_bare", "consume", "bare", None),
    Ratio("route_ratio_bare", "route", "bare", 0.15),
    Ratio("route_ratio_stock_faust", "route", "stock_faust", 3.0),
)
DECODE_GOAL_US: Final = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each run (default 10)")
    parser.add_argument("--rounds", type=int, default=3, help="of all contenders (default 3)")
    options = parser.parse_args(arguments)
    if options.seconds <= 0 or options.rounds < 1:
        parser.error("--seconds must be above 0, and --rounds at least 1")
    folder = Path(tempfile.mkdtemp(prefix="vault-stream-bench-"))
    server = KafkaServer(folder / "kafka", leash=True)
    try:
        server.start()
        rounds = Course(server.bootstrap, folder, options.seconds).run(options.rounds)
    except (BenchmarkFailed, JarsError, KafkaServerError) as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
    report(rounds, options.seconds)
    return 0


class Course:
    """The broker, filled, and the runs on it."""

    def __init__(self, brokers: str, folder: Path, seconds: float) -> None:
        self._brokers = brokers
        self._folder = folder
        self._seconds = seconds
        self._records = min(PRELOAD_EVENTS_MAX, int(PRELOAD_EVENTS_PER_S * seconds))
        self._admin = TopicAdmin(client_config(brokers))
        self._runs = 0

    def run(self, rounds: int) -> list[dict[str, Measured]]:
        """All contenders in turn, as often as asked; the order is the same in each round."""
        self._create_topics("bench")
        apply([TopicSpec(SOURCE_TOPIC + OUTPUT_SUFFIX, PARTITIONS, 1, {})], self._admin)
        began_s = time.monotonic()
        preload(self._brokers, self._records)
        print(f"{self._records:,} records in {time.monotonic() - began_s:.0f} s", flush=True)
        measured: list[dict[str, Measured]] = []
        for number in range(1, rounds + 1):
            print(f"round {number} of {rounds}", flush=True)
            measured.append({name: self._contend(name) for name in CONTENDERS})
        return measured

    def _contend(self, name: str) -> Measured:
        for left in reversed(range(TRIES.get(name, 1))):
            try:
                measured = self._try(name)
                break
            except BenchmarkFailed as error:
                if not left:
                    raise
                print(f"{error}\nonce more", file=sys.stderr, flush=True)
        print(f"  {name:12} {measured.events_per_s:>9,.0f} events/s {measured.cpu_us:6.1f} us CPU an event", flush=True)
        return measured

    def _try(self, name: str) -> Measured:
        self._runs += 1
        app_id = f"bench-{name}-{self._runs}"
        self._create_topics(app_id)
        data_dir = self._folder / app_id
        data_dir.mkdir()
        job = Job(self._brokers, app_id, SOURCE_TOPIC, self._records, self._seconds, str(data_dir))
        command = leashed([sys.executable, "-m", f"benchmarks.{name}", json.dumps(asdict(job))])
        limit_s = START_DEADLINE_S + self._seconds + PROCESS_OVERHEAD_S
        before = self._written()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
        except subprocess.TimeoutExpired:
            raise BenchmarkFailed(f"{name}: no result within {limit_s:.0f} s") from None
        if done.returncode != 0 or not done.stdout:
            raise BenchmarkFailed(f"{name}: ended with {done.returncode}\n{done.stderr[-2000:]}")
        measured = Measured(**json.loads(done.stdout.splitlines()[-1]))
        self._check(name, measured, before, self._written())
        return measured

    def _check(self, name: str, measured: Measured, before: Mapping[str, int], after: Mapping[str, int]) -> None:
        """A router that throws its events away would be quick."""
        if after["quarantine"] != before["quarantine"]:
            raise BenchmarkFailed(f"{name}: records were quarantined")
        if name == "route":
            for output in ("deliveries", "audit"):
                if after[output] - before[output] < measured.events:
                    raise BenchmarkFailed(f"{name}: fewer records in {output} than events routed")

    def _written(self) -> dict[str, int]:
        """Records in the topics that are checked."""
        topics = Topics(PREFIX, "bench")
        names = {"quarantine": topics.quarantine, "deliveries": topics.deliveries, "audit": topics.audit}
        consumer = Consumer({"bootstrap.servers": self._brokers, "group.id": "bench-ends", "log_level": 0})
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

    def _create_topics(self, app_id: str) -> None:
        apply(plan(Topics(PREFIX, app_id), partitions=PARTITIONS, replication=1), self._admin)


def report(rounds: Sequence[Mapping[str, Measured]], seconds: float) -> None:
    """Print the ratios with their spread over the rounds, and write the file."""
    ratios = {}
    for ratio in RATIOS:
        values = [one[ratio.of].events_per_s / one[ratio.over].events_per_s for one in rounds]
        ratios[ratio.name] = round(median(values), 3)
        goal = "" if ratio.goal is None else f", goal {ratio.goal:g}: {_verdict(median(values) >= ratio.goal)}"
        print(f"{ratio.name:24} {median(values):6.2f}  ({min(values):.2f} to {max(values):.2f}{goal})")
    decode_us = median(one["decode"].elapsed_s / one["decode"].events * 1e6 for one in rounds)
    print(f"{'decode_us':24} {decode_us:6.2f}  (goal below {DECODE_GOAL_US:g}: {_verdict(decode_us < DECODE_GOAL_US)})")
    figures: dict[str, float] = {"decode_us": round(decode_us, 3)}
    for name in CONTENDERS[:-1]:
        figures[f"{name}_events_per_s"] = round(median(one[name].events_per_s for one in rounds))
        figures[f"{name}_cpu_us"] = round(median(one[name].cpu_us for one in rounds), 2)
    latest = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "seconds": seconds,
        "rounds": len(rounds),
        "ratios": ratios,
        "figures": figures,
        "runs": [{name: asdict(measured) for name, measured in one.items()} for one in rounds],
    }
    LATEST.write_text(json.dumps(latest, indent=2) + "\n")
    print(f"written to {LATEST}")


def _verdict(met: bool) -> str:
    return "met" if met else "MISSED"


if __name__ == "__main__":
    sys.exit(main())
