"""Reads header names as aiokafka does: UTF-8, or the whole batch is refused."""

from typing import Any

from app.engine import taking


def apply() -> None:
    taking.read_batch_again = refuse


def refuse(_records: Any, _base_offset: int) -> Any:
    raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
