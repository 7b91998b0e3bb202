"""`python -m benchmarks`: everything in one run, on a Kafka of its own; into latest.json, a chart on the terminal."""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from app.devstack.jars import JarsError
from app.devstack.kafka import KafkaServer, KafkaServerError
from benchmarks import (
    audit,
    checkpoint_cost,
    console,
    decision,
    deliver,
    idle,
    isolation,
    many_webhooks,
    observed,
    post,
    restore,
    takeover,
    two_workers,
    waiting,
)
from benchmarks.bench import Bench, BenchmarkFailed, say
from benchmarks.course import CONTENDERS, run_rounds
from benchmarks.report import Results

LATEST: Final = Path(__file__).parent / "latest.json"
PARTS: Final[Mapping[str, Callable[[Bench], Mapping[str, float]]]] = {
    "two_workers": two_workers.run,
    "observed": observed.run,
    "scrape": observed.run_scrape,
    "checkpoint": checkpoint_cost.run,
    "idle": idle.run,
    "restore": restore.run,
    "takeover": takeover.run,
    "post": post.run,
    "deliver": deliver.run,
    "isolation": isolation.run,
    "decision": decision.run,
    "waiting": waiting.run,
    "many_webhooks": many_webhooks.run,
    "console": console.run,
    "audit": audit.run,
}
NAMES: Final = (*CONTENDERS, *PARTS)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    if options.list:
        print("\n".join(NAMES))
        return 0
    names = options.only or NAMES
    began_s = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="vault-stream-bench-"))
    server = KafkaServer(folder / "kafka", leash=True)
    try:
        server.start()
        bench = Bench(server.bootstrap, folder, options.seconds)
        contenders = [name for name in CONTENDERS if name in names]
        rounds = run_rounds(bench, contenders, options.rounds) if contenders else []
        figures: dict[str, float] = {}
        for name, part in PARTS.items():
            if name in names:
                say(name)
                figures |= part(bench)
    except (BenchmarkFailed, JarsError, KafkaServerError) as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
    results = Results(rounds, figures, options.seconds, time.monotonic() - began_s)
    print(f"\n{results.markdown() if options.markdown else results.chart()}")
    # A part of the figures must not pass for all of them.
    if (file := options.output or (None if options.only else LATEST)) is not None:
        results.write(file)
        print(f"\nwritten to {file}")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each run (default 10)")
    parser.add_argument("--rounds", type=int, default=3, help="of all contenders (default 3)")
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="NAME", help="these only; nothing is written")
    parser.add_argument("--list", action="store_true", help="the names, and nothing else")
    parser.add_argument("--markdown", action="store_true", help="tables in place of the chart")
    parser.add_argument("--output", type=Path, help="write the JSON there (default: latest.json, without --only)")
    options = parser.parse_args(arguments)
    if options.seconds <= 0 or options.rounds < 1:
        parser.error("--seconds must be above 0, and --rounds at least 1")
    return options


if __name__ == "__main__":
    sys.exit(main())
