"""What was measured: for the terminal, for docs/benchmarks.md, and for programs."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.contender import Measured
from benchmarks.course import figures_of, ratios_of
from benchmarks.goals import Goal, verdicts

__all__ = ["Results"]

BAR_CHARACTERS: Final = 44
RATE: Final = "_events_per_s"


class Results:
    """The rounds of the contenders, and the figures of the other parts.

    Args:
        rounds: May be empty.
        parts: Figures by name; the unit is in the name.
        seconds: How long each thing was measured.
    """

    def __init__(
        self, rounds: Sequence[Mapping[str, Measured]], parts: Mapping[str, float], seconds: float, took_s: float
    ) -> None:
        self._rounds = rounds
        self._seconds = seconds
        self._took_s = took_s
        self._in_rounds = ratios_of(rounds)
        self.ratios = {name: round(median(values), 3) for name, values in self._in_rounds.items()}
        self.figures: dict[str, float] = {**figures_of(rounds), **parts}

    def chart(self) -> str:
        """Rates as bars, then everything else, then the verdicts."""
        rates = {name.removesuffix(RATE): rate for name, rate in self.figures.items() if name.endswith(RATE)}
        most = max(rates.values(), default=1.0)
        lines = [f"{name:20} {rate:>9,.0f}/s {_bar(rate / most)}" for name, rate in rates.items()]
        lines += [""] if lines else []
        for name, values in self._in_rounds.items():
            lines.append(f"{name:34} {self.ratios[name]:9.2f}  ({min(values):.2f} to {max(values):.2f})")
        lines += [f"{name:34} {value:9,.2f}" for name, value in self.figures.items() if not name.endswith(RATE)]
        lines += ["", *(f"{goal.name:34} {value:9,.2f}  {goal.verdict(value)}" for goal, value in self._verdicts())]
        return "\n".join(lines)

    def _verdicts(self) -> Sequence[tuple[Goal, float]]:
        return verdicts({**self.figures, **self.ratios})

    def markdown(self) -> str:
        """The tables of docs/benchmarks.md."""
        head = f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores (broker included)"
        lines = [f"{head}, {len(self._rounds)} rounds of {self._seconds:g} s:", ""]
        rates = [name.removesuffix(RATE) for name in self.figures if name.endswith(RATE)]
        if rates:
            lines += ["| contender | events/s | µs CPU an event | loop lag p99, ms |", "|---|---|---|---|"]
            for name in rates:
                cells = [self.figures.get(f"{name}_{what}") for what in ("cpu_us", "loop_lag_p99_ms")]
                cpu, lag = ("" if cell is None else f"{cell:g}" for cell in cells)
                lines.append(f"| `{name}` | {self.figures[name + RATE]:,.0f} | {cpu} | {lag} |")
            lines.append("")
        lines += ["| measured | value | |", "|---|---|---|"]
        bounded = self._verdicts()
        lines += [f"| `{goal.name}` | {value:,g} | {goal.verdict(value)} |" for goal, value in bounded]
        with_goal = {goal.name for goal, _ in bounded}
        for name, value in {**self.ratios, **self.figures}.items():
            if name not in with_goal and not name.endswith((RATE, "_cpu_us", "loop_lag_p99_ms")):
                lines.append(f"| `{name}` | {value:,g} | |")
        return "\n".join(lines)

    def write(self, file: Path) -> None:
        """As JSON."""
        latest = {
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "cores": os.cpu_count(),
            "seconds": self._seconds,
            "rounds": len(self._rounds),
            "took_s": round(self._took_s),
            "ratios": self.ratios,
            "figures": self.figures,
            "goals": [
                {
                    **asdict(goal),
                    "value": value,
                    "met": goal.met(value, goal.must),
                    "aim_met": goal.aim is None or goal.met(value, goal.aim),
                }
                for goal, value in self._verdicts()
            ],
            "runs": [{name: asdict(measured) for name, measured in one.items()} for one in self._rounds],
        }
        file.write_text(json.dumps(latest, indent=2) + "\n")


def _bar(share: float) -> str:
    return "█" * max(1, round(share * BAR_CHARACTERS))
