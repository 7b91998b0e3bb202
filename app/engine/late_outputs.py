"""What a checkpoint sends before it logs: records that nobody waits for, in one batch for many units.

A unit whose rows say enough to do it again after a crash need not wait for what it sends, if that is acknowledged
before those rows are logged. So a busy number sends a few hundred of them at each checkpoint, and none of its units
waits for the broker. While Kafka does not take them, their agent stands; the others go on, and are logged without it.
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

# Some seconds' worth at the highest rate; a crash repeats what they tell of.
LATE_LIMIT_BYTES = 4 << 20
RETRY_MIN_S = 0.05
# Short, as a number that closes waits for them, and not for long.
RETRY_MAX_S = 1.0
_LEASE_POLL_S = 0.05


class LateOutputs:
    """One number's.

    Args:
        number: The number.
        outputs: Send them.
        clock: Says how long they have not been taken.
        still_ours: Whether to go on trying.
        may_act: Whether anything may be sent now.

    Attributes:
        stand: Kafka has not taken some of them, and has taken none since.
    """

    def __init__(
        self,
        number: int,
        outputs: Outputs,
        clock: Clock,
        still_ours: Callable[[], bool],
        may_act: Callable[[], bool],
    ) -> None:
        self.stand = False
        self._number = number
        self._outputs = outputs
        self._still_ours = still_ours
        self._may_act = may_act
        self._obstacle = Obstacle(clock)

    async def send(self, messages: Sequence[Message]) -> None:
        """Return once all are acknowledged, however long it takes; some may have been sent more than once.

        Raises:
            Revoked: The number is not ours any more.
        """
        delay_s = RETRY_MIN_S
        while True:
            await self._until_may_act()
            try:
                await self._outputs.send_many(messages)
                break
            except OutputFailed as error:
                # Too large for its topic, too: only a person helps, and nothing of the agent is logged before.
                self.stand = True
                self._obstacle.met(f"Kafka takes no outputs of number {self._number}: {error}")
                level = logging.DEBUG if error.refused else logging.WARNING
                log.log(level, "number %s: late outputs again in %.1f s: %s", self._number, delay_s, error)
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, RETRY_MAX_S)
        self.stand = False
        self._obstacle.gone()

    async def _until_may_act(self) -> None:
        while True:
            if not self._still_ours():
                raise Revoked(f"number {self._number} was taken away")
            if self._may_act():
                return
            await asyncio.sleep(_LEASE_POLL_S)

    def problem(self) -> str | None:
        """Why nothing is logged, once it has lasted."""
        return self._obstacle.problem()
