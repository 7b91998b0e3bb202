"""Whatever step of a checkpoint a process dies in: log and disk agree on a state and on the position that made it."""

import asyncio
import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine import Clock, faults
from app.engine.changelog import Write
from app.engine.errors import OutputFailed, OutputTooLarge, Revoked
from app.engine.late_outputs import LateOutputs
from app.engine.obstacle import OBSTACLE_SHOWN_AFTER_S
from app.engine.outputs import Message
from app.engine.positions import META_KEY, POSITIONS_KEY, Meta, Position, decode_positions, encode_positions
from tests.support.engine import ROWS, RecordingOutputs
from tests.support.lives import AGENTS, IN, RELAY, Life, SteppedClock, fold, lived
from tests.support.number import MemoryLog

POINTS = [point for point in faults.POINTS if point.startswith("checkpoint:")]


def armed(point: str) -> None:
    faults.arm(faults.parse(f"{point}:raise"))


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    faults.arm(None)


def test_rows_come_before_positions_and_the_home_changelog_is_last(tmp_path: Path) -> None:
    log = MemoryLog()
    with lived(tmp_path, log) as life:
        life.handle("fold", 2)
        life.handle("relay", 1)
        assert life.checkpoint()

    (writes,) = log.transactions
    assert [write.topic for write in writes] == ["rows", "places"]
    assert [key for key, _ in writes[0].items] == [b"k0", b"k1"]
    assert [key for key, _ in writes[1].items] == [
        b"\x00meta/fold",
        b"\x00positions/fold",
        b"\x00meta/relay",
        b"\x00positions/relay",
    ]


def test_the_meta_row_is_logged_once_whoever_comes_later(tmp_path: Path) -> None:
    log = MemoryLog()
    for name in ("disk", "disk", "another disk"):
        with lived(tmp_path / name, log) as life:
            for _ in range(2):
                life.handle("fold", 1)
                life.checkpoint()

    metas = [record for record in log.records["places", 0] if record.key == META_KEY + b"fold"]
    assert [msgspec.msgpack.decode(record.value, type=Meta) for record in metas] == [Meta(4, 1)]


def test_positions_of_partitions_that_are_not_read_now_are_kept(tmp_path: Path) -> None:
    log = MemoryLog()
    former = encode_positions({IN: Position("id", 7), ("gone", 4): Position("old", 9)})
    log.append([Write("places", 0, [(POSITIONS_KEY + b"fold", former)])])
    with lived(tmp_path, log) as life:
        life.handle("fold", 3)
        life.checkpoint()
    with lived(tmp_path, log, sources=(RELAY,)) as life:
        life.handle("relay", 1)
        life.checkpoint()

    logged = decode_positions(log.rows("places")[POSITIONS_KEY + b"fold"])
    assert logged == {IN: Position("id", 10), ("gone", 4): Position("old", 9)}


def test_what_was_sent_late_is_acknowledged_before_anything_is_logged_however_often_it_must_be_tried(
    tmp_path: Path,
) -> None:
    log = MemoryLog()
    with lived(tmp_path, log) as life:
        life.handle("fold", 2)
        life.handle("fold", 1)
        life.outputs.failures += [OutputFailed("no"), OutputTooLarge("told", 0)]
        logged_when_sent: list[int] = []
        send_many = life.outputs.send_many

        async def send(messages: Sequence[Message]) -> None:
            logged_when_sent.append(len(log.transactions))
            await send_many(messages)

        life.outputs.send_many = send
        assert life.checkpoint()

        assert logged_when_sent == [0, 0, 0]
        assert [message.value for message in life.outputs.sent] == [b"0", b"1", b"2"]
        assert len(log.transactions) == 1
        life.handle("relay", 1)
        assert life.checkpoint()
        assert logged_when_sent == [0, 0, 0], "sent once"


def test_what_is_sent_late_is_given_up_with_the_number_and_its_rows_are_not_logged(tmp_path: Path) -> None:
    log = MemoryLog()
    with lived(tmp_path, log) as life:
        life.handle("fold", 1)
        life.outputs.failures.append(OutputFailed("no"))
        life.ours = False

        with pytest.raises(Revoked, match="taken away"):
            life.checkpoint()

    assert log.transactions == []
    assert life.outputs.sent == []


def test_an_agent_whose_outputs_are_not_taken_holds_up_no_other_and_is_logged_once_they_are(tmp_path: Path) -> None:
    log = MemoryLog()
    with lived(tmp_path, log) as life:
        taken = asyncio.Event()

        async def send(messages: Sequence[Message]) -> None:
            await taken.wait()
            life.outputs.sent += messages

        life.outputs.send_many = send

        async def scene() -> None:
            life.handle("fold", 2)
            life.handle("relay", 1)
            assert await life.checkpointer.run(0.01)
            assert life.checkpointer.unsent == {"fold"}
            assert (life.position("fold"), life.position("relay")) == (0, 1)

            life.handle("fold", 1)
            life.handle("relay", 1)
            assert await life.checkpointer.run(0.01)
            assert (life.position("fold"), life.position("relay")) == (0, 2)
            assert not await life.checkpointer.run(0.01), "nothing else is to be logged"

            woken = life.woken
            taken.set()
            async with asyncio.timeout(5):
                while life.woken == woken:
                    await asyncio.sleep(0)
            assert await life.checkpointer.run()
            assert (life.checkpointer.unsent, life.position("fold")) == (set(), 2)
            assert await life.checkpointer.run()
            assert life.position("fold") == 3

        asyncio.run(scene())
    assert [message.value for message in life.outputs.sent] == [b"0", b"1", b"2"]


def test_a_number_that_is_dropped_sends_nothing_late_any_more(tmp_path: Path) -> None:
    log = MemoryLog()
    with lived(tmp_path, log) as life:
        life.outputs.failures += [OutputFailed("no")] * 2

        async def scene() -> None:
            life.handle("fold", 1)
            await life.checkpointer.run(0.0)
            assert life.checkpointer.unsent == {"fold"}
            await life.checkpointer.close()
            assert {task for task in asyncio.all_tasks() if task is not asyncio.current_task()} == set()

        asyncio.run(scene())
        assert life.position("fold") == 0
    assert life.outputs.sent == []


def test_nothing_is_sent_late_while_no_heartbeat_is_answered() -> None:
    outputs, alive = RecordingOutputs(), False
    late = LateOutputs(0, outputs, Clock(), lambda: True, lambda: alive)

    async def scene() -> None:
        nonlocal alive
        sending = asyncio.create_task(late.send([Message("told", None, b"1")]))
        await asyncio.sleep(0.06)
        assert outputs.sent == []
        alive = True
        await sending

    asyncio.run(scene())
    assert len(outputs.sent) == 1


def test_outputs_that_are_not_taken_for_long_are_told_to_whoever_asks_why_a_worker_is_not_ready() -> None:
    clock = SteppedClock()
    outputs = RecordingOutputs(failures=[OutputFailed("no leader")] * 3)
    late = LateOutputs(7, outputs, clock, lambda: True, lambda: True)

    async def scene() -> list[str | None]:
        sending = asyncio.create_task(late.send([Message("told", None, b"1")]))
        problems = [late.problem()]
        while len(outputs.failures) > 1:
            await asyncio.sleep(0)
            clock.now_s += OBSTACLE_SHOWN_AFTER_S
        problems.append(late.problem())
        await sending
        return [*problems, late.problem()]

    before, meanwhile, after = asyncio.run(scene())
    assert (before, after) == (None, None)
    assert meanwhile is not None
    assert "number 7: no leader" in meanwhile


def test_a_clean_number_logs_nothing(tmp_path: Path) -> None:
    log = MemoryLog()
    with lived(tmp_path, log) as life:
        life.handle("fold", 1)
        assert life.checkpoint()
        assert not life.checkpoint()
    assert len(log.transactions) == 1


def test_the_group_gets_a_copy_of_the_positions_and_its_failure_changes_nothing(tmp_path: Path) -> None:
    log = MemoryLog()
    with lived(tmp_path, log) as life:
        life.handle("fold", 3)
        life.checkpoint()
        assert life.committed == {IN: 3, RELAY: 0}

        async def fails(offsets: object) -> None:
            raise OSError("the coordinator is away")

        life.checkpointer._commit_offsets = fails
        life.handle("fold", 1)
        assert life.checkpoint()
        assert life.position("fold") == 4


@pytest.mark.parametrize("point", [*POINTS[: POINTS.index("checkpoint:stored")]])
def test_after_a_step_that_failed_nothing_is_frozen_over_it(tmp_path: Path, point: str) -> None:
    log = MemoryLog()
    with lived(tmp_path, log) as life:
        life.handle("fold", 2)
        armed(point)
        with pytest.raises(Exception, match=point):
            life.checkpoint()
        life.handle("fold", 1)
        logged = len(log.transactions)

        with pytest.raises(Revoked, match="no known outcome"):
            life.checkpoint()

        assert len(log.transactions) == logged
        assert life.on_disk() == {}


def test_after_a_disk_that_failed_nothing_is_frozen_over_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = MemoryLog()
    with lived(tmp_path, log) as life:
        life.handle("fold", 2)
        with monkeypatch.context() as broken:
            broken.setattr(life.stores["fold"], "write", _no_space)
            with pytest.raises(Exception, match="No space left"):
                life.checkpoint()
        life.handle("fold", 1)

        with pytest.raises(Revoked, match="no known outcome"):
            life.checkpoint()

        assert len(log.transactions) == 1
        assert life.position("fold") == 0


def _no_space(*_: object, **__: object) -> None:
    raise Exception("IO error: No space left on device")  # noqa: TRY002  # what rocksdict raises


ends = st.sampled_from([*POINTS, "disk of fold", "disk of relay", "answer lost", "no answer", "between checkpoints"])
works = st.lists(
    st.one_of(st.tuples(st.sampled_from(["fold", "relay"]), st.integers(1, 4)), st.just(("checkpoint", 0))), max_size=6
)
lives = st.lists(st.tuples(works, ends, st.booleans()), min_size=1, max_size=5)


@settings(max_examples=60)
@given(lives=lives)
def test_after_any_crash_state_and_position_are_those_of_the_acknowledged_transactions(
    lives: list[tuple[list[tuple[str, int]], str, bool]],
) -> None:
    log = MemoryLog()
    with tempfile.TemporaryDirectory() as folder:
        acknowledged = {"fold": 0, "relay": 0}
        for number, (work, end, wiped) in enumerate(lives):
            path = Path(folder) / (f"wiped-{number}" if wiped else "kept")
            with lived(path, log) as life:
                assert_consistent(life, acknowledged)
                for what, count in work:
                    if what == "checkpoint":
                        life.checkpoint()
                    else:
                        life.handle(what, count)
                acknowledged = crash(life, end, acknowledged)
        with lived(Path(folder) / "kept", log) as life:
            assert_consistent(life, acknowledged)


def crash(life: Life, end: str, acknowledged: dict[str, int]) -> dict[str, int]:
    """End a life; the positions that the log has then."""
    before = len(life.log.transactions)
    done = {name: life.tracker(name).position for name in AGENTS}
    if before and not life.checkpointer.dirty():
        return done
    if end == "answer lost":
        life.changelog.answer_lost = True
    elif end == "no answer":
        life.changelog.failures = [OSError("no answer")]
    elif end.startswith("disk of "):
        life.stores[end.removeprefix("disk of ")].write = _no_space
    elif end in POINTS:
        armed(end)
    else:
        logged = {name: life.position(name) for name in AGENTS}
        assert all(logged[name] >= acknowledged[name] for name in AGENTS)
        return logged
    with contextlib.suppress(Exception):
        life.checkpoint()
    faults.arm(None)
    return done if len(life.log.transactions) > before else {name: life.position(name) for name in AGENTS}


def assert_consistent(life: Life, acknowledged: dict[str, int]) -> None:
    assert {name: life.position(name) for name in AGENTS} == acknowledged
    wanted = fold(acknowledged["fold"])
    assert life.on_disk() == wanted
    assert {key: ROWS.decode(value) for key, value in life.log.rows("rows").items()} == wanted
    assert life.index_on_disk() == [b"\x81tag/odd/" + key for key, row in sorted(wanted.items()) if row.tag]
