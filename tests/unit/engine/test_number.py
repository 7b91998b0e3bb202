"""The life of a number when something in it fails: nothing goes on in secret, nothing unlogged stays."""

import asyncio
from collections.abc import Callable

import pytest

from app.engine import Revoked, Unit
from app.engine.errors import CheckpointFailed
from app.engine.number import Number, State
from tests.support.engine import ROWS, Row
from tests.support.number import FakeServices, put, ready_number, running, until
from tests.support.quiet import Quiet

TP = ("in", 0)


async def assert_gone(services: FakeServices, number: Number, runners: list, closings: list[str]) -> None:
    """Every runner, the producer and the number's own task have ended, and nobody may merge anything."""
    assert running() == set()
    assert sorted(closings) == sorted(agent.name for agent in services.agents)
    assert services.changelog.dropped == 1
    assert number.runners == {}
    for runner in runners:
        with pytest.raises(Revoked):
            await runner.submit(put(b"late"))


class BadDrain(Quiet):
    def begin_drain(self) -> None:
        raise RuntimeError("a bug in an agent")


class BadClose(Quiet):
    async def closed(self) -> None:
        await super().closed()
        raise RuntimeError("a bug in an agent")


async def test_a_number_whose_agent_fails_to_drain_is_closed_all_the_same(rig: Callable, closings: list[str]) -> None:
    services = rig(x=BadDrain, y=Quiet)
    number = await ready_number(services)
    runners = list(number.runners.values())

    with pytest.raises(RuntimeError, match="a bug in an agent"):
        await number.close(3.0, lost=False)

    await assert_gone(services, number, runners, closings)


async def test_a_number_whose_disk_fails_at_the_last_checkpoint_is_closed_all_the_same(
    rig: Callable, closings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    services = rig(x=Quiet, y=Quiet)
    services.checkpoint_interval_s = 60.0
    number = await ready_number(services)
    runners = list(number.runners.values())
    await runners[0].submit(put(b"k"))
    monkeypatch.setattr(services.stores["x"], "write", _no_space)

    with pytest.raises(Exception, match="No space left"):
        await number.close(3.0, lost=False)

    await assert_gone(services, number, runners, closings)


def _no_space(*_: object, **__: object) -> None:
    raise Exception("IO error: No space left on device")  # noqa: TRY002  # what rocksdict raises


async def test_a_number_whose_agent_fails_to_close_is_closed_all_the_same(rig: Callable, closings: list[str]) -> None:
    services = rig(x=BadClose, y=Quiet)
    number = await ready_number(services)
    runners = list(number.runners.values())

    await number.close(3.0, lost=False)

    await assert_gone(services, number, runners, closings)


async def test_an_agent_that_fails_to_close_does_not_keep_the_number_from_opening_again(
    rig: Callable, closings: list[str]
) -> None:
    services = rig(x=BadClose)
    number = await ready_number(services)
    services.changelog.failures = [CheckpointFailed("no answer")]

    await number.runners["x"].submit(put(b"k"))
    await until(lambda: closings and number.ready)

    assert services.died == []
    assert await number.runners["x"].submit(lambda unit: unit.get(ROWS, b"k")) is None


async def test_a_drop_whose_caller_is_cancelled_half_way_still_closes_everything(
    rig: Callable, closings: list[str]
) -> None:
    services = rig(x=Quiet, y=Quiet, z=Quiet)
    number = await ready_number(services)
    runners = list(number.runners.values())
    services.changelog.gate.clear()
    await runners[0].submit(put(b"k"))
    await until(lambda: services.changelog.waiting)
    waiter = asyncio.create_task(runners[0].checkpoint())
    await asyncio.sleep(0)
    services.changelog.failures = [CheckpointFailed("no answer")]
    services.changelog.gate.set()
    await until(lambda: number.state is State.OPENING and not number.runners)
    assert closings == []

    await number.close(3.0, lost=False)

    await assert_gone(services, number, runners, closings)
    with pytest.raises(Revoked):
        async with asyncio.timeout(1):
            await waiter


async def test_a_failed_store_step_ends_the_process_and_nothing_is_logged_over_it(
    rig: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = rig(x=Quiet)
    number = await ready_number(services)
    monkeypatch.setattr(services.stores["x"], "write", _no_space)
    runner = number.runners["x"]
    await runner.submit(put(b"k"))
    await until(lambda: services.died)
    monkeypatch.undo()
    logged = len(services.reader.transactions)

    await runner.submit(put(b"other"))
    await number.close(1.0, lost=False)

    assert len(services.reader.transactions) == logged
    assert services.on_disk("x", b"other") is None
    assert [code for _, code in services.died] == [70]


async def test_a_runner_that_ends_though_its_number_is_ours_ends_the_process(rig: Callable) -> None:
    class Confused(Quiet):
        async def tick(self, unit: Unit) -> None:
            raise Revoked("somebody else's")

    services = rig(x=Confused)
    number = await ready_number(services)
    number.runners["x"].tick_now()

    await until(lambda: services.died)

    assert services.died == [("the runner x/0 ended without being closed", 70)]


async def test_an_agent_that_cannot_begin_stands_alone_and_says_so(rig: Callable) -> None:
    class Unopenable(Quiet):
        async def opened(self, unit: Unit) -> None:
            raise KeyError("secret of one bad row")

    services = rig(x=Unopenable, y=Quiet)
    number = Number(services, 0)
    await until(lambda: "x" in number.runners and number.runners["x"].problem())

    await number.runners["y"].submit(put(b"k"))
    await until(lambda: services.on_disk("y", b"k"))

    problem = number.runners["x"].problem()
    assert "x: number 0 cannot begin: KeyError" in problem
    assert "secret" not in problem
    assert not number.ready
    assert not number.runners["x"].has_room()
    assert number.runners["y"].problem() is None
    assert services.died == []


async def test_a_task_that_fails_stops_its_own_runner_only(rig: Callable) -> None:
    services = rig(x=Quiet, y=Quiet)
    number = await ready_number(services)

    async def fails() -> None:
        raise ValueError("secret of a row")

    number.runners["x"].spawn(fails())
    await until(number.runners["x"].problem)

    assert "x: work of number 0 failed: ValueError" in number.runners["x"].problem()
    assert "secret" not in number.runners["x"].problem()
    assert not number.runners["x"].may_act()
    assert number.runners["y"].may_act()
    assert services.died == []


async def test_a_task_that_hears_of_a_revocation_or_is_cancelled_stops_nothing(rig: Callable) -> None:
    number = await ready_number(rig(x=Quiet))
    runner = number.runners["x"]

    async def revoked() -> None:
        raise Revoked("the number is closing")

    ended = [runner.spawn(revoked()), runner.spawn(asyncio.Event().wait())]
    ended[1].cancel()
    await asyncio.gather(*ended, return_exceptions=True)
    await until(lambda: not runner._spawned)

    assert runner.problem() is None
    assert runner.may_act()


async def test_a_timer_that_fails_once_is_tried_again(rig: Callable) -> None:
    class Flaky(Quiet):
        ticks = 0

        async def tick(self, unit: Unit) -> None:
            self.ticks += 1
            if self.ticks == 1:
                raise ValueError("one bad moment")
            unit.put(ROWS, b"ticked", Row(n=self.ticks))

    services = rig(x=Flaky)
    number = await ready_number(services)
    number.runners["x"].tick_now()

    await until(lambda: services.on_disk("x", b"ticked"))

    assert services.died == []
    assert number.runners["x"].problem() is None
