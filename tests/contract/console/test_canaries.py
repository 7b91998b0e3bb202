"""What is secret is on no page, in no attribute and no control, and in nothing that the browser keeps."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from playwright.sync_api import Response, expect

from tests.support.console import ADMIN_TOKEN, VIEWER_TOKEN, Seen, System

pytestmark = pytest.mark.foreign

SECRET = "whsec_" + base64.b64encode(b"canary-secret-of-a-webhook-here!").decode()
CREDENTIAL = "canary-credential-of-a-receiver"
CANARIES = (SECRET, SECRET.removeprefix("whsec_"), CREDENTIAL, ADMIN_TOKEN, VIEWER_TOKEN)

# All that the page has: markup, what stands in controls, and what the tab and the browser keep beside the login.
KEPT = """async () => {
    const stored = { ...sessionStorage };
    delete stored["vault-stream-token"];
    const controls = [...document.querySelectorAll("input, textarea, select")].map((one) => one.value);
    const databases = indexedDB.databases ? await indexedDB.databases() : [];
    const cached = window.caches ? await caches.keys() : [];
    const address = [location.href, document.title, JSON.stringify(history.state)];
    const kept = [stored, { ...localStorage }, document.cookie, databases, cached, window.name, controls, address];
    return document.documentElement.outerHTML + JSON.stringify(kept);
}"""


@pytest.mark.parametrize("role", ["admin", "viewer"])
def test_no_page_shows_a_secret_and_no_answer_is_kept(console: Callable[..., Seen], system: System, role: str) -> None:
    headers = {"Authorization": f"Bearer {CREDENTIAL}", "X-Api-Key": CREDENTIAL}
    webhook = system.webhook(description="Of the canaries", secret=SECRET, headers=headers)["id"]
    asked: dict[str, str | None] = {}

    def note(answer: Response) -> None:
        if "/v1/" in answer.url:
            asked[answer.url] = answer.headers.get("cache-control")

    try:
        system.call("POST", f"/v1/webhooks/{webhook}/ping")
        seen = console("/", role)
        seen.page.on("response", note)
        pages = {
            "/": "Overview",
            "/webhooks": "Webhooks",
            f"/webhooks/{webhook}": "Of the canaries",
            f"/webhooks/{webhook}/edit": "Edit",
            "/webhooks/new": "New webhook",
            "/audit": "Audit",
            "/policy": "Policy",
            "/registry": "Registry",
        }
        for address, title in pages.items():
            seen.go(address, title)
            # Until nothing of it loads any more.
            expect(seen.page.get_by_role("main")).not_to_contain_text("…")
            found = [canary for canary in CANARIES if canary in seen.page.evaluate(KEPT)]
            assert not found, (address, found)
        assert any(f"/v1/webhooks/{webhook}/activity" in url for url in asked)
        assert not [url for url in asked for canary in CANARIES if canary in url]
        assert set(asked.values()) == {"no-store"}
    finally:
        system.call("DELETE", f"/v1/webhooks/{webhook}")


def test_what_looks_for_secrets_finds_them(console: Callable[..., Seen]) -> None:
    seen = console("/policy")
    for plant in (
        "(text) => document.querySelector('input').value = text",
        "(text) => document.querySelector('main').setAttribute('data-x', text)",
        "(text) => sessionStorage.setItem('x', text)",
    ):
        seen.page.evaluate(plant, CREDENTIAL)
        assert CREDENTIAL in seen.page.evaluate(KEPT)
        seen.page.reload()
        seen.page.evaluate("sessionStorage.removeItem('x')")
        seen.page.get_by_role("region", name="Ask").wait_for()
