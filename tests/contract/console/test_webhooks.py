"""Webhooks in the console: found, made, changed, and everything that can be done to one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Final

import pytest
from playwright.sync_api import Locator, expect

from tests.support.canaries import CREDENTIALS
from tests.support.console import EVIL, Seen, System, opened, shown
from tests.support.workers import Hook

pytestmark = pytest.mark.foreign

Console = Callable[..., Seen]


def dialog(seen: Seen, title: str) -> Locator:
    found = seen.page.get_by_role("dialog", name=title)
    found.wait_for()
    return found


# --- The list


@pytest.mark.parametrize("role", ["admin", "viewer"])
def test_without_any_the_list_says_what_to_do_next(console: Console, role: str) -> None:
    seen = console("/", role)
    seen.page.route("**/v1/webhooks", lambda route: route.fulfill(json={"items": [], "next_cursor": None}))
    seen.go("/webhooks", "Webhooks")
    seen.has("No webhook yet.")
    seen.check()
    make = seen.page.get_by_role("link", name=re.compile("Make one|New webhook"))
    assert make.count() == (2 if role == "admin" else 0)
    if role == "admin":
        make.last.click()
        seen.page.get_by_role("heading", level=1, name="New webhook").wait_for()


TYPE_AND_SHOW_ALL: Final = """() => {
  const field = document.querySelector("input[type=search]");
  field.value = "typed";
  field.dispatchEvent(new Event("input", { bubbles: true }));
  return new Promise((done) => setTimeout(() => {
    for (const link of document.querySelectorAll("a")) if (link.textContent === "Show all of them") link.click();
    setTimeout(done, 600);
  }, 50));
}"""


def test_one_is_found_among_many_and_the_list_has_pages(console: Console, system: System) -> None:
    urls = [f"http://127.0.0.1:9/paged-{number}" for number in range(3)]
    many = [system.webhook(url=url, events=("dataset.*",))["id"] for url in urls]
    rows = "tbody tr"
    try:
        seen = console("/webhooks?limit=2&search=paged")
        expect(seen.page.locator(rows)).to_have_count(2)
        seen.page.get_by_role("link", name="Next page").click()
        expect(seen.page.locator(rows)).to_have_count(1)
        seen.page.reload()
        expect(seen.page.locator(rows)).to_have_count(1)
        seen.page.get_by_role("link", name="First page").click()
        expect(seen.page.locator(rows)).to_have_count(2)
        seen.page.get_by_label("Search").fill("9/PAGED-1")
        expect(seen.page.locator(rows)).to_have_count(1)
        seen.has(urls[1])
        seen.check()
        seen.page.get_by_label("Health").select_option("disabled")
        seen.has("No webhook is like that.")
        seen.page.get_by_role("link", name="Show all of them").click()
        seen.has(urls[0])
        expect(seen.page.get_by_label("Search")).to_have_value("")
        # In one go: what is typed has not come into the address yet.
        seen.page.get_by_label("Health").select_option("disabled")
        seen.has("No webhook is like that.")
        seen.page.evaluate(TYPE_AND_SHOW_ALL)
        seen.has(urls[0])
        expect(seen.page.get_by_label("Search")).to_have_value("")
        expect(seen.page.get_by_label("Health")).to_have_value("")
    finally:
        for webhook in many:
            system.call("DELETE", f"/v1/webhooks/{webhook}")


# --- Make and change


def test_one_is_made_and_its_secret_is_shown_once(console: Console, system: System) -> None:
    seen = console("/webhooks/new")
    page = seen.page
    page.get_by_label("URL", exact=True).fill("http://127.0.0.1:9/made")
    page.get_by_label("Events", exact=True).fill("dataset.*\npii.detected")
    page.get_by_label("Description").fill("Made by hand")
    page.get_by_label("Tenants").fill("t1, t2")
    page.get_by_label("Values").fill('{"classification": ["pii"]}')
    page.get_by_label("Headers").fill(f"X-Team: data\nAuthorization: {CREDENTIALS['header credential']}")
    page.get_by_label("Order").select_option("strict")
    page.get_by_label("Time limit in seconds").fill("2.5")
    page.get_by_label("Attempts a second").fill("20")
    page.get_by_label("Attempts at one time").fill("3")
    page.get_by_label("Retry schedule in seconds").fill("0, 5, 300")
    seen.check()
    seen.button("Create")
    once = dialog(seen, "The secret of this webhook")
    secret = once.get_by_text(re.compile(r"whsec_\S+")).inner_text()
    seen.check()
    for _ in range(3):
        page.keyboard.press("Escape")
    expect(once).to_be_visible()
    once.get_by_role("button", name="Copy the secret").click()
    seen.has("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == secret
    once.get_by_role("button", name="I have kept it").click()
    page.get_by_role("heading", level=1, name="Made by hand").wait_for()
    kept = page.evaluate("JSON.stringify([sessionStorage, localStorage, location.href])")
    assert secret not in page.content() + kept
    (made,) = system.call("GET", "/v1/webhooks?search=made+by+hand")["items"]
    assert made["filter"]["tenant_id"] == ["t1", "t2"]
    assert made["filter"]["data"] == {"classification": ["pii"]}
    assert made["headers"] == {"X-Team": "data", "Authorization": "***"}
    assert (made["ordering"], made["timeout_s"], made["rate_limit_per_s"]) == ("strict", 2.5, 20)
    assert (made["max_in_flight"], made["retry_schedule_s"]) == (3, [0, 5, 300])
    system.call("DELETE", f"/v1/webhooks/{made['id']}")


def test_what_the_api_refuses_is_said_at_its_field(console: Console) -> None:
    seen = console("/webhooks/new")
    seen.page.get_by_label("URL", exact=True).fill("ftp://127.0.0.1/x")
    seen.page.get_by_label("Events", exact=True).fill("dataset.*")
    seen.allowed.add(422)
    seen.button("Create")
    url = seen.page.get_by_label("URL", exact=True)
    expect(url).to_have_attribute("aria-invalid", "true")
    expect(url).to_be_focused()
    expect(url).to_have_accessible_description(re.compile("Where deliveries are sent to.* must "))
    seen.check()
    url.fill("http://127.0.0.1:9/x")
    seen.page.get_by_label("Events", exact=True).fill("dataset.*\nno such type")
    seen.button("Create")
    expect(seen.page.get_by_label("Events", exact=True)).to_have_attribute("aria-invalid", "true")
    expect(url).not_to_have_attribute("aria-invalid", "true")
    seen.page.get_by_label("Events", exact=True).fill("dataset.*")
    seen.page.get_by_label("Values").fill("{")
    seen.button("Create")
    expect(seen.page.get_by_label("Values")).to_have_accessible_description(re.compile("is no JSON"))


def test_a_change_sends_what_was_changed_and_keeps_what_is_masked(
    console: Console, system: System, webhook: str
) -> None:
    system.call("PATCH", f"/v1/webhooks/{webhook}", {"headers": {"Authorization": "Bearer swordfish"}})
    before = shown(system, webhook)
    seen = opened(console, webhook)
    seen.page.get_by_role("link", name="Edit").click()
    assert seen.page.get_by_label("Headers").input_value() == "Authorization: ***"
    seen.check()
    seen.page.get_by_label("Events", exact=True).fill("pii.*")
    seen.page.get_by_label("Headers").fill("Authorization: ***\nX-Team: data")
    seen.page.get_by_label("Description").fill("")
    seen.button("Save")
    seen.has("The webhook was changed.")
    after = shown(system, webhook)
    assert after["headers"] == {"Authorization": "***", "X-Team": "data"}
    assert "description" not in after
    assert after["events"] != before["events"]
    assert after["url"] == before["url"]


def test_a_change_that_met_another_one_is_refused_and_can_begin_anew(
    console: Console, system: System, webhook: str
) -> None:
    seen = console(f"/webhooks/{webhook}/edit")
    seen.page.get_by_label("Description").fill("Mine")
    system.call("PATCH", f"/v1/webhooks/{webhook}", {"description": "Theirs"})
    seen.allowed.add(412)
    seen.button("Save")
    seen.has("Somebody else has changed it.")
    seen.check()
    seen.button("Load it again")
    expect(seen.page.get_by_label("Description")).to_have_value("Theirs")
    seen.page.get_by_label("Description").fill("Mine")
    seen.button("Save")
    seen.has("The webhook was changed.")
    assert shown(system, webhook)["description"] == "Mine"


# --- What is done to one


def test_deliveries_of_the_last_hour_are_seen(console: Console, system: System, hook: Hook) -> None:
    system.publish(seed=2)
    seen = opened(console, hook.id)
    seen.page.get_by_role("img", name=re.compile(r"^Attempts of .*: [1-9]\d* delivered, 0 failed")).wait_for()
    seen.page.get_by_role("table", name="The latest deliveries of this webhook").wait_for()
    seen.check()
    seen.picture("webhook")


def test_a_ping_arrives(console: Console, system: System, hook: Hook) -> None:
    before = len(hook.receiver.accepted)
    seen = opened(console, hook.id)
    seen.button("Ping")
    seen.has("A ping is on its way.")
    assert seen.page.get_by_role("link", name="What became of it").get_attribute("href").startswith("#/deliveries/dlv_")
    system.run(system.deployment.observed(lambda: len(hook.receiver.accepted) > before, "the ping arrives"))


def test_a_secret_is_rotated_and_shown_once(console: Console, system: System, webhook: str) -> None:
    seen = opened(console, webhook)
    seen.button("Rotate the secret")
    form = dialog(seen, "Rotate the secret?")
    assert webhook in form.inner_text()
    form.get_by_label("Overlap in hours").fill("-1")
    seen.allowed.add(422)
    form.get_by_role("button", name="Rotate", exact=True).click()
    expect(form.get_by_label("Overlap in hours")).to_have_attribute("aria-invalid", "true")
    seen.check()
    form.get_by_label("Overlap in hours").fill("0")
    form.get_by_role("button", name="Rotate", exact=True).click()
    once = dialog(seen, "The secret of this webhook")
    assert re.search(r"whsec_\S{32}", once.inner_text())
    once.get_by_role("button", name="I have kept it").click()
    once.wait_for(state="detached")
    assert "whsec_" not in seen.page.content()
    assert shown(system, webhook)["version"] == 2


def test_one_is_disabled_only_after_it_was_asked_and_enabled_again(
    console: Console, system: System, webhook: str
) -> None:
    seen = opened(console, webhook)
    seen.button("Disable")
    asked = dialog(seen, "Disable the webhook?")
    expect(asked.get_by_role("button", name="Cancel")).to_be_focused()
    seen.check()
    seen.page.keyboard.press("Escape")
    asked.wait_for(state="detached")
    expect(seen.page.get_by_role("button", name="Disable")).to_be_focused()
    assert shown(system, webhook)["enabled"] is True
    seen.button("Disable")
    seen.confirm("Disable", "Of a test", "http://127.0.0.1:9/hook", webhook)
    seen.has("The webhook is disabled.")
    seen.has("no: its events are noted as missed")
    assert shown(system, webhook)["enabled"] is False
    seen.check()
    seen.button("Enable")
    seen.has("The webhook is enabled.")
    assert shown(system, webhook)["enabled"] is True


def test_one_is_held_and_let_go(console: Console, system: System, webhook: str) -> None:
    seen = opened(console, webhook)
    seen.button("Hold")
    form = dialog(seen, "Hold the webhook?")
    assert webhook in form.inner_text()
    form.get_by_label("Minutes").fill("30")
    form.get_by_role("button", name="Hold", exact=True).click()
    seen.has("The webhook is held.")
    seen.has("it is held")
    assert "hold_until" in shown(system, webhook)
    seen.button("Lift the hold")
    seen.has("The webhook is held no longer.")
    assert "hold_until" not in shown(system, webhook)


def test_a_replay_begins(console: Console, system: System, hook: Hook) -> None:
    seen = opened(console, hook.id)
    seen.button("Replay")
    form = dialog(seen, "Replay events?")
    assert hook.id in form.inner_text()
    form.get_by_label("Since (UTC)").fill("")
    seen.allowed.add(422)
    form.get_by_role("button", name="Start the replay").click()
    expect(form.get_by_label("Since (UTC)")).to_have_attribute("aria-invalid", "true")
    seen.check()
    form.get_by_label("Since (UTC)").fill("2026-01-01T00:00:00")
    form.get_by_role("button", name="Start the replay").click()
    seen.has("The replay has begun.")
    assert hook.id in [one["webhook_id"] for one in system.call("GET", "/v1/replays")["items"]]


def test_one_is_deleted_only_after_it_was_asked(console: Console, system: System, webhook: str) -> None:
    seen = opened(console, webhook)
    seen.button("Delete")
    dialog(seen, "Delete the webhook?").get_by_role("button", name="Cancel").click()
    assert shown(system, webhook)["id"] == webhook
    seen.button("Delete")
    # What it stands for may be gone by the next look.
    seen.allowed.add(404)
    seen.confirm("Delete", "Of a test", "http://127.0.0.1:9/hook", webhook)
    seen.has("The webhook is deleted.")
    seen.page.get_by_role("heading", level=1, name="Webhooks").wait_for()
    assert webhook not in json.dumps(system.call("GET", "/v1/webhooks?limit=200"))


def test_one_that_is_not_there_says_so(console: Console) -> None:
    seen = console("/webhooks")
    seen.allowed.add(404)
    seen.go("/webhooks/wh_none")
    seen.has("There is no webhook of this id.")
    seen.check()


# --- Who sees what


def test_a_viewer_sees_no_action(console: Console, hook: Hook) -> None:
    seen = opened(console, hook.id, role="viewer")
    main = seen.page.get_by_role("main")
    assert main.get_by_role("button").count() == 0
    assert main.get_by_role("link", name="Edit").count() == 0
    seen.check()
    for address in ("/webhooks/new", f"/webhooks/{hook.id}/edit"):
        seen.go(address)
        seen.has("A viewer changes nothing.")
        assert seen.page.get_by_role("main").get_by_role("textbox").count() == 0
        seen.check()


def test_what_others_wrote_is_text_and_nothing_else(console: Console, system: System) -> None:
    webhook = system.webhook(
        url="http://127.0.0.1:9/?x='><img%20src=x%20onerror=alert(1)>",
        description=EVIL,
        headers={"X-Evil": EVIL},
        filter={"data": {"evil": [EVIL]}},
    )["id"]
    try:
        seen = console("/webhooks")
        seen.has(EVIL)
        seen.page.get_by_role("link", name=EVIL).click()
        seen.page.get_by_role("heading", level=1, name=EVIL).wait_for()
        seen.page.get_by_role("heading", name="Configuration").wait_for()
        assert seen.page.locator("main img:not([role]), main script").count() == 0
        expect(seen.page).to_have_title(f"{EVIL} | vault-stream")
        seen.button("Delete")
        assert EVIL in dialog(seen, "Delete the webhook?").inner_text()
        assert seen.page.locator("dialog img, dialog script").count() == 0
        seen.check()
    finally:
        system.call("DELETE", f"/v1/webhooks/{webhook}")
