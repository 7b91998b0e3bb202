"""A number that is opened again while something is under way: nothing unlogged stays."""

import asyncio
from collections.abc import Callable

import pytest

from app.engine import Revoked, Slice, Unit
from app.engine import number as number_module
from app.engine.errors import CheckpointFailed, StoreFailed
from app.engine.number import Number, State
from app.engine.poison import POISON_LIMITS
from app.engine.positions import Bounds
from app.engine.records import cut
from tests.support.engine import ROWS, FakeRecord, Row
from tests.support.number import put, ready_number, until
from tests.support.quiet import Quiet

TP = ("in", 0)


async def test_a_checkpoint_of_a_clean_number_returns(rig: Callable) -> None:
    services = rig(x=Quiet)
    number = await ready_number(services)
    await number.runners["x"].checkpoint()

    async with asyncio.timeout(2):
        await number.runners["x"].checkpoint()

    assert len(services.reader.transactions) <= 1


async def test_a_checkpoint_of_an_opening_gone_by_is_refused_and_not_taken_for_a_later_one(rig: Callable) -> None:
    services = rig(x=Quiet)
    services.checkpoint_interval_s = 60.0
    number = await ready_number(services)
    runner = number.runners["x"]
    await runner.submit(put(b"k"))
    number.reopen("its offset is gone")
    await until(lambda: number.ready and number.runners["x"] is not runner)

    with pytest.raises(Revoked):
        async with asyncio.timeout(2):
            await runner.checkpoint()

    assert await number.runners["x"].submit(lambda unit: unit.get(ROWS, b"k")) is None


async def test_reopen_drops_what_is_not_logged_and_reads_from_the_logged_position(
    rig: Callable, closings: list[str]
) -> None:
    services = rig(x=Quiet)
    services.sources = {"x": [TP]}
    services.bounds_of = {TP: Bounds(0, 10, None, "id")}
    number = await ready_number(services)
    feed(number, 0, 3)
    await until(lambda: number.trackers[TP].position == 3)
    await number.runners["x"].checkpoint()
    services.checkpoint_interval_s = 60.0
    feed(number, 3, 2)
    await until(lambda: number.trackers[TP].position == 5)
    epoch = number.epoch
    services.bounds_of = {TP: Bounds(4, 10, None, "id")}

    number.reopen("in/0: offset 5 is not there any more")
    await until(lambda: closings and number.ready)

    assert number.epoch is not epoch
    assert number.trackers[TP].start == 4
    assert services.gaps == [("in", 0, 3, 4)]
    assert await number.runners["x"].submit(lambda unit: unit.get(ROWS, b"k3")) is None
    assert await number.runners["x"].submit(lambda unit: unit.get(ROWS, b"k2")) == Row(n=2)
    assert services.died == []


def feed(number: Number, first: int, count: int) -> None:
    records = [FakeRecord(offset=o, key=b"k%d" % o) for o in range(first, first + count)]
    tracker = number.trackers[TP]
    span = tracker.deliver([r.offset for r in records], 1, 0.0)
    number.runners["x"].accept(Slice(0, records, number.epoch, {TP: (tracker, span)}))


async def test_a_refused_number_is_tried_again(rig: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(number_module, "REFUSED_RETRY_S", 0.05)
    services = rig(x=Quiet)
    services.sources = {"x": [TP]}
    services.bounds_of = {TP: Bounds(0, 10, 7, "id")}
    number = Number(services, 0)
    await until(lambda: number.state is State.REFUSED)
    assert "the changelog has no position row" in number.reason

    services.bounds_of = {TP: Bounds(0, 10, None, "id")}
    await until(lambda: number.ready)

    assert number.reason == ""
    assert services.died == []


async def test_a_damaged_copy_is_removed_and_restored_from_the_log(rig: Callable) -> None:
    services = rig(x=Quiet)
    number = await ready_number(services)
    await number.runners["x"].submit(put(b"k"))
    await number.runners["x"].checkpoint()
    store = services.stores["x"]
    store.damage = "found by a read"

    with pytest.raises(Revoked):
        await number.runners["x"].submit(lambda unit: unit.get(ROWS, b"another"))
    await until(lambda: store.wiped and number.ready)

    assert await number.runners["x"].submit(lambda unit: unit.get(ROWS, b"k")) == Row(n=1)
    assert services.died == []


async def test_a_disk_that_takes_nothing_more_ends_the_process_with_one_line(
    rig: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = rig(x=Quiet)
    number = await ready_number(services)

    def full(*_: object, **__: object) -> None:
        raise StoreFailed("store x cannot be written: No space left on device")

    monkeypatch.setattr(services.stores["x"], "write", full)
    await number.runners["x"].submit(put(b"k"))
    await until(lambda: services.died)

    assert services.died[0] == ("store x cannot be written: No space left on device", 70)


class Broken(Quiet):
    async def process(self, slice_: Slice, unit: Unit) -> None:
        raise ValueError("a bad deploy")


async def test_a_runner_that_poison_stopped_stays_stopped_over_a_reopening_and_a_rebalance(
    rig: Callable, closings: list[str]
) -> None:
    services = rig(x=Broken, y=Quiet)
    services.sources = {"x": [("x", 0)]}
    services.bounds_of = {("x", 0): Bounds(0, 1000, None, "")}
    number = await ready_number(services)
    deliver(number, "x", POISON_LIMITS["handler_error"] + 50)
    await until(lambda: number.runners["x"].stopped_reason is not None)

    await number.checkpoint_now("x")
    number.reopen("a fault")
    await until(lambda: closings and number.ready)
    assert "in a row quarantined as handler_error" in number.runners["x"].problem()
    await number.close(3.0, lost=False)
    number = await ready_number(services)

    assert "in a row quarantined as handler_error" in number.runners["x"].problem()
    assert not number.runners["x"].has_room()
    assert number.runners["y"].problem() is None
    assert number.trackers["x", 0].position == POISON_LIMITS["handler_error"] + 1
    assert len(services.outputs.sent) == POISON_LIMITS["handler_error"] + 1
    await number.close(3.0, lost=False)


def deliver(number: Number, topic: str, count: int) -> None:
    records = [FakeRecord(topic, 0, offset) for offset in range(count)]
    for slice_ in cut(0, records, 256, number.trackers, number.epoch, 0.0):
        number.runners[topic].accept(slice_)


async def test_a_unit_that_is_real_is_not_run_again_though_what_follows_it_fails(rig: Callable) -> None:
    class Counting(Quiet):
        async def process(self, slice_: Slice, unit: Unit) -> None:
            for record in slice_.records:
                unit.put(ROWS, record.key, Row(n=(unit.get(ROWS, record.key) or Row()).n + 1))
            unit.on_done(lambda: {}["secret of a row"])

    services = rig(x=Counting, y=Quiet)
    services.sources = {"x": [("x", 0)]}
    services.bounds_of = {("x", 0): Bounds(0, 1000, None, "")}
    number = await ready_number(services)
    deliver(number, "x", 2)
    await until(number.runners["x"].problem)
    await number.checkpoint_now("x")

    assert ROWS.decode(services.on_disk("x", b"k")) == Row(n=2)
    assert number.trackers["x", 0].position == 2
    assert services.outputs.sent == []
    assert "x: what follows the work of number 0 failed: KeyError" in number.runners["x"].problem()
    assert "secret" not in number.runners["x"].problem()
    assert number.runners["y"].problem() is None
    assert services.died == []
    await number.close(3.0, lost=False)


async def test_an_opening_that_logs_nothing_is_followed_by_a_longer_and_longer_pause(
    rig: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Eager(Quiet):
        async def tick(self, unit: Unit) -> None:
            unit.put(ROWS, b"k", Row(n=1))

    pauses: list[float] = []
    sleep = asyncio.sleep

    async def noted(delay_s: float) -> None:
        if delay_s >= number_module.REOPEN_MIN_S:
            pauses.append(delay_s)
        await sleep(min(delay_s, 0.01))

    services = rig(x=Eager)
    services.changelog.failures = [CheckpointFailed("refused")] * 4
    monkeypatch.setattr(number_module.asyncio, "sleep", noted)
    number = Number(services, 0)
    while len(pauses) < 4:
        await until(lambda: number.ready)
        seen = len(pauses)
        number.runners["x"].tick_now()
        await until(lambda seen=seen: len(pauses) > seen)
    await until(lambda: number.ready)
    number.runners["x"].tick_now()
    await until(lambda: services.on_disk("x", b"k"))
    number.reopen("again")
    await until(lambda: len(pauses) == 5)

    least_s = number_module.REOPEN_MIN_S
    assert pauses == [least_s, 2 * least_s, 4 * least_s, 8 * least_s, least_s]


async def test_openings_that_fail_after_one_that_worked_are_followed_by_longer_and_longer_pauses(
    rig: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def noted(delay_s: float) -> None:
        if delay_s >= number_module.REOPEN_MIN_S:
            pauses.append(delay_s)
        await sleep(min(delay_s, 0.01))

    async def refuse(may: Callable) -> None:
        raise OSError("no broker")

    services = rig(x=Quiet)
    number = await ready_number(services)
    await number.runners["x"].submit(put(b"k"))
    await until(lambda: services.on_disk("x", b"k"))
    monkeypatch.setattr(number_module.asyncio, "sleep", noted)
    monkeypatch.setattr(services.changelog, "open", refuse)
    number.reopen("again")
    await until(lambda: len(pauses) >= 4)

    least_s = number_module.REOPEN_MIN_S
    assert pauses[:4] == [least_s, 2 * least_s, 4 * least_s, 8 * least_s]


async def test_a_copy_of_a_changelog_that_was_made_again_is_removed_though_its_offsets_fit(rig: Callable) -> None:
    services = rig(x=Quiet)
    ids = {"rows": "id-1"}

    async def topic_ids(topics: list[str]) -> dict[str, str]:
        return {topic: ids[topic] for topic in topics}

    services.topic_ids = topic_ids
    number = await ready_number(services)
    await number.runners["x"].submit(put(b"old"))
    await until(lambda: services.on_disk("x", b"old"))
    await number.close(1.0, lost=False)

    # Somebody else has made it again and logged as much; to its offsets alone the copy would fit.
    ids["rows"] = "id-2"
    records = services.reader.records["rows", 0]
    for at, record in enumerate(records):
        records[at] = FakeRecord("rows", 0, record.offset, key=record.key, value=record.value)
    records[:] = [record for record in records if record.key != ROWS.store_key(b"old")[1:]]
    number = await ready_number(services)

    assert services.stores["x"].wiped == 1
    assert services.on_disk("x", b"old") is None
    await number.close(1.0, lost=False)


async def test_work_whose_future_was_cancelled_by_a_stranger_ends_the_process(
    rig: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = rig(x=Quiet)
    number = await ready_number(services)

    async def cancelled() -> bool:
        raise asyncio.CancelledError

    monkeypatch.setattr(number._checkpointer, "run", cancelled)
    await number.runners["x"].submit(put(b"k"))

    await until(lambda: services.died)
    assert "number 0 ended without being closed" in services.died[0][0]


async def test_a_checkpoint_that_an_agent_asks_for_has_all_that_it_has_merged_since_it_was_left_out(
    rig: Callable,
) -> None:
    """What is logged of it at last was frozen before: the rest comes with the checkpoint after that."""
    services = rig(x=Quiet)
    number = await ready_number(services)
    taken, send_many = asyncio.Event(), services.outputs.send_many

    async def when_taken(messages: object) -> None:
        await taken.wait()
        await send_many(messages)

    services.outputs.send_many = when_taken
    await number.runners["x"].submit(lambda unit: unit.send_late("told", b"k", b"v"))
    await until(lambda: number._checkpointer.unsent == {"x"})
    await number.runners["x"].submit(put(b"later"))
    asked = asyncio.create_task(number.runners["x"].checkpoint())
    await until(lambda: number._waiters)
    await until(lambda: not number._waiters)
    taken.set()
    async with asyncio.timeout(10):
        await asked

    logged = [key for writes in services.reader.transactions for write in writes for key, _ in write.items]
    assert b"later" in logged
