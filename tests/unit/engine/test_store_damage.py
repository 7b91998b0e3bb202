"""A store whose files were damaged: removed, or how things stood at the offset that it names; never a mixture."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import rocksdict

from app.engine import StoreDamaged, StoreFailed
from app.engine import store as store_module
from app.engine.store import Store
from app.observability import metrics
from tests.support.disk import DAMAGES, Damage, flip_blocks
from tests.support.engine import ROWS, Row, age, new_store

LOG = "log"
Rows = dict[bytes, bytes]


class Warm:
    """A store that was written for a while and then copied, as `kill -9` leaves it; and all that it ever held."""

    def __init__(self, path: Path) -> None:
        self.path = path / "warm"
        self.history: dict[int, Rows] = {0: {}}
        chance = random.Random(7)
        store = new_store(path / "live")
        rows: Rows = {}
        for offset in range(20, 3_001, 20):
            changes: dict[bytes, bytes | None] = {}
            for n in range(20):
                key = ROWS.store_key(b"k%04d" % chance.randrange(1_500))
                row = Row(n=offset + n, tag=f"{chance.getrandbits(120):030x}")
                changes[key] = None if chance.random() < 0.2 else ROWS.encode(row)
            store.write(changes, {LOG: offset})
            rows = {key: value for key, value in (rows | changes).items() if value is not None}
            self.history[offset] = rows
            if offset in (1_000, 2_000):
                store._db.flush()
        # Two files of rows; what was written after them is in memory, and dies with the process.
        shutil.copytree(path / "live" / "db", self.path / "db")
        store.close()

    def copy(self, to: Path) -> Path:
        shutil.copytree(self.path, to)
        return to


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Warm:
    return Warm(tmp_path_factory.mktemp("store"))


def with_index(rows: Rows) -> Rows:
    return rows | {place: key for key, value in rows.items() for place in ROWS.index_of(key, value)}


def content(store: Store) -> Rows:
    return dict(store.items(b"\x00", b"\xff"))


def files(path: Path) -> list[Path]:
    return sorted(file for file in (path / "db").iterdir() if file.stat().st_size and not file.name.startswith("LOG"))


def what_became(warm: Warm, path: Path) -> str:
    """Opens it, reads all of it, and asserts that it is right for the offset that it names."""
    store = new_store(path)
    outcome = "removed" if store.wiped else "whole"
    try:
        found = content(store)
    except StoreDamaged:
        store.wipe("damaged", store.damage)
        outcome, found = "removed when it was read", content(store)
    assert found == with_index(warm.history[store.applied(LOG)])
    store.close()
    return outcome


def test_a_process_that_dies_leaves_a_copy_of_some_offset(warm: Warm, tmp_path: Path) -> None:
    store = new_store(warm.copy(tmp_path / "copy"))

    assert store.applied(LOG) == 2_000
    assert content(store) == with_index(warm.history[2_000])
    store.close()


def test_a_closed_store_has_everything(warm: Warm, tmp_path: Path) -> None:
    store = new_store(warm.copy(tmp_path / "copy"))
    store.write({ROWS.store_key(b"last"): ROWS.encode(Row(n=1))}, {LOG: 9_000})
    store.close()

    store = new_store(tmp_path / "copy")

    assert store.applied(LOG) == 9_000
    assert store.get(ROWS.store_key(b"last")) == ROWS.encode(Row(n=1))
    store.close()


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_whatever_file_is_damaged_the_rows_are_never_wrong(warm: Warm, damage: Damage, tmp_path: Path) -> None:
    outcomes: set[str] = set()
    for at in range(len(files(warm.path))):
        for seed in range(2):
            path = warm.copy(tmp_path / f"{at}-{seed}")
            damage(files(path)[at], random.Random(seed))
            outcomes.add(what_became(warm, path))

    assert any(outcome.startswith("removed") for outcome in outcomes)


def test_wherever_the_manifest_ends_the_rows_are_never_wrong(warm: Warm, tmp_path: Path) -> None:
    (manifest,) = (file for file in files(warm.path) if file.name.startswith("MANIFEST"))
    for size in range(0, manifest.stat().st_size, 7):
        path = warm.copy(tmp_path / str(size))
        (path / "db" / manifest.name).write_bytes(manifest.read_bytes()[:size])
        what_became(warm, path)
        shutil.rmtree(path)


def test_with_a_log_of_its_own_rows_would_be_wrong_where_some_manifests_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_write_options", rocksdict.WriteOptions)
    logging = Warm(tmp_path)
    (manifest,) = (file for file in files(logging.path) if file.name.startswith("MANIFEST"))

    def cut_everywhere() -> None:
        for size in range(manifest.stat().st_size - 1, 0, -5):
            path = logging.copy(tmp_path / str(size))
            (path / "db" / manifest.name).write_bytes(manifest.read_bytes()[:size])
            what_became(logging, path)

    with pytest.raises(AssertionError):
        cut_everywhere()


@pytest.fixture
def damaged(warm: Warm, tmp_path: Path) -> Iterator[Store]:
    """It opens, for what is damaged is read later."""
    path = warm.copy(tmp_path / "copy")
    assert flip_blocks(path / "db")
    store = new_store(path)
    assert store.wiped == 0
    yield store
    store.close()


def test_a_row_in_a_damaged_block_is_an_error_and_not_a_missing_row(warm: Warm, damaged: Store) -> None:
    def read_all() -> None:
        for key, row in warm.history[2_000].items():
            assert damaged.get(key) == row

    with pytest.raises(StoreDamaged, match="Corruption"):
        read_all()


def test_a_scan_ends_with_an_error_and_not_early_at_a_damaged_block(damaged: Store) -> None:
    with pytest.raises(StoreDamaged, match="Corruption"):
        list(damaged.items(b"\x00", b"\xff"))


def test_what_a_write_replaces_in_a_damaged_block_is_an_error_and_not_a_row_that_was_not_there(
    warm: Warm, damaged: Store
) -> None:
    with pytest.raises(StoreDamaged, match="Corruption"):
        damaged.write(dict.fromkeys(warm.history[2_000], None), {LOG: 9_000})

    with pytest.raises(StoreDamaged):
        damaged.applied(LOG)


def test_without_asking_for_the_status_a_scan_would_end_early_in_silence(warm: Warm, damaged: Store) -> None:
    found = dict(damaged._db.items(from_key=b"\x00"))

    assert len(found) < len(with_index(warm.history[2_000]))


def test_nothing_is_read_from_or_written_to_a_store_once_it_was_found_damaged(damaged: Store) -> None:
    with pytest.raises(StoreDamaged):
        list(damaged.items(b"\x00", b"\xff"))

    for call in (
        damaged.check,
        lambda: damaged.get(b"\x01new"),
        lambda: damaged.applied(LOG),
        lambda: next(damaged.items(b"\x00", b"\x01")),
        lambda: damaged.write({}, {LOG: 9_000}),
    ):
        with pytest.raises(StoreDamaged):
            call()


def test_a_damaged_store_begins_anew_once_it_is_wiped(damaged: Store) -> None:
    with pytest.raises(StoreDamaged):
        list(damaged.items(b"\x00", b"\xff"))

    damaged.wipe("damaged", damaged.damage)

    assert content(damaged) == {}
    assert damaged.applied(LOG) == 0


def test_a_damaged_store_that_is_closed_is_not_opened_by_the_next_process(damaged: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreDamaged):
        list(damaged.items(b"\x00", b"\xff"))

    damaged.close()

    store = new_store(tmp_path / "copy")
    assert store.applied(LOG) == 0
    store.close()


def test_a_write_waits_for_a_disk_that_is_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_WRITE_BUFFER_BYTES", 64 << 10)
    store = Store(tmp_path / "db", [], 3600)
    for block in range(100):
        store.write({b"\x01%06d" % n: bytes(300) for n in range(block * 200, block * 200 + 200)}, {LOG: block})

    assert len(list(store.items(b"\x01", b"\x02"))) == 20_000
    store.close()


def test_damage_that_always_comes_back_is_the_disks(damaged: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(store_module.DAMAGES_LIMIT):
        damaged.wipe("damaged", "again")

    with pytest.raises(StoreFailed, match="damaged 6 times"):
        damaged.wipe("damaged", "again")


def test_a_place_that_takes_no_store_is_an_error_of_the_disk_and_removes_nothing(tmp_path: Path) -> None:
    (tmp_path / "db").write_text("a file")

    with pytest.raises(StoreFailed, match=str(tmp_path)):
        Store(tmp_path / "db" / "below", [ROWS], 3600)

    assert (tmp_path / "db").read_text() == "a file"


def test_a_restore_that_was_interrupted_is_as_old_as_what_was_there_before_it(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.write({ROWS.store_key(b"a"): ROWS.encode(Row(n=1))}, {LOG: 5})
    age(store)

    store.write({ROWS.store_key(b"b"): ROWS.encode(Row(n=1))}, {LOG: 9}, current=False)
    store.close()

    stale = metrics.STORES_REMOVED.labels(reason="stale")
    before = stale._value.get()

    store = new_store(tmp_path)

    assert stale._value.get() == before + 1
    assert store.applied(LOG) == 0
    store.close()
