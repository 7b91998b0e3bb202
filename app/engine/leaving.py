"""How a member leaves its group, also in the middle of a rebalance.

aiokafka ends no join before the last other member has come, up to the rebalance timeout, and a broker reads nothing
more from a connection on which a join waits, not even a goodbye. A worker that was stopped while its group rebalanced,
as each of a rolling restart is, stood for seconds or for ever, and everybody who had joined waited with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from aiokafka import errors as kafka_errors
from aiokafka.client import ConnectionGroup
from aiokafka.protocol.group import LeaveGroupRequest

from app.engine.cancellation import cancelled

__all__ = ["ended_within", "leaves_at_once"]

log = logging.getLogger("app.engine.consumer")


def leaves_at_once(coordinator: Any, stopping: Callable[[], bool]) -> None:
    """Make a coordinator leave as soon as it is closed, and join no more when that is about to come.

    Args:
        coordinator: aiokafka's, of a consumer that is started.
        stopping: Whether the worker stops; its consumer is closed soon.
    """
    rejoin, leave = coordinator._do_rejoin_group, coordinator._maybe_leave_group
    cut = False

    async def rejoin_unless_closed(subscription: Any) -> bool:
        nonlocal cut
        if stopping():
            # The others would wait for us twice, the second time for our leave.
            await asyncio.wait({coordinator._closing})
            return False
        join: asyncio.Task[bool] = asyncio.create_task(rejoin(subscription))
        try:
            await asyncio.wait({join, coordinator._closing}, return_when=asyncio.FIRST_COMPLETED)
            if join.done():
                return join.result()
            cut = True
            return False
        finally:
            await cancelled(join)

    async def leave_beside_a_join() -> None:
        if not cut:
            await leave()
        elif coordinator.member_id and coordinator.coordinator_id is not None:
            request = LeaveGroupRequest(coordinator.group_id, coordinator.member_id)
            try:
                await coordinator._client.send(coordinator.coordinator_id, request, group=ConnectionGroup.DEFAULT)
            except kafka_errors.KafkaError as error:
                log.warning("the group was not told that we leave: %r", error)
            coordinator.reset_generation()

    coordinator._do_rejoin_group, coordinator._maybe_leave_group = rejoin_unless_closed, leave_beside_a_join


async def ended_within(limit_s: float, work: Coroutine[Any, Any, None], what: str) -> None:
    """Wait for work to end, but not longer; it is cancelled then, and whatever becomes of it is only logged.

    Args:
        limit_s: How long.
        work: A last thing, that nothing depends on any more.
        what: What has ended, for the log.
    """
    task = asyncio.create_task(work)
    await asyncio.wait({task}, timeout=limit_s)
    if not task.done():
        # Not awaited: what aiokafka cancels itself may swallow it.
        task.cancel()
        log.warning("%s did not end within %.0f s", what, limit_s)
    elif task.cancelled() or (error := task.exception()) is None:
        return
    else:
        log.warning("%s did not end cleanly: %r", what, error)
