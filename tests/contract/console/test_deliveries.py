"""Deliveries and dead letters in the console: found, read, and sent again."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiohttp import web
from playwright.sync_api import Locator, expect

from app.devstack.standins import Observations
from app.events import VaultEventType
from app.publishing import VaultEvent
from tests.support.console import EVIL, Seen, System
from tests.support.workers import Hook, TimedReceiver

pytestmark = pytest.mark.foreign

Console = Callable[..., Seen]
EXACT = 12345678901234567890
"""More digits than a browser's numbers have."""


class Refusing(TimedReceiver):
    """Answers with 500 and something wicked until it is mended."""

    def __init__(self, observations: Observations) -> None:
        super().__init__("honest", observations)
        self.mended = False

    async def _take(self, request: web.Request) -> web.Response:
        if self.mended:
            return await super()._take(request)
        return web.Response(status=500, text=f"{EVIL} {'x' * 300}")


@dataclasses.dataclass(frozen=True)
class Failed:
    """A webhook that gave up at once, and what it was to get."""

    hook: Hook
    receiver: Refusing
    events: list[VaultEvent]


def named(name: str) -> VaultEvent:
    data = {"dataset_id": "ds-console", "name": name, "size": EXACT}
    return VaultEvent.new(VaultEventType.DATASET_CREATED, "/vault", data)


def listed(system: System, path: str) -> list[dict[str, Any]]:
    return list(system.call("GET", path)["items"])


@pytest.fixture(scope="module")
def failed(system: System) -> Iterator[Failed]:
    receiver = Refusing(system.deployment.observations)
    hook = system.run(system.deployment.hook("dataset.created", receiver=receiver))
    change = {"retry_schedule_s": [0], "description": "Dashboard of the night"}
    system.call("PATCH", f"/v1/webhooks/{hook.id}", change)
    events = [named(EVIL), named("plain"), named("plain")]
    system.run(system.deployment.publish(events))
    system.until(
        lambda: len(listed(system, f"/v1/dead-letters?webhook_id={hook.id}")) == len(events), "all of them are given up"
    )
    yield Failed(hook, receiver, events)
    system.call("DELETE", f"/v1/webhooks/{hook.id}")


def delivery(system: System, failed: Failed, at: int) -> str:
    query = f"/v1/deliveries?webhook_id={failed.hook.id}&event_id={failed.events[at].id}"
    return str(listed(system, query)[0]["id"])


def letter(system: System, failed: Failed, at: int) -> str:
    letters = listed(system, f"/v1/dead-letters?webhook_id={failed.hook.id}")
    return str(next(row["id"] for row in letters if row["event_id"] == failed.events[at].id))


def rows(seen: Seen, table: str) -> Locator:
    return seen.page.get_by_role("table", name=table).locator("tbody").get_by_role("row")


def no_markup(seen: Seen) -> None:
    assert seen.page.locator("main img:not([role]), main script, dialog img, dialog script").count() == 0


# --- Deliveries


def test_deliveries_are_found_by_webhook_status_event_and_time(
    console: Console, system: System, failed: Failed
) -> None:
    seen = console("/deliveries?limit=2")
    page = seen.page
    search = page.get_by_role("search")
    search.get_by_label("Webhook").fill(f"  {failed.hook.id} ")
    expect(page).to_have_url(re.compile(f"webhook_id={failed.hook.id}"))
    expect(rows(seen, "Deliveries, newest first")).to_have_count(2)
    page.get_by_role("link", name="Dashboard of the night").first.wait_for()
    page.get_by_role("link", name="Next page").click()
    expect(rows(seen, "Deliveries, newest first")).to_have_count(1)
    page.get_by_role("link", name="First page").click()
    expect(rows(seen, "Deliveries, newest first")).to_have_count(2)
    search.get_by_label("Event id").fill(failed.events[1].id)
    expect(rows(seen, "Deliveries, newest first")).to_have_count(1)
    search.get_by_label("Status").select_option("failed")
    search.get_by_label("Made since (UTC)").fill("2026-01-01T12:00")
    expect(page).to_have_url(re.compile(r"status=failed.*since=2026-01-01T12%3A00%3A00Z"))
    expect(rows(seen, "Deliveries, newest first")).to_have_count(1)
    page.reload()
    expect(search.get_by_label("Made since (UTC)")).to_have_value(re.compile("2026-01-01T12:00"))
    expect(rows(seen, "Deliveries, newest first")).to_have_count(1)
    seen.check()
    search.get_by_label("Status").select_option("delivered")
    seen.has("No delivery is like that.")
    page.get_by_role("link", name="Show all of them").click()
    expect(search.get_by_label("Event id")).to_have_value("")
    expect(rows(seen, "Deliveries, newest first").nth(1)).to_be_visible()


def test_an_empty_list_of_partitions_that_did_not_all_answer_is_not_said_to_be_all(console: Console) -> None:
    seen = console("/webhooks")
    none = {"items": [], "next_cursor": None, "missing": [0, 1]}
    seen.page.route("**/v1/deliveries*", lambda route: route.fulfill(json=none))
    seen.go("/deliveries", "Deliveries")
    seen.has("No answer for partition 0, 1")
    seen.has("Nothing in the partitions that have answered.")
    expect(seen.page.get_by_text("No delivery yet.")).to_have_count(0)
    seen.check()


def test_what_the_api_does_not_understand_is_said_at_its_filter(console: Console) -> None:
    seen = console("/deliveries")
    seen.allowed.add(422)
    seen.go("/deliveries?since=yesterday")
    since = seen.page.get_by_label("Made since (UTC)")
    expect(since).to_have_attribute("aria-invalid", "true")
    expect(since).to_have_accessible_description(re.compile("RFC 3339"))
    seen.check()


def test_without_any_or_without_an_answer_the_lists_say_what_to_do(console: Console) -> None:
    seen = console("/")

    def none(**more: Any) -> Callable[[Any], None]:
        return lambda route: route.fulfill(json={"items": [], "next_cursor": None, **more})

    seen.page.route("**/v1/deliveries*", none(missing=[]))
    seen.page.route("**/v1/dead-letters*", none())
    seen.go("/deliveries", "Deliveries")
    seen.has("No delivery yet.")
    seen.check()
    seen.go("/dead-letters", "Dead letters")
    seen.has("No dead letter.")
    assert seen.page.get_by_role("main").get_by_role("button").count() == 0
    seen.check()
    seen.page.unroute("**/v1/dead-letters*")
    seen.page.route("**/v1/dead-letters*", none(next_cursor="further"))
    seen.go("/dead-letters?reason=expired")
    seen.has("Nothing among the ones looked through so far.")
    seen.page.get_by_role("link", name="Next page").wait_for()
    seen.allowed.add(503)
    problem = {"code": "log_unavailable", "detail": "The broker does not answer. Try again."}
    seen.page.route("**/v1/dead-letters*", lambda route: route.fulfill(status=503, json=problem))
    seen.go("/dead-letters?reason=rejected")
    expect(seen.page.get_by_role("alert").filter(has_text="The broker does not answer.")).to_be_visible()
    seen.page.unroute("**/v1/dead-letters*")
    seen.has("No dead letter is like that.")


def test_one_shows_its_request_its_answer_and_its_attempts_as_text(
    console: Console, system: System, failed: Failed
) -> None:
    seen = console(f"/deliveries/{delivery(system, failed, 0)}")
    seen.page.get_by_role("heading", level=1, name="Delivery of llm.data-vault.dataset.created").wait_for()
    state = seen.page.get_by_role("region", name="State", exact=True)
    expect(state).to_contain_text("all attempts of its schedule failed")
    answer = seen.page.get_by_role("region", name="Answer", exact=True)
    expect(answer).to_contain_text("500")
    expect(seen.page.get_by_role("region", name="Body of the answer")).to_contain_text(EVIL)
    expect(seen.page.get_by_role("region", name="Request")).to_contain_text(failed.events[0].id)
    (attempt,) = rows(seen, "The last attempts of this delivery, at most 20").all()
    expect(attempt).to_contain_text("status_500")
    no_markup(seen)
    seen.check()
    seen.picture("delivery", height=990)
    state.get_by_role("link", name="Its dead letter").click()
    expect(rows(seen, "Dead letters, newest first")).to_have_count(len(failed.events))
    seen.page.go_back()
    seen.page.get_by_role("link", name="Dashboard of the night").click()
    seen.page.get_by_role("heading", level=1, name="Dashboard of the night").wait_for()


def test_one_is_sent_again_only_after_it_was_asked(console: Console, system: System, failed: Failed) -> None:
    id_ = delivery(system, failed, 1)
    seen = console(f"/deliveries/{id_}")
    seen.button("Send it again")
    asked = seen.page.get_by_role("dialog", name="Send it again?")
    expect(asked.get_by_role("button", name="Cancel")).to_be_focused()
    seen.check()
    seen.page.keyboard.press("Escape")
    asked.wait_for(state="detached")
    assert system.call("GET", f"/v1/deliveries/{id_}")["attempts"] == 1
    failed.receiver.mended = True
    try:
        seen.button("Send it again")
        seen.confirm("Send it again", failed.events[1].id, failed.hook.id, "Dashboard of the night")
        seen.has("It is on its way.")
        expect(seen.page.get_by_role("region", name="State", exact=True)).to_contain_text("delivered")
        expect(rows(seen, "The last attempts of this delivery, at most 20")).to_have_count(2)
    finally:
        failed.receiver.mended = False
    assert ("/vault", failed.events[1].id) in failed.receiver.accepted


def test_what_cannot_be_sent_again_says_why(console: Console, system: System, failed: Failed) -> None:
    system.call("POST", f"/v1/webhooks/{failed.hook.id}/disable", {})
    try:
        seen = console(f"/deliveries/{delivery(system, failed, 0)}")
        seen.allowed.add(409)
        seen.button("Send it again")
        asked = seen.page.get_by_role("dialog")
        asked.get_by_role("button", name="Send it again").click()
        expect(asked.get_by_role("alert")).to_contain_text("enable it first")
        seen.page.keyboard.press("Escape")
        seen.go(f"/dead-letters?webhook_id={failed.hook.id}", "Dead letters")
        seen.button("Send these again")
        plan = seen.page.get_by_role("dialog")
        expect(plan.get_by_role("table", name="What would happen")).to_contain_text(
            re.compile("refused.*is disabled: enable it first")
        )
        assert plan.get_by_role("button").count() == 1
        seen.check()
    finally:
        system.call("POST", f"/v1/webhooks/{failed.hook.id}/enable", {})


def test_what_is_not_there_says_so(console: Console) -> None:
    seen = console("/deliveries")
    seen.allowed.add(404)
    seen.go("/deliveries/dlv_none", "Delivery")
    seen.has("There is no delivery of this id, or it is remembered no longer.")
    seen.go("/dead-letters/7-7", "Dead letter")
    seen.has("There is no dead letter of this id, or it is kept no longer.")


def test_a_viewer_reads_everything_and_sends_nothing(console: Console, system: System, failed: Failed) -> None:
    seen = console(f"/deliveries/{delivery(system, failed, 0)}", role="viewer")
    for address, title in (
        (f"/deliveries/{delivery(system, failed, 0)}", "Delivery of"),
        (f"/dead-letters?webhook_id={failed.hook.id}", "Dead letters"),
        (f"/dead-letters/{letter(system, failed, 0)}", "Dead letter of"),
    ):
        seen.go(address, title)
        seen.page.get_by_role("main").get_by_role("link", name="Dashboard of the night").first.wait_for()
        assert seen.page.get_by_role("main").get_by_role("button").count() == 0


# --- Dead letters


def test_a_dead_letter_shows_its_event_exactly_and_as_text(console: Console, system: System, failed: Failed) -> None:
    seen = console(f"/dead-letters?webhook_id={failed.hook.id}")
    expect(rows(seen, "Dead letters, newest first")).to_have_count(len(failed.events))
    search = seen.page.get_by_role("search")
    search.get_by_label("Reason").select_option("exhausted")
    search.get_by_label("Event type").fill("dataset.created")
    search.get_by_label("Given up since (UTC)").fill("2026-01-01T00:00:00")
    expect(seen.page).to_have_url(re.compile("since="))
    expect(rows(seen, "Dead letters, newest first")).to_have_count(len(failed.events))
    seen.check()
    search.get_by_label("Until (UTC)").fill("2026-01-02T00:00:00")
    seen.has("No dead letter is like that.")
    seen.go(f"/dead-letters/{letter(system, failed, 0)}", "Dead letter of llm.data-vault.dataset.created")
    event = seen.page.get_by_role("region", name="The event")
    expect(event).to_contain_text(EVIL.replace('"', '\\"'))
    expect(event).to_contain_text(str(EXACT))
    no_markup(seen)
    seen.check()
    seen.page.get_by_role("link", name=delivery(system, failed, 0)).click()
    seen.page.get_by_role("heading", level=1, name="Delivery of").wait_for()


def test_one_dead_letter_is_sent_again(console: Console, system: System, failed: Failed) -> None:
    event = failed.events[2]
    failed.receiver.mended = True
    try:
        seen = console(f"/dead-letters/{letter(system, failed, 2)}")
        seen.button("Send it again")
        seen.confirm("Send it again", event.id, failed.hook.id, "Dashboard of the night")
        seen.page.get_by_role("link", name="What became of it").click()
        expect(seen.page.get_by_role("region", name="State", exact=True)).to_contain_text("delivered")
    finally:
        failed.receiver.mended = False
    assert ("/vault", event.id) in failed.receiver.accepted


def test_those_of_a_filter_are_shown_before_they_are_sent_again(
    console: Console, system: System, failed: Failed
) -> None:
    before = failed.receiver.requests
    seen = console(f"/dead-letters?webhook_id={failed.hook.id}&reason=exhausted")
    seen.button("Send these again")
    asked = seen.page.get_by_role("dialog", name="Send dead letters again?")
    expect(asked).to_contain_text(f"Webhook: {failed.hook.id}")
    plan = asked.get_by_role("table", name="What would happen")
    expect(plan.locator("tbody").get_by_role("row")).to_have_count(1)
    expect(plan).to_contain_text(re.compile("Dashboard of the night.*3.*sent again"))
    seen.check()
    assert failed.receiver.requests == before
    failed.receiver.mended = True
    asked.get_by_role("button", name="Send them again").click()
    expect(asked.get_by_role("status")).to_have_text("3 dead letters sent again.")
    expect(asked.get_by_role("button", name="Close")).to_be_focused()
    seen.check()
    system.run(
        system.deployment.observed(
            lambda: failed.receiver.accepted >= {("/vault", event.id) for event in failed.events}, "all of them arrive"
        )
    )
    asked.get_by_role("button", name="Close").click()
    asked.wait_for(state="detached")
