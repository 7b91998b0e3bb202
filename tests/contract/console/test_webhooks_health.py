"""Whether a webhook is well, as the console tells it."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import pytest
from playwright.sync_api import Route, expect

from tests.support.console import Seen, System, opened, shown
from tests.support.workers import Hook

pytestmark = pytest.mark.foreign

Console = Callable[..., Seen]


def test_one_is_called_ok_once_it_has_taken_something(console: Console, system: System, webhook: str) -> None:
    seen = opened(console, webhook)
    health = seen.page.get_by_role("region", name="Health")
    expect(health).to_contain_text("unknown")
    expect(health).to_contain_text("First success")
    expect(health).to_contain_text("none yet, at this URL")
    seen.check()
    system.call("POST", f"/v1/webhooks/{webhook}/ping")
    system.until(lambda: "failing_since" in shown(system, webhook), "its first attempt has failed")
    expect(health).to_contain_text("failing from the start")
    seen.check()
    seen.go(f"/webhooks?search={webhook}", "Webhooks")
    expect(seen.page.get_by_role("cell", name="failing from the start")).to_be_visible()
    seen.go("/", "Overview")
    facts = seen.page.get_by_role("region", name="Deployment")
    expect(facts).to_contain_text(re.compile(r"\d failing from the start"))
    assert shown(system, webhook)["health"] == "ok"


def test_only_one_that_is_older_than_its_owner_is_said_to_have_been_taken_over(
    console: Console, system: System, webhook: str
) -> None:
    seen = console("/webhooks")
    told = dict(system.call("GET", f"/v1/webhooks/{webhook}/activity"))
    made_s = datetime.fromisoformat(str(shown(system, webhook)["created_at"])).timestamp()
    for later_s, text in ((-60, 0), (1, 1)):
        since = datetime.fromtimestamp(made_s + later_s, UTC).isoformat(timespec="milliseconds")
        seen.page.route(f"**/v1/webhooks/{webhook}/activity", partial(_fulfilled, told | {"since": since}))
        seen.go("/webhooks", "Webhooks")
        seen.go(f"/webhooks/{webhook}", "Of a test")
        seen.page.get_by_role("heading", name="The last hour").wait_for()
        assert seen.page.get_by_text("Its owner took it over").count() == text


def _fulfilled(told: dict[str, object], route: Route) -> None:
    route.fulfill(json=told)


def test_one_that_took_something_is_ok(console: Console, system: System, hook: Hook) -> None:
    system.call("POST", f"/v1/webhooks/{hook.id}/ping")
    system.until(lambda: "first_success_at" in shown(system, hook.id), "it has taken the ping")
    seen = opened(console, hook.id)
    health = seen.page.get_by_role("region", name="Health")
    expect(health.get_by_text("ok", exact=True)).to_be_visible()
    expect(health.locator("time").first).to_be_visible()


def test_one_that_only_fails_says_so(console: Console, system: System, webhook: str) -> None:
    for _ in range(5):
        system.call("POST", f"/v1/webhooks/{webhook}/ping")
    system.until(lambda: shown(system, webhook)["health"] == "failing", "the webhook is failing")
    seen = opened(console, webhook)
    seen.has("Failing since")
    seen.page.get_by_role("img", name=re.compile(r"0 delivered, [1-9]\d* failed")).wait_for()
    seen.check()
