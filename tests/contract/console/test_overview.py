"""What waits, where, and since when."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.support.console import Seen, System

pytestmark = pytest.mark.foreign


@pytest.mark.parametrize("role", ["admin", "viewer"])
def test_it_shows_flow_lag_partitions_and_health(console: Callable[..., Seen], system: System, role: str) -> None:
    seen = console("/", role)
    for title in ("In", "Out", "Waiting", "Lag by topic", "Oldest unfinished", "Partitions", "Health of worker-1"):
        seen.page.get_by_role("heading", name=title, exact=True).wait_for()
    partitions = seen.page.get_by_role("table", name="Each partition, its owner and its state")
    assert partitions.get_by_role("row").count() == 5
    assert partitions.get_by_text("worker-1").count() == 4
    checks = seen.page.get_by_role("table", name="The checks of the worker that answers here")
    for name in ("kafka", "assignment", "recovery", "store", "governance", "policy", "registry"):
        assert checks.get_by_role("rowheader", name=name, exact=True).count() == 1
    seen.page.get_by_role("img", name="events a second now").wait_for()
    seen.check()
    system.publish()
    flow = seen.page.get_by_role("region", name="In", exact=True)
    expect(flow.get_by_text(re.compile(r"[1-9][\d.,]* /s"))).to_be_visible()
    seen.picture("overview")
