"""The policy engine, asked by hand: a denial never looks like anything else, and where an answer came from is said."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Locator, Route, expect

from app.devstack.standins import Fault, PolicyEngine, Rule
from tests.support.console import EVIL, Seen, System

pytestmark = pytest.mark.foreign

Console = Callable[..., Seen]


@pytest.fixture
def engine(system: System) -> Iterator[PolicyEngine]:
    """The engine, which behaves again afterwards."""
    engine = system.deployment.upstreams.policy
    rules, fault = engine.rules, engine.fault
    yield engine
    engine.rules, engine.fault = rules, fault


def ask(seen: Seen, principal: str, action: str, resource: str, context: str = "") -> Locator:
    form = seen.page.get_by_role("region", name="Ask")
    form.get_by_label("Principal").fill(principal)
    form.get_by_label("Action").fill(action)
    form.get_by_label("Resource").fill(resource)
    form.get_by_label("Context").fill(context)
    form.get_by_role("button", name="Ask").click()
    answer = form.get_by_role("status")
    answer.wait_for()
    return answer


@pytest.mark.parametrize("role", ["admin", "viewer"])
def test_an_answer_says_why_and_whether_it_was_kept(console: Console, role: str) -> None:
    seen = console("/policy", role)
    first = ask(seen, f"alice-{role}", "read", "ds-1", '{"purpose": "audit"}')
    for text in ("Allowed", "reading is open", "pol-open-reading", "the engine: it was asked for this answer"):
        expect(first).to_contain_text(text)
    seen.check()
    seen.picture("policy", height=925)
    again = ask(seen, f"alice-{role}", "read", "ds-1", '{"purpose": "audit"}')
    expect(again).to_contain_text("the cache: decided")
    denied = ask(seen, f"alice-{role}", "delete", "ds-1")
    expect(denied).to_contain_text("Denied")
    expect(denied).to_contain_text("only an admin may do this")
    expect(denied).not_to_contain_text("Allowed")
    seen.check()


def test_an_answer_goes_with_its_question(console: Console) -> None:
    seen = console("/policy")
    answer = ask(seen, "alice", "read", "ds-1")
    expect(answer).to_contain_text("Allowed")
    seen.page.get_by_label("Action").fill("delete")
    answer.wait_for(state="detached")


def test_what_is_wrong_is_said_at_its_field(console: Console) -> None:
    seen = console("/policy")
    seen.allowed.add(422)
    form = seen.page.get_by_role("region", name="Ask")
    form.get_by_label("Principal").fill("alice")
    form.get_by_label("Resource").fill("ds-1")
    wrong = {
        "{": "Not JSON",
        "[1]": "Not a JSON object",
        '{"n": 12345678901234567890}': "loses digits",
        '{"subject_properties": 1}': "/context/subject_properties",
    }
    for context, told in wrong.items():
        form.get_by_label("Context").fill(context)
        form.get_by_role("button", name="Ask").click()
        expect(form.get_by_label("Context")).to_have_accessible_description(re.compile(re.escape(told)))
        expect(form.get_by_label("Context")).to_be_focused()
        assert form.get_by_role("status").count() == 0
    seen.check()
    form.get_by_label("Context").fill("")
    form.get_by_label("Principal").fill("")
    form.get_by_role("button", name="Ask").click()
    expect(form.get_by_label("Principal")).to_have_attribute("aria-invalid", "true")


def test_an_engine_that_cannot_be_reached_gives_no_decision(console: Console, engine: PolicyEngine) -> None:
    engine.fault = Fault(status=500)
    seen = console("/policy")
    seen.allowed.add(503)
    answer = ask(seen, "nobody-knows", "read", "ds-1")
    expect(answer).to_contain_text("No decision")
    expect(answer).to_contain_text("no decision is a denial")
    expect(answer).to_contain_text("policy_unavailable (503)")
    assert "Allowed" not in answer.inner_text()
    assert seen.page.locator(".badge.good").count() == 0
    seen.check()


def test_what_is_no_decision_is_never_shown_as_one(console: Console) -> None:
    seen = console("/policy")
    seen.allowed.add(502)
    answers = [(502, "<h1>Bad gateway</h1>"), (200, '{"allowed": "true"}'), (200, "null"), (200, "{")]
    left = iter(answers)

    def answer(route: Route) -> None:
        status, body = next(left)
        route.fulfill(status=status, body=body, content_type="application/json")

    seen.page.route("**/v1/policy/evaluate", answer)
    for _ in answers:
        with seen.page.expect_response("**/v1/policy/evaluate"):
            told = ask(seen, "alice", "read", "ds-1")
        expect(told).to_contain_text("No decision")
        assert seen.page.locator(".badge.good").count() == 0
    assert next(left, None) is None


def test_without_an_engine_the_page_says_what_to_do(console: Console) -> None:
    seen = console("/webhooks")
    seen.page.route("**/v1/workers", lambda route: route.fulfill(json={"items": [{"off": ["policy"]}], "missing": []}))
    seen.go("/policy", "Policy")
    seen.has("There is no policy engine.")
    seen.has("VAULT_STREAM_POLICY__ENDPOINT")
    assert seen.page.get_by_role("region", name="Ask").count() == 0
    seen.check()


def test_what_applies_to_a_resource_is_listed(console: Console, engine: PolicyEngine) -> None:
    seen = console("/policy", role="viewer")
    listed = seen.page.get_by_role("region", name="Policies that apply to a resource")
    listed.get_by_role("button", name="List").click()
    expect(listed.get_by_label("Resource id")).to_have_attribute("aria-invalid", "true")
    listed.get_by_label("Resource id").fill("ds-1")
    listed.get_by_role("button", name="List").click()
    listed.get_by_role("rowheader", name="pol-open-reading").wait_for()
    seen.check()
    engine.rules = []
    listed.get_by_role("button", name="List").click()
    listed.get_by_text("No policy applies.").wait_for()
    seen.check()


def test_decisions_are_invalidated_only_after_it_was_asked(console: Console, system: System) -> None:
    seen = console("/policy")
    ask(seen, "bob", "read", "ds-1")
    expect(ask(seen, "bob", "read", "ds-1")).to_contain_text("the cache")
    seen.button("Invalidate decisions")
    form = seen.page.get_by_role("dialog", name="Invalidate decisions")
    form.get_by_role("button", name="Go on").click()
    expect(form.get_by_label("Id")).to_have_attribute("aria-invalid", "true")
    seen.check()
    form.get_by_label("Id").fill("bob")
    form.get_by_role("button", name="Go on").click()
    asked = seen.page.get_by_role("dialog", name="Invalidate them?")
    expect(asked).to_contain_text("the decisions of the principal bob")
    expect(asked.get_by_role("button", name="Cancel")).to_be_focused()
    seen.check()
    asked.get_by_role("button", name="Invalidate").click()
    seen.has("Invalidated: the engine is asked anew.")

    def asked_anew() -> bool:
        body = {"principal_id": "bob", "action": "read", "resource_id": "ds-1"}
        return bool(system.call("POST", "/v1/policy/evaluate", body)["source"] == "engine")

    system.until(asked_anew, "the engine is asked anew")


def test_a_viewer_sees_no_action(console: Console) -> None:
    seen = console("/policy", role="viewer")
    seen.page.get_by_role("region", name="Ask").wait_for()
    assert {one.inner_text() for one in seen.page.get_by_role("main").get_by_role("button").all()} == {"Ask", "List"}
    seen.check()


def test_what_the_engine_says_is_text_and_nothing_else(console: Console, engine: PolicyEngine) -> None:
    engine.rules = [
        Rule(False, reason=EVIL, matched_policies=(EVIL,), obligations=({"action": EVIL, "parameters": {}},))
    ]
    seen = console("/policy")
    answer = ask(seen, EVIL, "read", EVIL)
    expect(answer).to_contain_text(EVIL)
    assert seen.page.locator("main img, main script").count() == 0
    expect(seen.page).to_have_title("Policy | vault-stream")
    seen.check()
