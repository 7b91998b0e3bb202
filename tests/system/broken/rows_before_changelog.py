"""A checkpoint writes rows to the disk before the changelog has them."""

from app.engine.checkpoint import Checkpointer, _Frozen


def apply() -> None:
    writes = Checkpointer._writes

    def write_to_disk_first(checkpointer: Checkpointer, frozen: list[_Frozen]) -> object:
        for part in frozen:
            store = part.state.staging.store
            topics = [checkpointer._topic(table.name) for table in part.state.agent.tables]
            store.write(part.rows | part.engine_rows, {topic: store.applied(topic) for topic in topics})
            store._db.flush()
        return writes(checkpointer, frozen)

    Checkpointer._writes = write_to_disk_first
