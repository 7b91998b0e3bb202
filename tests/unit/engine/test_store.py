import shutil
import struct
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.engine.store import FULL_DISK_BYTES, LAST_USED, READ_TOGETHER, Store, close_all
from app.engine.table import Table
from app.observability import metrics
from tests.support.engine import ROWS, Row, age, new_store


def key(name: bytes) -> bytes:
    return ROWS.store_key(name)


def index_of(store: Store) -> list[bytes]:
    return [k for k, _ in store.items(b"\x81", b"\x82")]


def test_rows_index_and_applied_offset_are_there_after_it_is_opened_again(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.write({key(b"a"): ROWS.encode(Row(tag="red"))}, {"log": 5})
    store.close()

    store = new_store(tmp_path)

    assert store.get(key(b"a")) == ROWS.encode(Row(tag="red"))
    assert index_of(store) == [b"\x81tag/red/a"]
    assert store.applied("log") == 5
    assert store.applied("another") == 0
    store.close()


def test_the_index_follows_a_row_that_changes_and_goes(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.write({key(b"a"): ROWS.encode(Row(tag="red"))}, {})
    store.write({key(b"a"): ROWS.encode(Row(tag="blue"))}, {})
    assert index_of(store) == [b"\x81tag/blue/a"]

    store.write({key(b"a"): None}, {})

    assert index_of(store) == []
    store.close()


def test_the_index_follows_more_rows_than_are_read_at_once(tmp_path: Path) -> None:
    store, names = new_store(tmp_path), [b"%04d" % n for n in range(2 * READ_TOGETHER + 1)]
    for tag in ("red", "blue"):
        store.write({key(name): ROWS.encode(Row(tag=tag)) for name in names}, {})

    assert index_of(store) == [b"\x81tag/blue/" + name for name in names]
    store.close()


def test_a_copy_that_does_not_open_is_removed_and_begins_at_the_logs_start(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.write({key(b"a"): b"\x01\x80"}, {"log": 5})
    store.close()
    (tmp_path / "db" / "CURRENT").write_text("garbage\n")

    store = new_store(tmp_path)

    assert store.wiped == 1
    assert store.applied("log") == 0
    store.close()


def test_a_copy_unused_for_longer_than_tombstones_live_is_removed(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.write({key(b"a"): b"\x01\x80"}, {"log": 5})
    age(store)
    store.close()
    stale = metrics.STORES_REMOVED.labels(reason="stale")
    before = stale._value.get()

    store = new_store(tmp_path)

    assert stale._value.get() == before + 1
    assert store.get(key(b"a")) is None
    assert store.applied("log") == 0
    store.close()


def test_a_copy_with_the_indexes_of_another_release_is_removed_and_begins_at_the_logs_start(tmp_path: Path) -> None:
    older = Table("rows", prefix=1, row=Row, index=lambda key, row: [b"name/" + key])
    newer = Table("rows", prefix=1, row=Row, index=lambda key, row: [b"tag/" + key], index_version=2)
    store = Store(tmp_path / "db", [older], 3600)
    store.write({key(b"a"): ROWS.encode(Row(tag="red"))}, {"log": 5})
    store.close()

    store = Store(tmp_path / "db", [newer], 3600)

    assert (store.wiped, store.applied("log"), index_of(store)) == (1, 0, [])
    store.write({key(b"a"): ROWS.encode(Row(tag="red"))}, {"log": 5})
    store.close()
    store = Store(tmp_path / "db", [newer], 3600)
    assert (store.wiped, store.applied("log"), index_of(store)) == (0, 5, [b"\x81tag/a"])
    store.close()


def test_a_copy_without_an_index_is_never_removed_for_one(tmp_path: Path) -> None:
    plain = Table("rows", prefix=1, row=Row)
    store = Store(tmp_path / "db", [plain], 3600)
    store.write({}, {"log": 5})
    store.close()

    store = Store(tmp_path / "db", [plain], 3600)

    assert (store.wiped, store.applied("log")) == (0, 5)
    store.close()


def test_a_copy_that_does_not_say_which_indexes_it_has_is_removed(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.write({}, {"log": 5})
    store._db.put(LAST_USED, struct.pack(">d", time.time()))
    store.close()

    store = new_store(tmp_path)

    assert (store.wiped, store.applied("log")) == (1, 0)
    store.close()


@pytest.mark.parametrize(("free_bytes", "closed"), [(FULL_DISK_BYTES, True), (FULL_DISK_BYTES - 1, False)])
def test_at_the_end_of_a_process_no_store_asks_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_bytes: int, closed: bool
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free_bytes))
    asked: list[str] = []
    stores = [SimpleNamespace(close=lambda name=name: asked.append(name)) for name in ("a", "b")]

    assert close_all(stores, tmp_path) is closed

    assert asked == (["a", "b"] if closed else [])


def test_stores_are_closed_though_their_directory_is_gone(tmp_path: Path) -> None:
    asked: list[str] = []

    assert close_all([SimpleNamespace(close=lambda: asked.append("a"))], tmp_path / "gone")

    assert asked == ["a"]
