"""Replays in the console: started in each way, watched, and cancelled."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Locator, expect

from app.events import VaultEventType, topic_of
from app.publishing import VaultEvent
from tests.support.console import Seen, System
from tests.support.workers import Hook

pytestmark = pytest.mark.foreign

Console = Callable[..., Seen]
EVENTS = 6


@pytest.fixture(scope="module")
def hook(system: System) -> Iterator[Hook]:
    """A webhook that has got some events."""
    hook = system.run(system.deployment.hook("dataset.created"))
    system.call("PATCH", f"/v1/webhooks/{hook.id}", {"description": "Replayed by hand"})
    type_ = VaultEventType.DATASET_CREATED
    # Of one dataset, so that they are in one partition.
    events = [VaultEvent.new(type_, "/vault", {"dataset_id": "ds-replayed", "name": "n"}) for _ in range(EVENTS)]
    system.run(system.deployment.publish(events))
    arrived = hook.expected(events)
    system.run(system.deployment.observed(lambda: hook.receiver.accepted >= arrived, "all events arrive"))
    yield hook
    system.call("DELETE", f"/v1/webhooks/{hook.id}")


def rows(seen: Seen) -> Locator:
    return seen.page.get_by_role("table", name="Replays, newest first").locator("tbody").get_by_role("row")


def offsets(system: System) -> str:
    topic = topic_of(VaultEventType.DATASET_CREATED, system.deployment.topics.prefix)
    return "\n".join(f"{topic}/{partition}: 0" for partition in range(4))


def test_without_any_the_list_says_what_to_do_next(console: Console) -> None:
    nothing = {"items": [], "next_cursor": None, "missing": []}
    for role in ("admin", "viewer"):
        seen = console("/", role)
        seen.page.route("**/v1/replays*", lambda route: route.fulfill(json=nothing))
        seen.go("/replays", "Replays")
        seen.has("No replay.")
        assert seen.page.get_by_role("link", name="Start one").count() == (role == "admin")
        seen.check()


def test_a_slow_one_shows_how_far_it_is_and_is_cancelled_after_it_was_asked(
    console: Console, system: System, hook: Hook
) -> None:
    seen = console("/replays")
    page = seen.page
    page.get_by_role("link", name="New replay").click()
    page.get_by_label("Webhook").fill("Replayed by")
    expect(page.locator("datalist option")).to_have_attribute("value", hook.id)
    page.get_by_label("Webhook").fill(hook.id)
    page.get_by_label("From").select_option("offsets")
    page.get_by_label("Offsets").fill("somewhere")
    seen.button("Start the replay")
    expect(page.get_by_label("Offsets")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("Offsets")).to_be_focused()
    seen.check()
    page.get_by_label("Offsets").fill(offsets(system))
    page.get_by_label("Events a second").fill("0.05")
    seen.button("Start the replay")
    page.get_by_role("heading", level=1, name="Replay", exact=True).wait_for()
    progress = page.get_by_role("region", name="Progress")
    expect(progress.get_by_role("progressbar", name="How much is read")).to_be_visible()
    expect(progress).to_contain_text("running")
    expect(page.get_by_role("region", name="What was asked for")).to_contain_text("/3: 0")
    seen.check()
    seen.button("Cancel the replay")
    asked = page.get_by_role("dialog", name="Cancel the replay?")
    expect(asked.get_by_role("button", name="Cancel", exact=True)).to_be_focused()
    seen.check()
    page.keyboard.press("Escape")
    asked.wait_for(state="detached")
    expect(progress).to_contain_text("running")
    seen.button("Cancel the replay")
    seen.confirm("Cancel the replay", "Replayed by hand", hook.id)
    seen.has("The replay is cancelled.")
    expect(progress).to_contain_text("cancelled")
    expect(page.get_by_role("button", name="Cancel the replay")).to_have_count(0)


def test_one_from_offsets_is_delivered_again(console: Console, system: System, hook: Hook) -> None:
    before = hook.receiver.duplicates
    seen = console(f"/replays/new?webhook_id={hook.id}")
    seen.page.get_by_label("From").select_option("offsets")
    seen.page.get_by_label("Offsets").fill(offsets(system))
    seen.button("Start the replay")
    progress = seen.page.get_by_role("region", name="Progress")
    expect(progress).to_contain_text("done")
    expect(progress).to_contain_text(re.compile(r"(\d+) of \1 records read, [1-9]\d* sent"))
    arrived = hook.receiver
    system.run(system.deployment.observed(lambda: arrived.duplicates >= before + EVENTS, "all events arrive again"))


def test_one_since_a_time_runs_to_its_end(console: Console, hook: Hook) -> None:
    seen = console(f"/replays/new?webhook_id={hook.id}")
    seen.page.get_by_label("From").select_option("disabled")
    seen.allowed.add(422)
    seen.button("Start the replay")
    expect(seen.page.get_by_label("From")).to_have_accessible_description(re.compile("was never disabled"))
    seen.page.get_by_label("From").select_option("since")
    seen.page.get_by_label("Since (UTC)").fill("2026-01-01T00:00:00")
    seen.page.get_by_label("Event types").fill("dataset.created, pii.*")
    seen.button("Start the replay")
    progress = seen.page.get_by_role("region", name="Progress")
    expect(progress).to_contain_text("done")
    asked_for = seen.page.get_by_role("region", name="What was asked for")
    expect(asked_for).to_contain_text("2026-01-01 00:00:00 UTC")
    expect(asked_for).to_contain_text("dataset.created")
    seen.check()
    seen.page.get_by_role("link", name="Replays", exact=True).first.click()
    expect(rows(seen).filter(has_text="Replayed by hand").first).to_contain_text("done")
    seen.check()
    rows(seen).get_by_role("link", name="Replayed by hand").first.click()
    seen.page.get_by_role("heading", level=1, name="Replayed by hand").wait_for()


def test_what_cannot_be_replayed_says_why(console: Console) -> None:
    seen = console("/replays/new")
    seen.button("Start the replay")
    expect(seen.page.get_by_label("Webhook")).to_have_accessible_description(re.compile("say which one"))
    seen.page.get_by_label("Webhook").fill("wh_none")
    seen.allowed.add(404)
    seen.button("Start the replay")
    expect(seen.page.get_by_label("Webhook")).to_have_accessible_description(re.compile("no webhook of this id"))
    seen.check()
    seen.go("/replays/nobody.1", "Replay")
    seen.has("No worker has a replay of this id")


def test_a_viewer_starts_and_cancels_nothing(console: Console, system: System, hook: Hook) -> None:
    slow = system.call("POST", f"/v1/webhooks/{hook.id}/replay", {"since": "2026-01-01T00:00:00Z", "rate_per_s": 0.01})
    try:
        seen = console("/replays", role="viewer")
        rows(seen).first.wait_for()
        assert seen.page.get_by_role("link", name="New replay").count() == 0
        seen.go(f"/replays/{slow['id']}", "Replay")
        seen.page.get_by_role("region", name="Progress").wait_for()
        assert seen.page.get_by_role("main").get_by_role("button").count() == 0
        seen.go("/replays/new", "New replay")
        seen.has("A viewer changes nothing.")
        assert seen.page.get_by_role("main").get_by_role("textbox").count() == 0
        seen.check()
    finally:
        system.call("DELETE", f"/v1/replays/{slow['id']}")
