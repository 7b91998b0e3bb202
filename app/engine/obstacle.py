"""What is wrong with the surroundings and not with the record: it is waited out, and readiness says why."""

from __future__ import annotations

from aiokafka import errors as kafka_errors

from app.engine.agent import Clock
from app.engine.errors import OutputFailed, OutputTooLarge

__all__ = ["OBSTACLE_SHOWN_AFTER_S", "Obstacle", "of_the_surroundings"]

# A broker that restarts takes about as long; beyond it somebody should know.
OBSTACLE_SHOWN_AFTER_S = 15.0


def of_the_surroundings(error: BaseException) -> bool:
    """Whether a disk, a network or a broker failed the agent, so that every record would meet the same."""
    return isinstance(error, OSError | OutputFailed | kafka_errors.KafkaError) and not isinstance(error, OutputTooLarge)


class Obstacle:
    """Why a runner tries the same again and again, and since when."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: float | None = None
        self._why = ""

    def met(self, why: str) -> None:
        """It was in the way again."""
        self._since = self._clock.monotonic_s() if self._since is None else self._since
        self._why = why

    def gone(self) -> None:
        """Something went through."""
        self._since = None

    def problem(self) -> str | None:
        """Why, once it has lasted."""
        if self._since is None or self._clock.monotonic_s() - self._since <= OBSTACLE_SHOWN_AFTER_S:
            return None
        return self._why
