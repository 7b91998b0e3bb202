"""Positions are not copied to the group. They are a copy for tools, so this must cost nothing."""

from collections.abc import Mapping

from app.engine.offset_copies import OffsetCopies


def apply() -> None:
    def keep_none(self: OffsetCopies, offsets: Mapping[tuple[str, int], int]) -> None:
        return

    OffsetCopies.add = keep_none
