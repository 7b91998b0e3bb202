"""When a failed attempt is made again (contracts 2, Schedule and Outcome). Pure arithmetic; randomness is passed in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from app.webhooks.errors import InvalidSchedule

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_MINUTE_S: Final = 60
_HOUR_S: Final = 60 * _MINUTE_S

DEFAULT_STEPS_S: Final = (
    0,
    5,
    5 * _MINUTE_S,
    30 * _MINUTE_S,
    2 * _HOUR_S,
    5 * _HOUR_S,
    10 * _HOUR_S,
    14 * _HOUR_S,
    20 * _HOUR_S,
    24 * _HOUR_S,
)
MAX_STEPS: Final = 50
MAX_STEP_S: Final = 7 * 24 * _HOUR_S
JITTER_SHARE: Final = 0.1
MIN_JITTER_S: Final = 2.0
MAX_JITTER_S: Final = 15.0 * _MINUTE_S
MAX_UNASKED_HOLD_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """How long each attempt waits after the one before it.

    Attributes:
        steps_s: attempt n waits ``steps_s[n - 1]`` seconds; there are as many attempts as steps.
    """

    steps_s: tuple[float, ...] = DEFAULT_STEPS_S

    def __post_init__(self) -> None:
        if not 1 <= len(self.steps_s) <= MAX_STEPS:
            raise InvalidSchedule(f"must have 1 to {MAX_STEPS} steps, one for each attempt")
        for place, step_s in enumerate(self.steps_s):
            number = isinstance(step_s, int | float) and not isinstance(step_s, bool)
            # The comparison is false for NaN, too.
            if not number or not 0 <= step_s <= MAX_STEP_S:
                detail = f"each step must be a number of seconds from 0 to {MAX_STEP_S}"
                raise InvalidSchedule(detail, field=f"{InvalidSchedule.default_field}/{place}")

    @classmethod
    def of(cls, steps_s: Sequence[float]) -> RetrySchedule:
        """A schedule with these steps, in seconds.

        Raises:
            InvalidSchedule: no step, more than 50, or one that is not from 0 s to 7 d.
        """
        return cls(tuple(steps_s))

    @classmethod
    def linear(cls, max_retries: int, retry_delay_s: float) -> RetrySchedule:
        """The seed's schedule: ``max_retries`` attempts in all, the wait grows by ``retry_delay_s`` each time.

        Raises:
            InvalidSchedule: as ``of``.
        """
        return cls(tuple(retry_delay_s * n for n in range(min(max_retries, MAX_STEPS + 1))))

    @property
    def attempts(self) -> int:
        """How many attempts there are in all."""
        return len(self.steps_s)

    @property
    def longest_s(self) -> float:
        """The longest step, which also caps what a receiver may ask for."""
        return max(self.steps_s)

    def next_wait_s(
        self, attempts_made: int, uniform: Callable[[], float], retry_after_s: float | None = None
    ) -> float | None:
        """How long to wait from the end of an attempt to the next one.

        Args:
            attempts_made: how many attempts have ended; 0 before the first one.
            uniform: a number from [0, 1), such as ``random.random``.
            retry_after_s: what the receiver asked for with a 429 or 503.

        Returns:
            Seconds: the step and its jitter, or what the receiver asked for (at most the longest step) if that is
            more; never less than the step. None when no step is left.
        """
        if attempts_made >= self.attempts:
            return None
        step_s = self.steps_s[attempts_made]
        wait_s = step_s + jitter_width_s(step_s) * uniform()
        return wait_s if retry_after_s is None else max(wait_s, min(retry_after_s, self.longest_s))

    def hold_s(self, attempts_made: int, retry_after_s: float | None = None) -> float:
        """How long a 429 holds the whole webhook.

        Args:
            attempts_made: how many attempts of the delivery have ended, the refused one included.
            retry_after_s: what the receiver asked for.

        Returns:
            Seconds: what the receiver asked for, at most the longest step. If it asked for nothing, the next step of
            this delivery (the last one again if none is left), at most 60.
        """
        if retry_after_s is not None:
            return min(retry_after_s, self.longest_s)
        return min(self.steps_s[min(attempts_made, self.attempts - 1)], MAX_UNASKED_HOLD_S)


def jitter_width_s(step_s: float) -> float:
    """The most that jitter adds to a step: a tenth of it, from 2 s to 15 min; nothing to a step of 0.

    Only ever added: a receiver that says when to come back is never asked earlier.
    """
    return 0.0 if step_s <= 0 else min(max(JITTER_SHARE * step_s, MIN_JITTER_S), MAX_JITTER_S)
