"""The logging of the test process, as it was before a test configured it."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from app.observability.logging import configure_logging


@contextmanager
def logging_restored() -> Iterator[None]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    try:
        yield
    finally:
        configure_logging("json", "info", "stdout", stream=io.StringIO())
        root.handlers[:], root.level = before, level
        logging.captureWarnings(capture=False)
