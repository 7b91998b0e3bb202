"""Searches for canaries over a whole test run: a test that lets one out fails, and the run says what was searched."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.support.canaries import WATCH


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Iterator[None]:
    root = logging.getLogger()
    # A test that sets logging up takes away what was there.
    if WATCH not in root.handlers:
        root.addHandler(WATCH)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Iterator[None]:
    result = yield
    if found := WATCH.take():
        pytest.fail(f"a canary was let out: {found[:10]}", pytrace=False)
    return result


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"canaries: {WATCH.places} places searched, {WATCH.size_bytes / 1e6:.1f} MB")
