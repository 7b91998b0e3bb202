"""The readers of one process, one for each purpose: who asks slowly must not hold up an opening."""

from __future__ import annotations

from app.brokers import Connection
from app.engine.restore import LogReader

__all__ = ["LogReaders"]


class LogReaders:
    """See the module.

    Attributes:
        numbers: Openings and restores.
        ends: How far behind we are, and whether replicas are up to date.
        api: Topics that somebody looks at.
    """

    def __init__(self, connection: Connection, client_id: str) -> None:
        self.numbers = LogReader(connection, client_id)
        self.ends = LogReader(connection, f"{client_id}-status")
        self.api = LogReader(connection, f"{client_id}-api")

    def read_uncommitted(self) -> None:
        """This is the embedded cluster, where committed reads hang."""
        for reader in (self.numbers, self.ends, self.api):
            reader.committed_only = False

    async def close(self) -> None:
        """Stop all of them."""
        for reader in (self.numbers, self.ends, self.api):
            await reader.close()
