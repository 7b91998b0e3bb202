from pathlib import Path

import pytest

from app.engine import StartRefused
from app.engine.membership import DataDir, Membership


def test_a_second_process_on_one_data_dir_is_refused_with_one_line(tmp_path: Path) -> None:
    first = DataDir(tmp_path)

    with pytest.raises(StartRefused, match="in use by another process") as refused:
        DataDir(tmp_path)
    assert "\n" not in str(refused.value)

    first.close()
    DataDir(tmp_path).close()


@pytest.mark.parametrize("content", [None, b"", b"{garbage"])
def test_nothing_usable_kept_is_like_nothing_kept(tmp_path: Path, content: bytes | None) -> None:
    data_dir = DataDir(tmp_path)
    if content is not None:
        (tmp_path / "membership.json").write_bytes(content)

    assert data_dir.membership() == Membership()

    data_dir.remember(Membership("m-1", 4, (1, 2)))
    assert data_dir.membership() == Membership("m-1", 4, (1, 2))
    data_dir.close()


def test_a_data_dir_that_takes_nothing_is_refused_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")

    with pytest.raises(StartRefused, match="cannot be written: Not a directory") as refused:
        DataDir(tmp_path / "file" / "data")

    assert "VAULT_STREAM_DATA_DIR" in str(refused.value)
    assert "\n" not in str(refused.value)
