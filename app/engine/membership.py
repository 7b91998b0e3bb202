"""What a worker remembers of its group over a restart, in `DATA_DIR`.

Its member id, to take its dead self out of the group at start, so that nobody waits for a session to end; and its
claims, so that it gets the same numbers, whose rows are on its disk.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from pathlib import Path
from typing import IO

import msgspec
from aiokafka import errors as kafka_errors
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.protocol.group import LeaveGroupRequest

from app.brokers import Connection
from app.engine.coordinators import patient
from app.engine.errors import StartRefused

__all__ = ["DataDir", "Membership", "leave_group"]

log = logging.getLogger("app.engine.membership")

LEAVE_DEADLINE_S = 5.0
PROBE_BYTES = 1 << 20


class Membership(msgspec.Struct, frozen=True):
    """The last assignment: who we were, and what we held."""

    member_id: str = ""
    generation: int = -1
    held: tuple[int, ...] = ()


class DataDir:
    """The locked data directory of one process.

    Args:
        path: Created if missing.

    Raises:
        StartRefused: Another process has it, or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock: IO[str] = (path / "lock").open("w")
        except OSError as error:
            raise _unwritable(path, error) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise StartRefused(
                f"DATA_DIR {path} is in use by another process; give each worker its own VAULT_STREAM_DATA_DIR"
            ) from error
        try:
            _probe(path / "probe")
        except OSError as error:
            self._lock.close()
            raise _unwritable(path, error) from error

    def membership(self) -> Membership:
        """What was kept; nothing usable is like nothing kept."""
        try:
            return msgspec.json.decode((self.path / "membership.json").read_bytes(), type=Membership)
        except (OSError, msgspec.DecodeError):
            return Membership()

    def remember(self, membership: Membership) -> None:
        """Keep it, atomically."""
        _replace(self.path / "membership.json", msgspec.json.encode(membership))

    def close(self) -> None:
        """Release the lock."""
        self._lock.close()


def _unwritable(path: Path, error: OSError) -> StartRefused:
    return StartRefused(
        f"DATA_DIR {path} cannot be written: {error.strerror}; make room or change its owner,"
        " or set VAULT_STREAM_DATA_DIR"
    )


def _probe(file: Path) -> None:
    """Whoever cannot even write this would take numbers and end at their first row, again and again."""
    try:
        file.write_bytes(bytes(PROBE_BYTES))
    finally:
        file.unlink(missing_ok=True)


def _replace(file: Path, data: bytes) -> None:
    temporary = file.with_suffix(".new")
    temporary.write_bytes(data)
    os.replace(temporary, file)  # noqa: PTH105  # Path.replace is the same; this one says atomic


async def leave_group(connection: Connection, group: str, member_id: str) -> bool:
    """Take a dead member out of its group (LeaveGroup).

    Returns:
        Whether the broker took it; False changes nothing but the time until the session ends.
    """
    client = patient(AIOKafkaClient(**connection.aiokafka(), client_id=f"{group}-leave"))
    try:
        async with asyncio.timeout(LEAVE_DEADLINE_S):
            await client.bootstrap()
            node = await client.coordinator_lookup(CoordinationType.GROUP, group)
            request = LeaveGroupRequest(group, member_id)
            if not await client.ready(node, group=ConnectionGroup.COORDINATION):
                return False
            answer = await client.send(node, request, group=ConnectionGroup.COORDINATION)
    except (kafka_errors.KafkaError, TimeoutError, OSError) as error:
        log.info("the former member %s was not taken out of the group: %r", member_id, error)
        return False
    finally:
        await client.close()
    return bool(answer.error_code == 0)
