"""Part: the router in two processes of one group against one, on eight partitions.

Each of the two holds four numbers before it counts. Broker and workers share the machine's cores, so on few of them
the ratio says more of the machine than of the code.
"""

from dataclasses import replace

from benchmarks.bench import Bench, say
from benchmarks.records import PARTITIONS

__all__ = ["run"]

WORKERS = ("one", "two")


def run(bench: Bench) -> dict[str, float]:
    """The rates of one and of two, and their ratio."""
    alone = replace(bench.source_job("alone"), share=PARTITIONS)
    [one] = bench.run("route", alone)
    job = bench.source_job("shared")
    share = PARTITIONS // len(WORKERS)
    jobs = [
        replace(job, instance=name, share=share, data_dir=str(bench.new_folder(f"{job.app_id}-{name}")))
        for name in WORKERS
    ]
    both = sum(measured.events_per_s for measured in bench.run("route", *jobs))
    say(f"  one worker {one.events_per_s:,.0f} events/s, two workers {both:,.0f}")
    return {
        "one_worker_events_per_s": round(one.events_per_s),
        "two_workers_events_per_s": round(both),
        "two_workers_ratio_one": round(both / one.events_per_s, 2),
    }
