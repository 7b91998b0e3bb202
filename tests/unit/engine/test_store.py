import struct
from pathlib import Path

from app.engine.store import LAST_USED, Store
from tests.support.engine import ROWS, Row, new_store


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
    store._db.put(LAST_USED, struct.pack(">d", 0.0))
    store.close()

    store = new_store(tmp_path)

    assert store.get(key(b"a")) is None
    assert store.applied("log") == 0
    store.close()
