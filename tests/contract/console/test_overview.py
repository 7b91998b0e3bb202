"""What waits, where, and since when."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Route, expect

from tests.support.console import EVIL, NARROW, WIDE, Seen, System

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
    for name in ("kafka", "assignment", "recovery", "store", "webhook_keys", "governance", "policy", "registry"):
        assert checks.get_by_role("rowheader", name=name, exact=True).count() == 1
    seen.page.get_by_role("img", name="events a second now").wait_for()
    seen.check()
    hook = system.run(system.deployment.hook("*"))
    try:
        system.publish(200)
        for way in ("In", "Out"):
            flow = seen.page.get_by_role("region", name=way, exact=True)
            # What was at most stays for two minutes: the moment may be over before both are seen.
            expect(flow.get_by_role("img", name=re.compile(r"at most [1-9]"))).to_be_visible()
        seen.picture("overview")
    finally:
        system.call("DELETE", f"/v1/webhooks/{hook.id}")


def test_what_is_not_well_is_said_first(console: Callable[..., Seen]) -> None:
    seen = console("/webhooks")

    def worker(name: str, **more: Any) -> dict[str, Any]:
        flow = {"events": 5, "attempts": 5, "waiting": {"rate": 7, "pace": 2}, "in_flight": 1}
        flow |= {"quarantined": 1, "deliveries": {"delivered": 9, "failed": 2}}
        recovery = {"restored_rows": 100, "remaining_rows": 39_900, "tables": {}, "left_s": 12.5}
        told = {"worker": name, "version": "1", "not_ready": [], "numbers": {}, "owners": {"0": "w-1", "1": "w-2"}}
        waits = {"lag": {"vault.events": 1200}, "oldest_unfinished_s": {"router": 3.5}, "webhooks": {"failing": 3}}
        return {**told, **waits, "flow": flow, "recovery": recovery, "off": ["policy"], **more}

    def workers(route: Route) -> None:
        here = worker("w-1", not_ready=["number 0 is opening: restoring"], numbers={"0": "opening"})
        other = worker("w-2", recovery=None, numbers={"1": "open"})
        route.fulfill(json={"items": [here, other], "missing": [2]})

    def health(route: Route) -> None:
        details = {"remaining_rows": 39_000, "oldest_unfinished_s": {"router": 3.5}, "free_bytes": 2048}
        check = {"name": "recovery", "status": "unhealthy", "latency_ms": 2, "message": EVIL, "details": details}
        route.fulfill(status=503, json={"status": "unhealthy", "checks": [check]})

    seen.allowed.add(503)
    seen.page.route("**/v1/workers", workers)
    seen.page.route("**/health", health)
    seen.go("/", "Overview")
    reasons = seen.page.get_by_role("region", name="Not ready")
    expect(reasons).to_contain_text("w-1: number 0 is opening: restoring")
    expect(reasons).to_contain_text("No answer for partition 2")
    look = seen.page.get_by_role("region", name="Needs a look")
    expect(look).to_contain_text(f"recovery unhealthy {EVIL}")
    expect(look.get_by_role("link", name="2 records put into quarantine")).to_have_attribute("href", "#/quarantine")
    expect(look.get_by_role("link", name="4 deliveries given up")).to_have_attribute("href", "#/dead-letters")
    recovering = seen.page.get_by_role("region", name="Recovering")
    expect(recovering).to_contain_text(re.compile(r"39,900 rows left to read, about .*\(w-1\)"))
    expect(seen.page.get_by_role("region", name="Waiting")).to_contain_text("14 for rate, 4 for pace")
    expect(seen.page.get_by_role("region", name="Lag by topic")).to_contain_text("2,400")
    partitions = seen.page.get_by_role("table", name="Each partition, its owner and its state")
    expect(partitions.get_by_role("row", name="0")).to_contain_text("opening")
    label = "(cell) => getComputedStyle(cell, '::before').content"
    zero = partitions.get_by_role("rowheader", name="0")
    assert zero.evaluate(label) == "none"
    seen.page.set_viewport_size(NARROW)
    assert zero.evaluate(label).startswith('"Partition')
    seen.page.set_viewport_size(WIDE)
    checks = seen.page.get_by_role("table", name="The checks of the worker that answers here")
    expect(checks.get_by_role("row", name="recovery")).to_contain_text(EVIL)
    expect(checks.get_by_role("row", name="recovery")).to_contain_text("free: 2 KiB")
    expect(seen.page.get_by_role("region", name="Deployment")).to_contain_text("6 failing")
    assert seen.page.locator("main img:not([role])").count() == 0
    # Beside a long message what a check tells more keeps its room, and its name stays in one piece.
    assert checks.get_by_role("cell", name=re.compile("free: 2 KiB")).evaluate("(cell) => cell.offsetWidth") > 200
    assert checks.locator(".name").first.evaluate("(name) => getComputedStyle(name).whiteSpace") == "nowrap"
    seen.check()


def test_what_recovers_is_not_said_to_be_without_lag(console: Callable[..., Seen]) -> None:
    seen = console("/webhooks")

    def workers(route: Route) -> None:
        told: dict[str, Any] = route.fetch().json()
        for worker in told["items"]:
            worker |= {"lag": {}, "recovery": {"restored_rows": 1, "remaining_rows": 9, "tables": {}, "left_s": None}}
        route.fulfill(json=told)

    seen.page.route("**/v1/workers", workers)
    seen.go("/", "Overview")
    lag = seen.page.get_by_role("region", name="Lag by topic")
    expect(lag).to_contain_text("Not known yet.")
    expect(lag).not_to_contain_text("Nothing waits.")
    seen.check()
