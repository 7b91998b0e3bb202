"""Jobs and timers whose outputs Kafka does not take."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from app.engine import OutputFailed, Revoked, Unit
from app.engine.errors import OutputTooLarge
from tests.support.engine import ROWS, Row
from tests.support.runner_rig import Rig


def sending(value: bytes) -> Callable[[Unit], bytes]:
    def job(unit: Unit) -> bytes:
        unit.send("out", None, value)
        unit.put(ROWS, value, Row(n=1))
        return value

    return job


async def test_a_job_whose_output_is_too_large_fails_alone(tmp_path: Path) -> None:
    rig = Rig(tmp_path, lambda r, u: None)
    too_large = OutputTooLarge("out", 0)

    async def send_many(messages: list) -> None:
        if any(message.value == b"large" for message in messages):
            raise too_large
        rig.outputs.sent += messages

    rig.outputs.send_many = send_many

    results = await asyncio.gather(
        *(rig.runner.submit(sending(value)) for value in (b"a", b"large", b"b")), return_exceptions=True
    )

    assert results == [b"a", too_large, b"b"]
    assert [message.value for message in rig.outputs.sent] == [b"a", b"b"]
    assert Unit(rig.scope).get(ROWS, b"large") is None
    assert rig.host.died == []
    await rig.runner.close()


async def test_a_runner_that_drains_while_kafka_takes_nothing_leaves_its_jobs_and_ends_no_process(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path, lambda r, u: None, failures=[OutputFailed("no")] * 1000)
    await rig.runner.opened.wait()
    job = asyncio.create_task(rig.runner.submit(sending(b"a")))
    await rig.until(lambda: len(rig.outputs.failures) < 1000)

    drained = await rig.runner.drain(5)

    assert drained
    assert rig.host.died == []
    assert isinstance((await asyncio.gather(job, return_exceptions=True))[0], Revoked)
    assert Unit(rig.scope).get(ROWS, b"a") is None
    await rig.runner.close()


async def test_a_timer_whose_output_is_too_large_is_a_timer_that_fails(tmp_path: Path) -> None:
    rig = Rig(tmp_path, lambda r, u: None, failures=[OutputTooLarge("out", 0)])
    rig.runner.processor.tick = sending_tick(rig)
    rig.runner.tick_now()

    await rig.until(lambda: [message.value for message in rig.outputs.sent] == [b"tick"])

    assert rig.host.died == []
    assert rig.runner.problem() is None
    await rig.runner.close()


def sending_tick(rig: Rig) -> Callable:
    async def tick(unit: Unit) -> None:
        sending(b"tick")(unit)

    return tick
