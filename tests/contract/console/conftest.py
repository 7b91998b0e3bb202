"""What the tests of the console share: one running system, one browser for each module, and the console in a tab.

    def test_something(console: Callable[..., Seen]) -> None:
        seen = console("/webhooks")                    # logged in as an admin; role="viewer", role=None: not logged in
        seen.has("No webhook yet")
        seen.check()                                   # axe in light and dark, wide and narrow; no horizontal scroll

The test fails at any error that the browser reports; `seen.allowed.add(422)` lets the API refuse something. And it
fails if a page shows a credential at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser

from tests.support.console import (
    ADMIN_TOKEN,
    VIEWER_TOKEN,
    WIDE,
    Seen,
    System,
    install_axe,
    running_browser,
    running_system,
)
from tests.support.workers import Hook

TOKENS = {"admin": ADMIN_TOKEN, "viewer": VIEWER_TOKEN}


@pytest.fixture(scope="package")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    return install_axe(tmp_path_factory.mktemp("axe"))


@pytest.fixture(scope="package")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("system")) as system:
        yield system


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """For one module: what drives it would be in the way of tests that have a loop of their own."""
    with running_browser() as browser:
        yield browser


@pytest.fixture
def tab(browser: Browser, axe: str) -> Iterator[Callable[[], Seen]]:
    """Tabs of a new session each."""
    opened: list[Seen] = []

    def open_tab() -> Seen:
        context = browser.new_context(viewport=WIDE, permissions=["clipboard-read", "clipboard-write"])
        seen = Seen(context.new_page(), context, axe)
        seen.watch()
        opened.append(seen)
        return seen

    yield open_tab
    errors = [error for seen in opened for error in seen.unexpected()]
    for seen in opened:
        seen.search()
        seen.context.close()
    assert not errors


@pytest.fixture
def console(tab: Callable[[], Seen], system: System) -> Callable[..., Seen]:
    """The console of the running system, at an address such as `/webhooks`."""

    def open_console(address: str = "/", role: str | None = "admin") -> Seen:
        seen = tab()
        # Without a token the session is asked for once, to see whether one is needed.
        seen.allowed.add(401)
        seen.page.goto(f"{system.url}/#{address}")
        if role is not None:
            seen.login(TOKENS[role])
            seen.errors.clear()
            seen.allowed.clear()
        return seen

    return open_console


@pytest.fixture(scope="module")
def hook(system: System) -> Iterator[Hook]:
    """A webhook whose receiver is honest."""
    hook = system.run(system.deployment.hook("*"))
    yield hook
    system.call("DELETE", f"/v1/webhooks/{hook.id}")


@pytest.fixture
def webhook(system: System) -> Iterator[str]:
    """The id of one for an address where nothing listens."""
    made = system.webhook(description="Of a test")
    yield str(made["id"])
    if any(row["id"] == made["id"] for row in system.call("GET", "/v1/webhooks?limit=200")["items"]):
        system.call("DELETE", f"/v1/webhooks/{made['id']}")
