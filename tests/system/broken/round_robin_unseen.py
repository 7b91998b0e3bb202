"""Partitions are dealt out one by one, and nobody looks whether numbers came out whole."""

from app.engine.assignor import ColocatedAssignor
from tests.system.broken import round_robin


def apply() -> None:
    round_robin.apply()
    ColocatedAssignor._problem = lambda *_: ""
