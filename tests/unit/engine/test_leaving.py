"""A member whose coordinator is closed leaves at once, whatever its group and its join are doing."""

import asyncio
import contextlib
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import errors as kafka_errors
from aiokafka.client import ConnectionGroup
from aiokafka.protocol.group import LeaveGroupRequest

from app.engine import leaving
from app.engine.leaving import ended_within, leaves_at_once

DEADLINE_S = 10.0


class Coordinator:
    """What aiokafka's does, as far as a leave goes: `_coordination_task` is the caller of `_do_rejoin_group`."""

    group_id = "app"

    def __init__(self) -> None:
        self.member_id = "me"
        self.coordinator_id: int | None = 1
        self._closing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._client = self
        self.stopping = False
        self.others_are_here = asyncio.Event()
        self.asked = asyncio.Event()
        self.joins: list[str] = []
        self.sent: list[tuple[int, Any, Any]] = []
        self.refuses: Exception | None = None
        self.answers = 0
        self.swallows = False
        leaves_at_once(self, lambda: self.stopping)

    async def _do_rejoin_group(self, subscription: Any) -> bool:
        self.joins.append(subscription)
        self.asked.set()
        while not self.others_are_here.is_set():
            try:
                await self.others_are_here.wait()
            except asyncio.CancelledError:
                if not self.swallows:
                    raise
        if self.refuses is not None:
            raise self.refuses
        return True

    async def _maybe_leave_group(self) -> None:
        self.sent.append((self.coordinator_id, "aiokafka's own", ConnectionGroup.COORDINATION))

    async def send(self, node: int, request: Any, *, group: Any) -> Any:
        self.sent.append((node, request, group))
        if self.refuses is not None:
            raise self.refuses
        return SimpleNamespace(error_code=self.answers)

    def reset_generation(self) -> None:
        self.member_id = ""

    def close(self) -> None:
        self._closing.set_result(None)


@pytest.fixture
async def coordinator() -> Coordinator:
    return Coordinator()


async def test_a_join_that_nothing_disturbs_is_aiokafkas(coordinator: Coordinator) -> None:
    coordinator.others_are_here.set()

    assert await coordinator._do_rejoin_group("topics") is True
    await coordinator._maybe_leave_group()

    assert coordinator.joins == ["topics"]
    assert [request for _, request, _ in coordinator.sent] == ["aiokafka's own"]


async def test_the_error_of_a_join_is_passed_on(coordinator: Coordinator) -> None:
    coordinator.refuses = kafka_errors.GroupAuthorizationFailedError("app")
    coordinator.others_are_here.set()

    with pytest.raises(kafka_errors.GroupAuthorizationFailedError):
        await coordinator._do_rejoin_group("topics")


async def test_a_join_that_waits_is_given_up_when_the_coordinator_is_closed(coordinator: Coordinator) -> None:
    join = asyncio.create_task(coordinator._do_rejoin_group("topics"))
    await coordinator.asked.wait()

    coordinator.close()

    async with asyncio.timeout(DEADLINE_S):
        assert await join is False


async def test_the_goodbye_of_a_join_that_waits_goes_by_another_connection(coordinator: Coordinator) -> None:
    join = asyncio.create_task(coordinator._do_rejoin_group("topics"))
    await coordinator.asked.wait()
    coordinator.close()
    await join

    await coordinator._maybe_leave_group()

    ((node, request, group),) = coordinator.sent
    assert (node, group) == (1, ConnectionGroup.DEFAULT)
    assert isinstance(request, LeaveGroupRequest)
    assert (request._group, request._member_id) == ("app", "me")
    assert coordinator.member_id == ""


async def test_a_goodbye_that_the_broker_does_not_take_is_told(coordinator: Coordinator) -> None:
    join = asyncio.create_task(coordinator._do_rejoin_group("topics"))
    await coordinator.asked.wait()
    coordinator.close()
    await join

    coordinator.refuses = kafka_errors.NodeNotReadyError("gone")
    with pytest.raises(kafka_errors.NodeNotReadyError):
        await coordinator._maybe_leave_group()
    coordinator.refuses, coordinator.answers = None, kafka_errors.NotCoordinatorForGroupError.errno
    with pytest.raises(kafka_errors.NotCoordinatorForGroupError):
        await coordinator._maybe_leave_group()
    coordinator.coordinator_id = None
    with pytest.raises(kafka_errors.GroupCoordinatorNotAvailableError):
        await coordinator._maybe_leave_group()


async def test_a_member_that_the_broker_does_not_know_has_left(coordinator: Coordinator) -> None:
    coordinator.close()
    coordinator.answers = kafka_errors.UnknownMemberIdError.errno

    await coordinator._maybe_leave_group()

    assert coordinator.member_id == ""


async def test_a_join_that_swallows_its_cancellation_does_not_keep_the_goodbye(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaving, "CUT_S", 0.05)
    coordinator.swallows = True
    join = asyncio.create_task(coordinator._do_rejoin_group("topics"))
    await coordinator.asked.wait()
    coordinator.close()

    async with asyncio.timeout(DEADLINE_S):
        assert await join is False
        await coordinator._maybe_leave_group()

    assert [group for _, _, group in coordinator.sent] == [ConnectionGroup.DEFAULT]
    coordinator.others_are_here.set()


async def test_a_first_join_gets_its_id_before_it_is_given_up(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaving, "ID_S", DEADLINE_S)
    coordinator.member_id = ""
    join = asyncio.create_task(coordinator._do_rejoin_group("topics"))
    await coordinator.asked.wait()

    coordinator.close()
    coordinator.member_id = "told"
    coordinator.others_are_here.set()

    async with asyncio.timeout(DEADLINE_S):
        assert await join is True


async def test_a_member_without_an_id_has_nobody_to_take_out(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaving, "ID_S", 0.05)
    coordinator.member_id = ""
    join = asyncio.create_task(coordinator._do_rejoin_group("topics"))
    await coordinator.asked.wait()
    coordinator.close()
    await join

    await coordinator._maybe_leave_group()

    assert coordinator.sent == []


async def test_who_stops_does_not_join_again(coordinator: Coordinator) -> None:
    coordinator.stopping = True
    join = asyncio.create_task(coordinator._do_rejoin_group("topics"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(join), 0.05)

    coordinator.close()

    async with asyncio.timeout(DEADLINE_S):
        assert await join is False
    await coordinator._maybe_leave_group()
    assert coordinator.joins == []
    assert [group for _, _, group in coordinator.sent] == [ConnectionGroup.COORDINATION], "nothing waits there"


async def test_a_cancelled_coordination_takes_its_join_along(coordinator: Coordinator) -> None:
    join = asyncio.create_task(coordinator._do_rejoin_group("topics"))
    await coordinator.asked.wait()

    join.cancel()

    with pytest.raises(asyncio.CancelledError):
        await join
    assert len(asyncio.all_tasks()) == 1
    assert not coordinator._closing.cancelled()


async def test_a_last_thing_that_swallows_its_cancellation_holds_nobody_up(caplog: pytest.LogCaptureFixture) -> None:
    released = asyncio.Event()

    async def stubborn() -> None:
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await released.wait()

    async with asyncio.timeout(DEADLINE_S):
        assert not await ended_within(0.05, stubborn(), "the stubborn one")

    assert caplog.messages == ["the stubborn one did not end within 0 s"]
    released.set()


async def test_what_a_last_thing_raises_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)

    async def failing() -> None:
        raise kafka_errors.KafkaError("no")

    async def cancelled() -> None:
        raise asyncio.CancelledError

    async def sound() -> None:
        return

    assert not await ended_within(DEADLINE_S, failing(), "the first")
    assert not await ended_within(DEADLINE_S, cancelled(), "the second")
    assert await ended_within(DEADLINE_S, sound(), "the third")

    assert caplog.messages == [
        "the first did not end cleanly: KafkaError('no')",
        "the second did not end cleanly: 'cancelled'",
    ]
