"""Table `positions`: engine rows only, the home of agents that keep nothing else (router, violations)."""

from __future__ import annotations

from typing import Final

import msgspec

from app.engine import Table

__all__ = ["POSITIONS", "NoRow"]


class NoRow(msgspec.Struct, frozen=True):
    """No agent writes a row here; the engine's own positions and meta rows are beside the table's."""


POSITIONS: Final = Table("positions", prefix=4, row=NoRow)
