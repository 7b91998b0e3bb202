"""What must hold, what we aim at, and whether it does."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["GOALS", "Goal", "verdicts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A bound of one figure.

    Attributes:
        must: What holds for the product to keep its promise; the name of the figure has the unit.
        aim: Where we want to be; None: the bound is enough.
        less_is_better: Whether the bound is an upper one.
    """

    name: str
    must: float
    aim: float | None = None
    less_is_better: bool = False

    def met(self, value: float, bound: float) -> bool:
        """Whether the value keeps the bound."""
        return value <= bound if self.less_is_better else value >= bound

    def verdict(self, value: float) -> str:
        """`at least 0.2: met, aim 0.3: MISSED`."""
        word = "at most" if self.less_is_better else "at least"
        bounds = [(word, self.must)] + ([("aim", self.aim)] if self.aim is not None else [])
        return ", ".join(
            f"{what} {bound:,g}: {'met' if self.met(value, bound) else 'MISSED'}" for what, bound in bounds
        )


GOALS: Final = (
    Goal(name="consume_ratio_bare", must=0.8, aim=1.2),
    Goal(name="route_ratio_bare", must=0.2, aim=0.3),
    Goal(name="route_ratio_stock_faust", must=5, aim=8),
    Goal(name="row_ratio_bare", must=0.2, aim=0.3),
    Goal(name="row_ratio_stock_faust", must=8, aim=12),
    Goal(name="route_ratio_observed", must=0.95),
    Goal(name="route_ratio_traced", must=0.9),
    Goal(name="scrape_metrics_p99_ms", must=50, less_is_better=True),
    Goal(name="scrape_live_p99_ms", must=50, less_is_better=True),
    Goal(name="scrape_loop_lag_p99_ms", must=100, less_is_better=True),
    Goal(name="decode_us", must=10, less_is_better=True),
    Goal(name="checkpoint_cpu_percent", must=6, less_is_better=True),
    Goal(name="idle_cpu_percent", must=5, less_is_better=True),
    Goal(name="idle_rss_mb", must=150, less_is_better=True),
    Goal(name="restore_s", must=10, aim=5, less_is_better=True),
    Goal(name="restore_peak_rss_mb", must=400, less_is_better=True),
    Goal(name="takeover_s", must=13, aim=11, less_is_better=True),
    Goal(name="restart_s", must=6, aim=3, less_is_better=True),
    Goal(name="restart_others_pause_s", must=1, aim=0.2, less_is_better=True),
    Goal(name="rebalance_s", must=8, aim=2, less_is_better=True),
    Goal(name="deliver_ratio_bare", must=0.4, aim=0.6),
    Goal(name="post_p50_ms", must=20, aim=10, less_is_better=True),
    Goal(name="post_p99_ms", must=80, aim=30, less_is_better=True),
    *(
        goal
        for name in ("hang_5_above", "hang_5_below", "hang_50_above", "hang_50_below", "dead_30")
        for goal in (
            Goal(name=f"{name}_rate_ratio", must=0.9, aim=0.98),
            Goal(name=f"{name}_p99_over_ms", must=0, less_is_better=True),
        )
    ),
    Goal(name="decision_p99_ms", must=1, less_is_better=True),
    Goal(name="decision_http_p99_ms", must=10, less_is_better=True),
    Goal(name="decision_miss_added_ms", must=5, less_is_better=True),
    Goal(name="waiting_rss_mb", must=500, less_is_better=True),
    Goal(name="waiting_first_post_s", must=1, less_is_better=True),
    Goal(name="waiting_records_grown", must=0, less_is_better=True),
    Goal(name="many_match_ratio", must=1.2, less_is_better=True),
    Goal(name="many_webhooks_mb", must=60, less_is_better=True),
    Goal(name="console_first_paint_ms", must=1000, less_is_better=True),
    Goal(name="console_list_ms", must=300, less_is_better=True),
    Goal(name="audit_ratio_bare", must=0.1, aim=0.15),
)


def verdicts(figures: Mapping[str, float]) -> list[tuple[Goal, float]]:
    """The goals that something was measured for."""
    return [(goal, figures[goal.name]) for goal in GOALS if goal.name in figures]
