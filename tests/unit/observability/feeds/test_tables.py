"""Tables, checkpoints and restores feed their metrics."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.engine import Agent
from app.engine.changelog import Write
from app.engine.errors import CheckpointFailed, StoreDamaged
from app.engine.restore import apply_records
from tests.support.engine import ROWS, FakeRecord, Row, new_store
from tests.support.metric_samples import Change, value
from tests.support.number import FakeServices, put, ready_number, until
from tests.support.quiet import Quiet


def storage(operation: str, status: str = "ok") -> dict[str, str]:
    return {"backend": "rocksdb", "operation": operation, "status": status}


def latency(operation: str) -> dict[str, str]:
    return {"backend": "rocksdb", "operation": operation}


async def test_reads_and_writes_of_tables_feed_the_storage_metrics(tmp_path: Path) -> None:
    change, store = Change(), new_store(tmp_path)
    row = ROWS.encode(Row(tag="red"))
    store.write({ROWS.store_key(b"a"): row}, {})
    assert store.get(ROWS.store_key(b"a")) == row
    assert store.get(ROWS.store_key(b"b")) is None
    assert len(list(store.items(ROWS.prefix_byte, b"\xfe"))) == 2
    services = FakeServices(tmp_path)
    agent = Agent(name="x", topics=(), processor=Quiet, home=ROWS, tables=(ROWS,))
    await apply_records(
        services.store(agent, 0), "x", ROWS, "log", [FakeRecord("log", 0, offset=0, key=b"k", value=row)], 1
    )
    assert change.of("storage_operations_total", **storage("put")) == 1
    assert change.of("storage_operations_total", **storage("get")) == 2
    assert change.of("storage_operations_total", **storage("scan")) == 1
    assert change.of("storage_operations_total", **storage("restore")) == 1
    for operation in ("put", "get", "scan", "restore"):
        assert change.of("storage_latency_seconds_count", **latency(operation)) > 0
        assert change.of("storage_latency_seconds_sum", **latency(operation)) > 0
    assert change.of("storage_bytes_total", backend="rocksdb", direction="read") >= 2 * len(row)
    assert change.of("storage_bytes_total", backend="rocksdb", direction="write") >= 2 * len(row)
    store._db.close()
    store._db = SimpleNamespace(get=_damaged, close=lambda: None)
    with pytest.raises(StoreDamaged):
        store.get(b"\x01a")
    assert change.of("storage_operations_total", **storage("get", "error")) == 1
    services.store(agent, 0).close()


def _damaged(_key: bytes) -> bytes:
    raise RuntimeError("Corruption: block checksum mismatch")


async def test_checkpoints_feed_their_metrics_and_so_does_a_restore(tmp_path: Path) -> None:
    change = Change()
    agent = Agent(name="x", topics=("x",), processor=_quiet(), home=ROWS, tables=(ROWS,))
    services = FakeServices(tmp_path, agent)
    number = await ready_number(services)
    await number.runners["x"].submit(put(b"k"))
    await number.runners["x"].checkpoint()
    assert change.of("vault_stream_checkpoints_total", outcome="committed") == 1
    assert change.of("vault_stream_checkpoint_seconds_count") == 1
    assert change.of("storage_operations_total", **storage("checkpoint")) == 1
    assert change.of("storage_latency_seconds_count", **latency("checkpoint")) == 1

    services.changelog.failures.append(CheckpointFailed("no answer"))
    await number.runners["x"].submit(put(b"l"))
    await until(lambda: change.of("vault_stream_checkpoints_total", outcome="failed") == 1)
    assert change.of("storage_operations_total", **storage("checkpoint", "error")) == 1
    await until(lambda: number.ready)

    services.store(agent, 0).wipe("damaged", "for the test")
    assert change.of("vault_stream_stores_removed_total", reason="damaged") == 1
    number.reopen("its copy is gone")
    await until(lambda: change.of("vault_stream_restored_rows_total", table=ROWS.name) >= 1 and number.ready)
    assert value("vault_stream_restore_remaining_rows") == 0
    await number.close(0.0, lost=True)
    services.store(agent, 0).close()


def _quiet() -> type[Quiet]:
    return type("Mine", (Quiet,), {"closings": []})


async def test_what_is_still_to_be_restored_is_a_gauge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent(name="x", topics=("x",), processor=_quiet(), home=ROWS, tables=(ROWS,))
    services, seen = FakeServices(tmp_path, agent), list[float]()
    services.reader.append([Write(ROWS.name, 0, [(b"k", ROWS.encode(Row(n=1)))] * 3)])
    read = services.reader.read

    async def watched(*args: Any) -> None:
        seen.append(value("vault_stream_restore_remaining_rows"))
        await read(*args)

    monkeypatch.setattr(services.reader, "read", watched)
    before = value("vault_stream_restore_remaining_rows")
    number = await ready_number(services)
    assert seen[0] - before == 4  # three rows, and what ends their transaction
    assert value("vault_stream_restore_remaining_rows") == before
    await number.close(0.0, lost=True)
    services.store(agent, 0).close()
