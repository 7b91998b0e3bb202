import pytest

from app.engine import RowTooLarge, Table
from app.engine.table import ROW_LIMIT_BYTES
from tests.support.engine import ROWS, Row


def test_a_row_is_a_version_byte_and_a_msgpack_map_without_defaults() -> None:
    assert ROWS.encode(Row(n=1)) == b"\x01\x81\xa1n\x01"
    assert ROWS.decode(ROWS.encode(Row(n=7, tag="x"))) == Row(n=7, tag="x")


def test_a_row_of_an_unknown_version_is_refused_not_guessed() -> None:
    with pytest.raises(ValueError, match="row version 2"):
        ROWS.decode(b"\x02\x80")


def test_a_row_beyond_the_limit_is_refused_at_the_edge() -> None:
    with pytest.raises(RowTooLarge, match="table rows"):
        ROWS.encode(Row(tag="x" * ROW_LIMIT_BYTES))


@pytest.mark.parametrize("key", [b"", b"\x00positions/agent"])
def test_a_row_key_can_never_be_an_engine_row(key: bytes) -> None:
    with pytest.raises(ValueError, match="row key"):
        ROWS.store_key(key)


@pytest.mark.parametrize("prefix", [0, 127, 255])
def test_a_table_prefix_stays_clear_of_engine_and_index_keys(prefix: int) -> None:
    with pytest.raises(ValueError, match="prefix"):
        Table("t", prefix, Row)
