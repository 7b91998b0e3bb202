"""How a member leaves its group, also in the middle of a rebalance.

aiokafka ends no join before the last other member has come, up to the rebalance timeout, and a broker reads nothing
more from a connection on which a join waits, not even a goodbye. A worker that was stopped while its group rebalanced,
as each of a rolling restart may be, stood for seconds, and everybody who had joined waited with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from aiokafka import errors as kafka_errors
from aiokafka.client import ConnectionGroup
from aiokafka.protocol.group import LeaveGroupRequest

__all__ = ["ended_within", "leaves_at_once"]

log = logging.getLogger("app.engine.consumer")

# A first join is answered at once with the id under which the broker waits for the second.
ID_S = 0.5
CUT_S = 0.5
_GONE = (kafka_errors.NoError, kafka_errors.UnknownMemberIdError)


def leaves_at_once(coordinator: Any, stopping: Callable[[], bool]) -> None:
    """Make a coordinator leave as soon as it is closed, and join no more when that is about to come.

    Args:
        coordinator: aiokafka's, of a consumer that is started.
        stopping: Whether the worker stops; its consumer is closed soon.

    Its `close` raises the KafkaError of a goodbye that was not taken.
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
            if not coordinator.member_id:
                await asyncio.wait({join}, timeout=ID_S)
            if join.done():
                return join.result()
            cut = True
            return False
        finally:
            join.cancel()
            # Not for as long as it takes: what swallows it must not keep us from leaving.
            await asyncio.wait({join}, timeout=CUT_S)

    async def leave_or_raise() -> None:
        if not coordinator._closing.done():
            # It has not asked for records for long, and comes back.
            await leave()
        elif coordinator.member_id:
            if coordinator.coordinator_id is None:
                raise kafka_errors.GroupCoordinatorNotAvailableError(coordinator.group_id)
            request = LeaveGroupRequest(coordinator.group_id, coordinator.member_id)
            group = ConnectionGroup.DEFAULT if cut else ConnectionGroup.COORDINATION
            answer = await coordinator._client.send(coordinator.coordinator_id, request, group=group)
            error = kafka_errors.for_code(answer.error_code)
            if error not in _GONE:
                raise error(coordinator.group_id)
            coordinator.reset_generation()

    coordinator._do_rejoin_group, coordinator._maybe_leave_group = rejoin_unless_closed, leave_or_raise


async def ended_within(limit_s: float, work: Coroutine[Any, Any, None], what: str) -> bool:
    """Wait for work to end, but not longer; it is cancelled then, and whatever becomes of it is only logged.

    Args:
        limit_s: How long.
        work: A last thing, that nothing depends on any more.
        what: What has ended, for the log.

    Returns:
        Whether it has ended as it should.
    """
    task = asyncio.create_task(work)
    await asyncio.wait({task}, timeout=limit_s)
    if not task.done():
        # Not awaited: what aiokafka cancels itself may swallow it.
        task.cancel()
        task.add_done_callback(lambda late: late.cancelled() or late.exception())
        log.warning("%s did not end within %.0f s", what, limit_s)
        return False
    if task.cancelled() or (error := task.exception()) is not None:
        log.warning("%s did not end cleanly: %r", what, "cancelled" if task.cancelled() else error)
        return False
    return True
