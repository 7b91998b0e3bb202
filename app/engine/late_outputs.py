"""What a checkpoint sends before it logs: records that nobody waits for, in one batch for many units.

A unit whose rows say enough to do it again after a crash need not wait for what it sends, if that is acknowledged
before those rows are logged. So a busy number sends a few hundred of them at each checkpoint, and none of its units
waits for the broker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from app.engine.agent import Clock
from app.engine.errors import OutputFailed, Revoked
from app.engine.obstacle import Obstacle
from app.engine.outputs import Message, Outputs

__all__ = ["LATE_LIMIT_BYTES", "LateOutputs"]

log = logging.getLogger("app.engine.outputs")

# Many checkpoints' worth; beyond it a number goes on only once Kafka takes them again.
LATE_LIMIT_BYTES = 16 << 20
RETRY_MIN_S = 0.05
RETRY_MAX_S = 5.0


class LateOutputs:
    """One number's.

    Args:
        number: The number.
        outputs: Send them.
        clock: Says how long they have not been taken.
        still_ours: Whether to go on trying.
    """

    def __init__(self, number: int, outputs: Outputs, clock: Clock, still_ours: Callable[[], bool]) -> None:
        self._number = number
        self._outputs = outputs
        self._still_ours = still_ours
        self._obstacle = Obstacle(clock)

    async def send(self, messages: Sequence[Message]) -> None:
        """Return once all are acknowledged, however long it takes; some may have been sent more than once.

        Raises:
            Revoked: The number is not ours any more.
        """
        delay_s = RETRY_MIN_S
        while messages:
            try:
                await self._outputs.send_many(messages)
            except OutputFailed as error:
                # Too large for its topic, too: only a person helps, and nothing is logged before.
                self._obstacle.met(f"Kafka takes no outputs of number {self._number}: {error}")
                level = logging.DEBUG if error.refused else logging.WARNING
                log.log(level, "number %s: late outputs again in %.1f s: %s", self._number, delay_s, error)
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, RETRY_MAX_S)
                if not self._still_ours():
                    raise Revoked(f"number {self._number} was taken away") from error
            else:
                break
        self._obstacle.gone()

    def problem(self) -> str | None:
        """Why nothing is logged, once it has lasted."""
        return self._obstacle.problem()
