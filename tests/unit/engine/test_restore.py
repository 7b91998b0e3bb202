"""What comes out of a changelog: into a store, and into a table in memory."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from aiokafka import errors as kafka_errors

from app.engine import Agent, Connection, slice_handler
from app.engine.engine import Engine, EngineConfig
from app.engine.restore import FRESH_FOR_S, Replica, Sink, apply_records
from tests.support.engine import ROWS, FakeRecord, Row, new_store
from tests.support.number import until

LOG = "rows"
TP = (LOG, 0)


def row(offset: int, key: bytes, n: int | None = None, *, tag: str = "") -> FakeRecord:
    return FakeRecord(LOG, 0, offset, key=key, value=None if n is None else ROWS.encode(Row(n=n, tag=tag)))


class ScriptedReader:
    """Hands out what it is given, then waits; its ends are known from `ends` on."""

    def __init__(self, *steps: tuple[Sequence[FakeRecord], int] | Exception) -> None:
        self.steps = list(steps)
        self.ends: dict[tuple[str, int], tuple[int, int]] | None = None
        self.starts: list[dict[tuple[str, int], int]] = []
        self.more = asyncio.Event()

    async def follow(self, start: Mapping[tuple[str, int], int], sink: Sink, client_id: str) -> None:
        self.starts.append(dict(start))
        while True:
            while self.steps:
                step = self.steps.pop(0)
                if isinstance(step, Exception):
                    raise step
                await sink(TP, *step)
            self.more.clear()
            await self.more.wait()

    async def bounds(self, partitions: Sequence[tuple[str, int]]) -> dict[tuple[str, int], tuple[int, int]]:
        if self.ends is None:
            raise TimeoutError
        return self.ends

    def add(self, *step: object) -> None:
        self.steps.append(step)
        self.more.set()

    async def close(self) -> None: ...


@pytest.fixture
def replica() -> Replica[Row]:
    return Replica(ROWS, LOG, 1)


async def ended(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_rows_tombstones_and_listeners_follow_the_changelog(replica: Replica[Row]) -> None:
    heard: list[tuple[bytes, Row | None]] = []
    replica.subscribe(lambda key, row: heard.append((key, row)))
    reader = ScriptedReader(([row(0, b"a", 1), row(1, b"b", 2), row(2, b"a")], 3))
    task = asyncio.create_task(replica.run(reader, "c"))

    assert await replica.caught_up({TP: 3}, 5)

    assert replica.rows == {b"b": Row(n=2)}
    assert heard == [(b"a", Row(n=1)), (b"b", Row(n=2)), (b"a", None)]
    await ended(task)


async def test_engine_rows_are_no_rows_of_the_table(replica: Replica[Row]) -> None:
    reader = ScriptedReader(([FakeRecord(LOG, 0, 0, key=b"\x00positions/a", value=b"anything")], 1))
    task = asyncio.create_task(replica.run(reader, "c"))

    assert await replica.caught_up({TP: 1}, 5)

    assert replica.rows == {}
    await ended(task)


async def test_a_row_that_cannot_be_decoded_ends_the_task_and_names_the_table(replica: Replica[Row]) -> None:
    reader = ScriptedReader(([row(0, b"a", 1), FakeRecord(LOG, 0, 1, key=b"b", value=b"\x07bad")], 2))

    with pytest.raises(ValueError, match="table rows: row version 7"):
        async with asyncio.timeout(5):
            await replica.run(reader, "c")


async def test_a_replica_whose_task_ends_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent(name="a", topics=("in",), processor=slice_handler(_nothing), home=ROWS, tables=(ROWS,))
    engine = Engine(
        EngineConfig(
            app_id="app",
            connection=Connection("127.0.0.1:1"),
            numbers=1,
            data_dir=tmp_path,
            instance="w",
            url="http://127.0.0.1:1",
            quarantine_topic="quarantine",
        ),
        [agent],
    )
    died: list[str] = []
    monkeypatch.setattr(engine, "die", lambda why, code=70: died.append(why))
    engine.reader = ScriptedReader(([FakeRecord("app-rows-changelog", 0, 0, key=b"b", value=b"\x07bad")], 1))
    engine.readers.ends = ScriptedReader()
    engine.replica(ROWS)

    await engine.start()
    await until(lambda: died)
    await engine.stop()

    assert len(died) == 1
    assert died[0].startswith("the replica of rows ended: ValueError")


async def _nothing(*_: object) -> None: ...


async def test_a_broker_that_is_away_is_waited_for_and_read_on_from_where_it_was(replica: Replica[Row]) -> None:
    reader = ScriptedReader(([row(0, b"a", 1)], 1), kafka_errors.KafkaConnectionError("away"), ([row(1, b"a", 2)], 2))
    task = asyncio.create_task(replica.run(reader, "c"))

    assert await replica.caught_up({TP: 2}, 5)

    assert reader.starts == [{TP: 0}, {TP: 1}]
    assert replica.rows == {b"a": Row(n=2)}
    await ended(task)


async def test_it_is_ready_once_the_ends_of_the_start_are_reached_and_not_before(replica: Replica[Row]) -> None:
    reader = ScriptedReader(([row(0, b"a", 1)], 1))
    following = asyncio.create_task(replica.run(reader, "c"))
    watching = asyncio.create_task(replica.keep_fresh(reader))
    assert await replica.caught_up({TP: 1}, 5)
    assert not replica.ready

    reader.ends = {TP: (0, 2)}
    for _ in range(20):
        await asyncio.sleep(0)
    assert not replica.ready

    reader.add([], 2)
    async with asyncio.timeout(10):
        while not replica.ready:
            await asyncio.sleep(0.01)
    assert replica.fresh
    await ended(watching)
    await ended(following)


async def test_it_is_fresh_no_longer_than_it_was_seen_at_the_end(replica: Replica[Row]) -> None:
    replica.fresh_at = time.monotonic()
    assert replica.fresh
    replica.fresh_at -= FRESH_FOR_S
    assert not replica.fresh


async def test_what_a_store_has_applied_is_not_applied_again(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.write({ROWS.store_key(b"a"): ROWS.encode(Row(n=5, tag="new"))}, {LOG: 2})

    await apply_records(store, "me", ROWS, LOG, [row(0, b"a", 1, tag="old"), row(1, b"a"), row(2, b"b", 3)], 4)

    assert store.get(ROWS.store_key(b"a")) == ROWS.encode(Row(n=5, tag="new"))
    assert store.get(ROWS.store_key(b"b")) == ROWS.encode(Row(n=3))
    assert [key for key, _ in store.items(b"\x81", b"\x82")] == [b"\x81tag/new/a"]
    assert store.applied(LOG) == 4
    store.close()


async def test_engine_rows_of_other_agents_in_a_shared_changelog_are_not_taken(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    names = (b"me", b"another", b"not-me")
    engine_rows = [FakeRecord(LOG, 0, o, key=b"\x00positions/" + n, value=n) for o, n in enumerate(names)]

    await apply_records(store, "me", ROWS, LOG, engine_rows, 3)

    assert store.get(b"\x00positions/me") == b"me"
    assert store.get(b"\x00positions/another") is None
    assert store.get(b"\x00positions/not-me") is None
    store.close()


@pytest.mark.parametrize("reached", [0, 3])
async def test_control_records_and_compacted_rows_move_the_applied_offset(tmp_path: Path, reached: int) -> None:
    store = new_store(tmp_path)
    store.write({}, {LOG: reached})

    await apply_records(store, "me", ROWS, LOG, [], 3)

    assert store.applied(LOG) == 3
    store.close()
