"""Rows of the numbers that are open here, for requests that have reached their owner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from app.engine import Revoked
from app.web.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from app.engine import Unit
    from tables.delivery_queries import FoundDelivery, Readers

__all__ = ["read_owned", "taken_over"]

T = TypeVar("T")

RETRY_AFTER_S: Final = 2


async def read_owned(readers: Readers, number: int, job: Callable[[Unit, Mapping[str, FoundDelivery]], T]) -> T:
    """What a job finds in a number, between slices; its second argument are the deliveries that are held in memory.

    Raises:
        Problem: 503, the number is not open here, or not any more.
    """
    reader = readers.get(number)
    if reader is None:
        raise taken_over()
    try:
        return await reader.read(job)
    except Revoked:
        raise taken_over() from None


def taken_over() -> Problem:
    """503 for a row whose number opens at another worker now."""
    detail = "The number of this row is being taken over. Try again."
    return Problem(503, "no_owner", detail, retry_after_s=RETRY_AFTER_S)
