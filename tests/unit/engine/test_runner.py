import asyncio
from pathlib import Path

import pytest
from aiokafka.errors import KafkaConnectionError

from app.engine import (
    OutputFailed,
    Retriable,
    Revoked,
    StoreDamaged,
    Unit,
)
from app.engine.late_outputs import LATE_LIMIT_BYTES
from app.engine.obstacle import OBSTACLE_SHOWN_AFTER_S
from app.engine.poison import POISON_LIMITS
from app.engine.runner import LEASE_POLL_S
from app.engine.table import ROW_LIMIT_BYTES
from tests.support.engine import ROWS, FakeRecord, Row
from tests.support.runner_rig import AsyncFailure, Rig, Skewed


async def test_one_poisonous_record_is_quarantined_and_its_neighbours_are_handled_once(tmp_path: Path) -> None:
    def handle(record: FakeRecord, unit: Unit) -> None:
        if record.value == b"bad":
            raise KeyError("secret value")
        unit.send("out", None, record.value)

    rig = Rig(tmp_path, handle)
    rig.feed(b"a", b"bad", b"c")
    await rig.until(lambda: rig.tracker.position == 3)

    assert [m.value for m in rig.outputs.sent if m.topic == "out"] == [b"a", b"c"]
    (poison,) = [m for m in rig.outputs.sent if m.topic == "quarantine"]
    assert poison.value == b"bad"
    assert dict(poison.headers)["vs-reason"] == b"handler_error"
    assert b"secret" not in dict(poison.headers)["vs-detail"]
    await rig.runner.close()


async def test_a_retriable_failure_runs_the_slice_again_and_quarantines_nothing(tmp_path: Path) -> None:
    attempts: list[bytes] = []

    def handle(record: FakeRecord, unit: Unit) -> None:
        attempts.append(record.value)
        if len(attempts) < 3:
            raise Retriable("the upstream is away")

    rig = Rig(tmp_path, handle)
    rig.feed(b"a")
    await rig.until(lambda: rig.tracker.position == 1)

    assert attempts == [b"a"] * 3
    assert rig.outputs.sent == []
    await rig.runner.close()


@pytest.mark.parametrize(
    "fault",
    [OSError(28, "No space left on device"), OutputFailed("no"), TimeoutError(), KafkaConnectionError()],
    ids=lambda fault: type(fault).__name__,
)
async def test_a_fault_of_disk_network_or_broker_is_waited_out_and_quarantines_nothing(
    tmp_path: Path, fault: Exception
) -> None:
    attempts: list[bytes] = []

    def handle(record: FakeRecord, unit: Unit) -> None:
        attempts.append(record.value)
        if len(attempts) < 4:
            raise fault
        unit.send("out", None, record.value)

    rig = Rig(tmp_path, handle)
    rig.feed(b"a", b"b")
    await rig.until(lambda: rig.tracker.position == 2)

    assert attempts == [b"a", b"a", b"a", b"a", b"b"]
    assert [(m.topic, m.value) for m in rig.outputs.sent] == [("out", b"a"), ("out", b"b")]
    await rig.runner.close()


async def test_a_fault_of_the_surroundings_that_lasts_is_a_problem_until_it_is_over(tmp_path: Path) -> None:
    healed = False

    def handle(record: FakeRecord, unit: Unit) -> None:
        if not healed:
            raise OSError(28, "No space left on device")

    rig = Rig(tmp_path, handle)
    rig.host.clock = Skewed()
    rig.runner._obstacle._clock = rig.host.clock
    rig.feed(b"a")
    await rig.until(lambda: rig.runner._obstacle._since is not None)
    assert rig.runner.problem() is None
    rig.host.clock.ahead_s = OBSTACLE_SHOWN_AFTER_S
    assert rig.runner.problem().startswith("agent: number 0 cannot work: OSError in handle, line ")

    healed = True
    await rig.until(lambda: rig.tracker.position == 1)
    assert rig.runner.problem() is None
    await rig.runner.close()


async def test_a_processor_that_cannot_begin_for_its_disk_has_the_number_opened_again(tmp_path: Path) -> None:
    def fail(_unit: Unit) -> None:
        raise OSError(5, "Input/output error")

    rig = Rig(tmp_path, lambda r, u: None)
    rig.runner.processor.opened = AsyncFailure(fail)
    await rig.until(lambda: bool(rig.host.reopened))

    assert rig.runner.stopped_reason is None
    assert rig.host.died == []
    await rig.runner.close()


async def test_a_row_or_an_output_that_nothing_carries_is_the_records_own_fault(tmp_path: Path) -> None:
    def handle(record: FakeRecord, unit: Unit) -> None:
        if record.value == b"row":
            unit.put(ROWS, b"k", Row(tag="x" * ROW_LIMIT_BYTES))
        unit.send("out", None, record.value)

    rig = Rig(tmp_path, handle)
    rig.feed(b"a", b"row", b"c")
    await rig.until(lambda: rig.tracker.position == 3)

    assert [m.value for m in rig.outputs.sent if m.topic == "out"] == [b"a", b"c"]
    (poison,) = [m for m in rig.outputs.sent if m.topic == "quarantine"]
    assert dict(poison.headers)["vs-reason"] == b"too_large"
    assert b"table rows: a row of" in dict(poison.headers)["vs-detail"]
    await rig.runner.close()


async def test_outputs_that_kafka_does_not_take_are_sent_again_before_the_unit_is_done(tmp_path: Path) -> None:
    rig = Rig(tmp_path, lambda r, u: u.send("out", None, r.value), failures=[OutputFailed("no"), OutputFailed("no")])
    rig.feed(b"a")
    await rig.until(lambda: rig.tracker.position == 1)

    assert [m.value for m in rig.outputs.sent] == [b"a"]
    await rig.runner.close()


async def test_slices_that_wait_are_run_as_one_up_to_the_longest_in_the_order_in_which_they_came(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path, lambda r, u: u.send("out", None, r.value), slice_records=4)
    rig.host.member = False
    rig.feed(b"a")
    rig.feed(b"b", b"c")
    rig.feed(b"d", b"e")
    rig.feed(b"f")
    rig.host.member = True
    await rig.until(lambda: rig.tracker.position == 6)

    assert rig.runner.processor.slices == [[b"a", b"b", b"c"], [b"d", b"e", b"f"]]
    assert [m.value for m in rig.outputs.sent] == [b"a", b"b", b"c", b"d", b"e", b"f"]
    await rig.runner.close()


async def test_a_slice_that_is_longer_than_the_agent_takes_is_run_in_parts(tmp_path: Path) -> None:
    rig = Rig(tmp_path, lambda r, u: u.send("out", None, r.value), slice_records=4)
    asked: list[int] = []
    rig.runner.processor.takes = lambda limit: asked.append(limit) or 2
    rig.feed(b"a", b"b", b"c")
    rig.feed(b"d")
    await rig.until(lambda: rig.tracker.position == 4)

    assert rig.runner.processor.slices == [[b"a", b"b"], [b"c", b"d"]]
    assert set(asked) == {4}
    await rig.runner.close()


async def test_a_slice_that_is_held_back_runs_when_it_is_held_back_no_longer(tmp_path: Path) -> None:
    rig = Rig(tmp_path, lambda r, u: u.send("out", None, r.value))
    waits_s = [0.01, 0.01]
    rig.runner.processor.holds_back_s = lambda: waits_s.pop() if waits_s else 0.0
    rig.feed(b"a")
    await rig.until(lambda: rig.tracker.position == 1)

    assert waits_s == []
    await rig.runner.close()


async def test_a_slice_that_is_held_back_keeps_no_drain_waiting_and_is_left_to_the_next_owner(tmp_path: Path) -> None:
    rig = Rig(tmp_path, lambda r, u: u.send("out", None, r.value), slice_records=4)
    rig.runner.processor.takes = lambda limit: limit // 2
    held_back_s = 0.0
    rig.runner.processor.holds_back_s = lambda: held_back_s
    rig.feed(b"a", b"b", b"c")
    held_back_s = 60.0
    assert await rig.runner.drain(5)

    assert rig.runner.processor.slices == []
    assert (rig.tracker.position, rig.tracker.unfinished) == (0, 3)
    await rig.runner.close()
    assert rig.outputs.sent == []


async def test_a_unit_does_not_wait_for_what_it_sends_late(tmp_path: Path) -> None:
    rig = Rig(tmp_path, lambda r, u: u.send_late("log", b"k", r.value), failures=[OutputFailed("never")])
    rig.feed(b"a", b"b")
    await rig.until(lambda: rig.tracker.position == 2)

    assert rig.outputs.sent == []
    assert [message.value for message in rig.scope.staging.late] == [b"a", b"b"]
    await rig.runner.close()


async def test_an_agent_does_not_go_on_while_kafka_does_not_take_what_it_sends_late(tmp_path: Path) -> None:
    rig = Rig(tmp_path, lambda r, u: u.send_late("log", None, r.value))
    rig.feed(b"a")
    await rig.until(lambda: rig.tracker.position == 1)
    rig.host.outputs_stand = True
    rig.feed(b"b")
    await asyncio.sleep(LEASE_POLL_S * 2)
    assert rig.tracker.position == 1

    rig.host.outputs_stand = False
    await rig.until(lambda: rig.tracker.position == 2)
    await rig.runner.close()


async def test_with_too_much_of_what_is_sent_late_unsent_nothing_more_is_handled(tmp_path: Path) -> None:
    rig = Rig(tmp_path, lambda r, u: u.send_late("log", None, r.value))
    large = b"x" * (LATE_LIMIT_BYTES // 2 + 1)
    for _ in range(4):
        rig.feed(large)
        await rig.until(lambda: not rig.runner._slices or rig.scope.staging.late_bytes > LATE_LIMIT_BYTES)
    await asyncio.sleep(LEASE_POLL_S * 2)
    assert rig.tracker.position == 2

    for _ in range(2):
        rig.scope.staging.freeze()
        rig.scope.staging.thaw()
    await rig.until(lambda: rig.tracker.position == 4)
    await rig.runner.close()


async def test_a_long_run_of_poison_stops_the_runner_instead_of_emptying_the_topic(tmp_path: Path) -> None:
    def handle(record: FakeRecord, unit: Unit) -> None:
        raise ValueError("a bad deploy")

    rig = Rig(tmp_path, handle)
    rig.feed(*[b"x"] * 150)
    await rig.until(lambda: rig.runner.stopped_reason is not None)

    assert len(rig.outputs.sent) == POISON_LIMITS["handler_error"] + 1
    assert rig.tracker.position == POISON_LIMITS["handler_error"] + 1
    assert not rig.runner.has_room()
    assert rig.host.died == []
    await rig.runner.close()


async def test_jobs_run_between_slices_and_resolve_when_merged(tmp_path: Path) -> None:
    rig = Rig(tmp_path, lambda r, u: None)

    def add(unit: Unit) -> int:
        row = unit.get(ROWS, b"n") or Row()
        unit.put(ROWS, b"n", Row(n=row.n + 1))
        return row.n + 1

    results = await asyncio.gather(*(rig.runner.submit(add) for _ in range(10)))

    assert results == list(range(1, 11))
    assert Unit(rig.scope).get(ROWS, b"n") == Row(n=10)
    await rig.runner.close()


async def test_a_job_that_fails_fails_alone(tmp_path: Path) -> None:
    rig = Rig(tmp_path, lambda r, u: None)

    def good(unit: Unit) -> str:
        unit.put(ROWS, b"good", Row(n=1))
        return "done"

    def bad(unit: Unit) -> None:
        unit.put(ROWS, b"bad", Row(n=1))
        raise LookupError("no such delivery")

    first, second = await asyncio.gather(rig.runner.submit(bad), rig.runner.submit(good), return_exceptions=True)

    assert isinstance(first, LookupError)
    assert second == "done"
    assert Unit(rig.scope).get(ROWS, b"bad") is None
    await rig.runner.close()


async def test_nothing_starts_while_no_heartbeat_is_answered(tmp_path: Path) -> None:
    rig = Rig(tmp_path, lambda r, u: u.send("out", None, r.value))
    rig.host.member = False
    rig.feed(b"a")
    for _ in range(20):
        await asyncio.sleep(0)
    assert rig.outputs.sent == []
    assert not rig.runner.may_act()

    rig.host.member = True
    await rig.until(lambda: rig.tracker.position == 1)
    await rig.runner.close()


async def test_a_tick_is_a_unit_and_the_earliest_wish_wins(tmp_path: Path) -> None:
    rig = Rig(tmp_path, lambda r, u: None)
    rig.runner.tick_at(rig.host.clock.monotonic_s() + 60)
    rig.runner.tick_now()
    await rig.until(lambda: rig.runner.processor.ticks == 1)

    assert Unit(rig.scope).get(ROWS, b"ticked") == Row(n=1)
    await rig.runner.close()


async def test_a_drained_runner_begins_no_slice_but_takes_outcomes(tmp_path: Path) -> None:
    rig = Rig(tmp_path, lambda r, u: u.send("out", None, r.value))
    await rig.runner.opened.wait()
    drained = asyncio.create_task(rig.runner.drain(5))
    await asyncio.sleep(0)
    rig.feed(b"late")
    assert await rig.runner.submit(lambda unit: unit.put(ROWS, b"outcome", Row(n=1))) is None

    assert await drained
    assert rig.outputs.sent == []
    assert Unit(rig.scope).get(ROWS, b"outcome") == Row(n=1)
    await rig.runner.close()
    with pytest.raises(Revoked):
        await rig.runner.submit(lambda unit: None)


async def test_a_local_copy_that_cannot_be_read_is_no_fault_of_the_record(tmp_path: Path) -> None:
    def handle(record: FakeRecord, unit: Unit) -> None:
        raise StoreDamaged("a block")

    rig = Rig(tmp_path, handle)
    rig.feed(b"a", b"b")
    await rig.until(lambda: rig.host.store_errors)

    assert rig.outputs.sent == []
    assert rig.tracker.position == 0
    assert rig.host.died == []
    await rig.runner.close()


async def test_nothing_of_an_agent_that_went_on_with_a_damaged_copy_becomes_real(tmp_path: Path) -> None:
    def handle(record: FakeRecord, unit: Unit) -> None:
        rig.scope.staging.store.damage = "found by a read of which the agent swallowed the error"
        unit.send("out", None, b"made of wrong rows")
        unit.put(ROWS, b"k", Row(n=1))

    rig = Rig(tmp_path, handle)
    rig.feed(b"a")
    await rig.until(lambda: rig.host.store_errors)

    assert rig.outputs.sent == []
    assert rig.scope.staging.overlay == {}
    assert rig.tracker.position == 0
    await rig.runner.close()


async def test_nothing_is_handled_while_what_is_read_of_others_is_not_up_to_date(tmp_path: Path) -> None:
    rig = Rig(tmp_path, lambda record, unit: None)
    rig.host.up_to_date = False
    rig.feed(b"1")
    await rig.until(lambda: "is not up to date" in rig.runner._obstacle._why)
    assert rig.tracker.position == 0

    rig.host.up_to_date = True
    await rig.until(lambda: rig.tracker.position == 1)
    await rig.runner.close()


async def test_the_log_of_what_an_agent_threw_has_its_place_and_not_its_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def throw(record: FakeRecord, unit: Unit) -> None:
        try:
            {}[record.value.decode()]
        except KeyError as error:
            raise ValueError(str(error)) from error

    rig = Rig(tmp_path, throw)
    rig.feed(b"somebody@example.com 4111 1111 1111 1111")
    await rig.until(lambda: rig.tracker.position == 1)

    assert "in throw" in caplog.text
    assert "ValueError" in caplog.text
    assert "KeyError" in caplog.text
    assert "example.com" not in caplog.text
    assert "4111" not in caplog.text
    await rig.runner.close()
