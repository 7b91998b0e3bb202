"""Part: what metrics, logs and traces cost the router, and how long a scrape takes while it works as fast as it can.

`route_ratio_observed`: events a second with metrics and logs at info, over those with a registry and a logger that do
nothing, in turns of half a second in one run. `route_ratio_traced`: with one trace of a hundred, too, whose spans are
sent to a collector that does nothing with them.
"""

import http.client
import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from statistics import median, quantiles
from typing import Final

from app.devstack.kafka import free_port
from benchmarks.bench import Bench, BenchmarkFailed, say

__all__ = ["run", "run_scrape"]

RUNS: Final = 3
TURNS_TIME: Final = 2
PATHS: Final = ("/metrics", "/health/live")
ASK_EVERY_S: Final = 0.05
ANSWER_S: Final = 10.0
LEAST_ANSWERS: Final = 20


def run(bench: Bench) -> dict[str, float]:
    """The ratios of rate and of processor time; medians of the runs."""
    with _collector() as port:
        return {**_ratios(bench, "observed", {}), **_ratios(bench, "traced", {"collector": float(port)})}


def _ratios(bench: Bench, name: str, options: dict[str, float]) -> dict[str, float]:
    runs = []
    for _ in range(RUNS):
        job = bench.source_job(name)
        [measured] = bench.run("watched", replace(job, seconds=TURNS_TIME * bench.seconds, options=options))
        figures = measured.figures
        say(
            f"  {measured.events_per_s:>9,.0f} events/s {measured.cpu_us:6.1f} us CPU an event, {name}:"
            f" rate x {figures['rate_ratio']:.3f}, processor time x {figures['cpu_ratio']:.3f},"
            f" {figures['spans']:,.0f} spans"
        )
        if options and not figures["spans"]:
            raise BenchmarkFailed("no span was sent")
        runs.append(figures)
    return {
        f"route_ratio_{name}": round(median(run["rate_ratio"] for run in runs), 3),
        f"route_cpu_ratio_{name}": round(median(run["cpu_ratio"] for run in runs), 3),
    }


class _Taker(http.server.BaseHTTPRequestHandler):
    """Takes what is posted."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(http.HTTPStatus.OK)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@contextmanager
def _collector() -> Iterator[int]:
    """A collector that takes everything and does nothing; its port."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Taker) as server:
        threading.Thread(target=server.serve_forever, daemon=True, name="collector").start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


class _Scraper(threading.Thread):
    """Asks for both pages in turn, again and again, and notes how long each took from when it was due."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True, name="scraper")
        self._port = port
        self._over = threading.Event()
        self.took_ms: dict[str, list[float]] = {path: [] for path in PATHS}
        self.sizes: dict[str, int] = {}

    def run(self) -> None:
        due_s = time.monotonic()
        while not self._over.wait(max(0.0, due_s - time.monotonic())):
            for path in PATHS:
                began_s = time.monotonic()
                try:
                    self.sizes[path] = self._ask(path)
                except OSError:
                    continue  # not listening yet, or no longer
                self.took_ms[path].append((time.monotonic() - began_s) * 1000)
            due_s = max(due_s + ASK_EVERY_S, time.monotonic())

    def _ask(self, path: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status != http.HTTPStatus.OK:
            raise BenchmarkFailed(f"{path}: {answer.status}")
        return len(body)

    def stop(self) -> None:
        self._over.set()
        self.join()


def run_scrape(bench: Bench) -> dict[str, float]:
    """The 99th percentiles of both pages and of the loop's lag, while the router works as fast as it can."""
    port = free_port()
    job = bench.source_job("scraped")
    scraper = _Scraper(port)
    scraper.start()
    try:
        [measured] = bench.run("watched", replace(job, options={"port": float(port)}))
    finally:
        scraper.stop()
    lag = measured.figures
    figures = {
        "scrape_loop_lag_p99_ms": lag["loop_lag_p99_ms"],
        "scrape_loop_work_p99_ms": lag["loop_work_p99_ms"],
    }
    for path, name in zip(PATHS, ("scrape_metrics", "scrape_live"), strict=True):
        took_ms = scraper.took_ms[path]
        if len(took_ms) < LEAST_ANSWERS:
            raise BenchmarkFailed(f"{path}: only {len(took_ms)} answers under load")
        figures[f"{name}_p99_ms"] = round(quantiles(took_ms, n=100, method="inclusive")[98], 1)
        say(f"  {path:14} {len(took_ms)} answers of {scraper.sizes[path]:,} bytes: median {median(took_ms):.1f} ms")
    say(f"  at {measured.events_per_s:,.0f} events/s: {figures}")
    return figures
