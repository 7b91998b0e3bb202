"""A running system under the console, and a real browser in front of it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from app.devstack.embedded import EmbeddedBroker
from app.devstack.workload import MIN_EVENTS, make_workload
from tests.support.canaries import CREDENTIALS, WATCH, Watch, webhook_secret
from tests.support.foreign import PACKAGES, must_run, require_tool
from tests.support.workers import Deployment, RunningWorker, until

T = TypeVar("T")

ADMIN_TOKEN = CREDENTIALS["admin token"]
VIEWER_TOKEN = CREDENTIALS["viewer token"]
WAIT_MS = 30_000
"""Of every wait in the browser: the machine has two cores, and others are on them."""
EVIL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
"""What a stranger may write into an event or a webhook."""
NARROW = {"width": 360, "height": 740}
WIDE = {"width": 1100, "height": 800}
# Where `CONSOLE_SCREENSHOTS=1` puts the pictures of the documentation.
PICTURES = Path(__file__).parents[2] / "docs" / "console"
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]

AXE = """(tags) => axe.run({ runOnly: { type: "tag", values: tags }, resultTypes: ["violations"] })
    .then((result) => result.violations)"""

# All of a page, but for the dialog that shows a secret once.
SHOWN = """() => {
    const page = document.documentElement.cloneNode(true);
    for (const secret of page.querySelectorAll("dialog .secret")) secret.remove();
    return page.outerHTML + location.href;
}"""


class System:
    """A worker on the embedded broker with stand-ins around it, in a loop of its own beside the test.

    Attributes:
        deployment: For hooks, receivers and stand-ins; what is awaited of it goes through `run`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="system", daemon=True)
        self._broker = EmbeddedBroker()
        self.deployment: Deployment
        self.worker: RunningWorker

    def start(self) -> None:
        self._broker.start()
        self._thread.start()
        self.run(self._start())

    def stop(self) -> None:
        self.run(self.deployment.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._broker.stop()

    async def _start(self) -> None:
        self.deployment = Deployment(self._broker.bootstrap, "console", self._folder)
        self.deployment.settings |= {"API__ADMIN_TOKEN": ADMIN_TOKEN, "API__VIEWER_TOKEN": VIEWER_TOKEN}
        await self.deployment.__aenter__()
        (self.worker,) = await self.deployment.start("worker-1")

    @property
    def url(self) -> str:
        """Of the worker."""
        return self.worker.url

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Await something in the system's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(180)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """An answer of the API to an admin, decoded; a refusal fails the test."""
        return self.run(self._call(method, path, body))

    async def _call(self, method: str, path: str, body: Any) -> Any:
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        async with (
            aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=60)) as client,
            client.request(method, self.url + path, json=body) as answer,
        ):
            text = await answer.text()
            assert answer.status < 400, f"{method} {path}: {answer.status} {text}"
            return json.loads(text) if text else None

    def until(self, asked: Callable[[], T], what: str) -> T:
        """Ask until the answer is true; that answer."""

        async def condition() -> T:
            return await asyncio.to_thread(asked)

        return self.run(until(condition, what))

    def webhook(self, url: str = "", events: tuple[str, ...] = ("*",), **more: Any) -> dict[str, Any]:
        """A webhook, by default for an address where nothing listens."""
        body = {"url": url or "http://127.0.0.1:9/hook", "events": list(events), "secret": webhook_secret(), **more}
        return self.call("POST", "/v1/webhooks", body)

    def publish(self, count: int = MIN_EVENTS, seed: int = 1) -> None:
        """Events of all types."""
        now_ms = time.time_ns() // 1_000_000
        events = make_workload(max(count, MIN_EVENTS), seed=seed, start_ms=now_ms).events
        self.run(self.deployment.publish(events[:count]))


@contextmanager
def running_system(folder: Path) -> Iterator[System]:
    """Until the end of the block."""
    system = System(folder)
    system.start()
    try:
        yield system
    finally:
        system.stop()


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Chromium as the system has it; nothing is downloaded."""
    chromium = require_tool("chromium")
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        yield browser
        browser.close()


def install_axe(folder: Path) -> str:
    """The source of axe-core, as pinned."""
    npm = require_tool("npm")
    for name in ("package.json", "package-lock.json"):
        (folder / name).write_bytes((PACKAGES / "console" / name).read_bytes())
    must_run(npm, "ci", "--no-audit", "--no-fund", cwd=folder)
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text()


@dataclass
class Seen:
    """The console in a tab.

    Attributes:
        page: For whatever a test wants of it.
        allowed: Statuses that the API may answer with in this test; the browser reports each as an error.
    """

    page: Page
    context: BrowserContext
    axe: str
    allowed: set[int] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Note each error that the browser reports."""
        self.page.set_default_timeout(WAIT_MS)
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")

    def unexpected(self) -> list[str]:
        """What was reported and not allowed."""
        statuses = {str(status) for status in self.allowed}
        return [error for error in self.errors if not (statuses & set(re.findall(r"status of (\d+)", error)))]

    def search(self, watch: Watch = WATCH) -> None:
        """Look for canaries in all pages as they are now."""
        for page in self.context.pages:
            watch.look(f"the console at {page.url}", page.evaluate(SHOWN).encode())

    def login(self, token: str) -> None:
        """Fill in the form."""
        self.page.get_by_label("Token").fill(token)
        self.page.get_by_role("button", name="Log in").click()
        self.page.get_by_role("navigation", name="Pages of the console").wait_for()

    def go(self, address: str, title: str | None = None) -> None:
        """Another page, such as `/webhooks`; waits for its title."""
        self.page.evaluate("(to) => { window.location.hash = to }", address)
        if title is not None:
            self.page.get_by_role("heading", level=1, name=title).wait_for()

    def has(self, text: str) -> None:
        """Wait until a text is seen."""
        self.page.get_by_text(text).first.wait_for()

    def button(self, name: str) -> None:
        """Press it."""
        self.page.get_by_role("button", name=name, exact=True).first.click()

    def confirm(self, action: str, *names: str) -> None:
        """A dialog asks, and names these; do it, and wait until it is gone."""
        dialog = self.page.get_by_role("dialog")
        dialog.wait_for()
        text = dialog.inner_text()
        assert all(name in text for name in names), text
        dialog.get_by_role("button", name=action, exact=True).click()
        dialog.wait_for(state="detached")

    def check(self) -> None:
        """Axe finds nothing, narrow in the dark and wide in the light, and nothing is wider than a small screen."""
        page = self.page
        if not page.evaluate("typeof window.axe === 'object'"):
            # Not by a script element: the policy of the page would refuse it, and is not to be switched off.
            page.evaluate(self.axe + "; true")
        for size, scheme in ((NARROW, "dark"), (WIDE, "light")):
            page.set_viewport_size(size)
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            found = page.evaluate(AXE, TAGS)
            told = [(one["id"], one["help"], [node["html"][:200] for node in one["nodes"]]) for one in found]
            assert not told, (page.url, size["width"], scheme, told)
            width = page.evaluate("document.scrollingElement.scrollWidth")
            assert width <= size["width"], f"{page.url} is {width} px wide on a screen of {size['width']}"

    def picture(self, name: str, height: int = 700) -> None:
        """For the documentation, where they are asked for; so high that what the page is for is on it."""
        if os.environ.get("CONSOLE_SCREENSHOTS"):
            PICTURES.mkdir(exist_ok=True)
            self.page.set_viewport_size({"width": 1000, "height": height})
            self.page.screenshot(path=PICTURES / f"{name}.png", full_page=False)
            self.page.set_viewport_size(WIDE)


def opened(console: Callable[..., Seen], webhook: str, role: str = "admin") -> Seen:
    """The page of a webhook, once it has all its parts."""
    seen = console(f"/webhooks/{webhook}", role)
    seen.page.get_by_role("heading", name="Configuration").wait_for()
    seen.page.get_by_role("heading", name="The last hour").wait_for()
    return seen


def shown(system: System, webhook: str) -> dict[str, object]:
    """What the API says of a webhook."""
    return dict(system.call("GET", f"/v1/webhooks/{webhook}"))
