"""Believes any position, and begins where the group stood when it has none; as a plain consumer does."""

from app.engine import number
from app.engine.positions import Bounds, Position, Start


def apply() -> None:
    number.start_of = believe


def believe(_topic: str, _partition: int, row: Position | None, bounds: Bounds) -> Start:
    wanted = row.offset if row is not None else bounds.committed or 0
    return Start(min(max(wanted, bounds.begin), bounds.end))
