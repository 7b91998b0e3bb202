"""Part: what a POST costs the sender of webhooks alone, signing included, against a bare loop of an HTTP library."""

import json
import subprocess
import sys
from statistics import median
from typing import Final

from benchmarks.bench import Bench, BenchmarkFailed, say
from benchmarks.deliveries_stage import ReceiverProcess, make_event, signed

__all__ = ["run"]

ROUNDS: Final = 5
START_S: Final = 60.0


def run(bench: Bench) -> dict[str, float]:
    """Processor time a POST and POSTs a second, in turn so that both meet the same machine."""
    _, body = make_event(0, "post")
    headers = signed(body, "post")
    found: dict[str, list[tuple[float, float]]] = {"post_bare": [], "post_sender": []}
    with ReceiverProcess() as receiver:
        for _ in range(ROUNDS):
            for name, arguments in (("post_bare", [json.dumps(headers)]), ("post_sender", [])):
                found[name].append(
                    _measured(name, [f"{receiver.url}/ok", str(bench.seconds), *arguments, body.decode()])
                )
                say(f"  {name} {found[name][-1][0]:,.0f}/s at {found[name][-1][1]:.1f} us CPU each")
    return {
        "post_sender_per_s": round(median(rate for rate, _ in found["post_sender"])),
        "post_bare_cpu_us": round(median(cost for _, cost in found["post_bare"]), 1),
        "post_sender_cpu_us": round(median(cost for _, cost in found["post_sender"]), 1),
    }


def _measured(name: str, arguments: list[str]) -> tuple[float, float]:
    """POSTs a second, and microseconds of processor time each."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=float(arguments[1]) + START_S, check=False)
    if done.returncode:
        raise BenchmarkFailed(f"{name} ended with {done.returncode}")
    told = json.loads(done.stdout)
    return told["events"] / told["elapsed_s"], told["cpu_s"] / told["events"] * 1e6
