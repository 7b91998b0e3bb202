"""How to look for a coordinator at a broker that has just been started, or has slept.

It names no brokers at first, not even itself. aiokafka asserts that there is one to ask, which no retry of its own or
of ours takes for what it is: a number ended, and its process with it; in a consumer the coordination ended in silence.
"""

from __future__ import annotations

from typing import Any

from aiokafka import errors as kafka_errors

__all__ = ["patient"]


def patient(client: Any) -> Any:
    """The client, which says that a coordinator is not available while it knows nobody to ask."""
    find = client.coordinator_lookup

    async def lookup(kind: Any, key: str) -> Any:
        if client.get_random_node() is None:
            raise kafka_errors.CoordinatorNotAvailableError("the broker names no brokers yet")
        return await find(kind, key)

    client.coordinator_lookup = lookup
    return client
