"""Rows and positions are on disk before the changelog has them."""

from app.engine.checkpoint import Checkpointer


def apply() -> None:
    writes = Checkpointer._writes

    def disk_first(self: Checkpointer, frozen: list) -> list:
        for part in frozen:
            part.state.staging.store.write(part.rows | part.engine_rows, {})
        return writes(self, frozen)

    Checkpointer._writes = disk_first
