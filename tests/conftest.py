"""Fixtures and settings that every folder of tests may use."""

import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = ["tests.support.kafka", "tests.support.secure_kafka", "tests.support.canary_hooks"]

# In CI a failure must be one that anybody can repeat; elsewhere new examples are worth more.
settings.register_profile("ci", derandomize=True, database=None, deadline=None, print_blob=True)
settings.register_profile("dev", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "dev")

# RocksDB waits for the disk ten times at each opening, and a worker opens dozens. What dies in a test is a process,
# to which memory is as good a disk as any other; what a test that failed has left is kept, as elsewhere.
MEMORY = Path("/dev/shm")  # noqa: S108  # pytest makes a folder of ours in it
ROOM_BYTES = 6 << 30
if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= ROOM_BYTES:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_told_of_a_broker_later(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a module with a broker leaves to the garbage collector is collected here.

    Futures that failed tell the log so when they go, with a traceback, for which Python 3.11 parses source. In the
    middle of another parse, as hypothesis and pytest make them, that ends the whole run ("AST constructor recursion
    depth mismatch").
    """
    yield
    if {"integration", "system"} & set(request.path.parts):
        gc.collect()
