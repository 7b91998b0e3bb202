"""A number that is closed or taken away while something is under way: nothing of it becomes real."""

import asyncio
from collections.abc import Callable

import pytest

from app.engine import Revoked, Unit
from app.engine.number import Number, State
from app.engine.positions import Bounds
from tests.support.engine import ROWS, Row
from tests.support.number import put, ready_number, until
from tests.support.quiet import Quiet

TP = ("in", 0)


async def test_a_checkpoint_asked_for_after_the_close_is_refused(rig: Callable) -> None:
    services = rig(x=Quiet)
    number = await ready_number(services)
    runner = number.runners["x"]
    await number.close(1.0, lost=False)

    with pytest.raises(Revoked):
        async with asyncio.timeout(2):
            await runner.checkpoint()


async def test_rows_of_a_number_taken_away_reach_neither_log_nor_disk(rig: Callable) -> None:
    services = rig(x=Quiet)
    number = await ready_number(services)
    services.checkpoint_interval_s = 60.0
    await number.runners["x"].submit(put(b"first"))
    await until(lambda: services.on_disk("x", b"first"))
    logged = len(services.reader.transactions)
    await number.runners["x"].submit(put(b"k"))

    await number.close(3.0, lost=True)

    assert len(services.reader.transactions) == logged
    assert services.on_disk("x", b"k") is None


async def test_a_checkpoint_under_way_when_the_number_is_taken_away_never_reaches_the_disk(rig: Callable) -> None:
    services = rig(x=Quiet)
    number = await ready_number(services)
    services.changelog.gate.clear()
    await number.runners["x"].submit(put(b"k"))
    await until(lambda: services.changelog.waiting)

    closing = asyncio.create_task(number.close(3.0, lost=True))
    await asyncio.sleep(0)
    services.changelog.gate.set()
    await closing

    assert services.on_disk("x", b"k") is None


async def test_a_unit_whose_outputs_are_acknowledged_too_late_changes_nothing(
    rig: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = rig(x=Quiet)
    number = await ready_number(services)
    runner, acknowledged, sending = number.runners["x"], asyncio.Event(), asyncio.Event()
    scope = runner._scope

    async def send_many(messages: object) -> None:
        sending.set()
        await asyncio.shield(acknowledged.wait())

    monkeypatch.setattr(services.outputs, "send_many", send_many)
    unit = Unit(scope)
    unit.put(ROWS, b"k", Row(n=1))
    unit.send("out", b"k", b"v")
    flushing = asyncio.create_task(unit.flush())
    await sending.wait()
    await number.close(1.0, lost=True)
    acknowledged.set()
    await flushing

    with pytest.raises(Revoked):
        unit.done()

    assert ROWS.store_key(b"k") not in scope.staging.overlay


async def test_a_sleeper_whose_heir_has_moved_the_offsets_on_does_not_speak_of_a_lost_changelog(rig: Callable) -> None:
    services = rig(x=Quiet)
    services.sources = {"x": [TP]}
    services.bounds_of = {TP: Bounds(0, 9, committed=5, topic_id="")}
    answers = [True, True]

    async def confirm() -> bool:
        return bool(answers and answers.pop())

    services.confirm = confirm
    number = Number(services, 0)
    await until(lambda: number.reason)

    assert number.state is State.OPENING
    assert "after the restore" in number.reason
    await number.close(0.0, lost=True)
