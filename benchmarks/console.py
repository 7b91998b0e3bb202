"""Part: the console in a real Chromium, over ten thousand webhooks and a million deliveries in the table."""

import asyncio
import shutil
import time
from statistics import median
from typing import Any, Final
from urllib.parse import quote

from playwright.async_api import Browser, Page, async_playwright

from app.events import format_time
from benchmarks.bench import Bench, BenchmarkFailed, say
from benchmarks.deliveries_stage import Stage
from benchmarks.waiting import hold, park

__all__ = ["run"]

WEBHOOKS: Final = 10_000
HELD: Final = 10
ROWS: Final = 1_000_000
AT_ONCE: Final = 64
LOOKS: Final = 7
DAY_MS: Final = 86_400_000
# Since the page was asked for, in an empty cache.
PAINTED: Final = """() => new Promise((resolve) => {
    const told = (list) => list.filter((one) => one.name === "first-contentful-paint")
        .forEach((one) => resolve(one.startTime));
    told(performance.getEntriesByType("paint"));
    new PerformanceObserver((list) => told(list.getEntries())).observe({ type: "paint", buffered: true });
})"""
FILLED: Final = """() => new Promise((resolve) => {
    const look = () => document.querySelector("main table") ? resolve(performance.now()) : requestAnimationFrame(look);
    look();
})"""
# From the click to what the list has, or says that it has not.
LISTED: Final = """(address) => new Promise((resolve) => {
    const elsewhere = () => document.querySelector("main h1")?.textContent !== "There is no such page";
    window.location.hash = "/nowhere-" + Math.random();
    const began = () => {
        if (elsewhere()) return requestAnimationFrame(began);
        const start = performance.now();
        window.location.hash = address;
        const look = () => elsewhere() && document.querySelector("main table, main .empty")
            ? resolve(performance.now() - start) : requestAnimationFrame(look);
        requestAnimationFrame(look);
    };
    requestAnimationFrame(began);
})"""


def run(bench: Bench) -> dict[str, float]:
    """Milliseconds: the first paint, a filled overview, and the slowest list page."""
    chromium = shutil.which("chromium")
    if chromium is None:
        say("  no chromium on the PATH: not measured")
        return {}
    # Short runs are for a look at the harness.
    share = min(1.0, bench.seconds / 10)
    return asyncio.run(_measure(bench, chromium, max(HELD, int(WEBHOOKS * share)), int(ROWS * share)))


async def _measure(bench: Bench, chromium: str, webhooks: int, rows: int) -> dict[str, float]:
    async with Stage(bench) as stage:
        held = [await stage.webhook("http://127.0.0.1:9/hook") for _ in range(HELD)]
        for hook in held:
            await hold(stage, hook, format_time(time.time_ns() // 1_000_000 + DAY_MS))
        await _make(stage, webhooks - HELD)
        await park(bench, stage, rows)
        say(f"  {webhooks:,} webhooks, {rows:,} deliveries")
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
            )
            try:
                return await _look(browser, stage.url, held[0], webhooks)
            finally:
                await browser.close()


async def _make(stage: Stage, count: int) -> None:
    numbers = iter(range(count))

    async def some() -> None:
        for number in numbers:
            await stage.webhook("http://127.0.0.1:9/hook", ("dataset.*",), description=f"Webhook {number}")

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))


async def _look(browser: Browser, url: str, hook: str, webhooks: int) -> dict[str, float]:
    painted, filled = [], []
    for _ in range(LOOKS):
        page = await _open(browser, url)
        painted.append(float(await page.evaluate(PAINTED)))
        filled.append(float(await page.evaluate(FILLED)))
        await page.context.close()
    lists = {
        "webhooks": "/webhooks",
        "webhooks, the last page": await _last_page(browser, url),
        "webhooks, one of them": f"/webhooks?search=webhook+{webhooks - HELD - 1}",
        "a webhook": f"/webhooks/{hook}",
        "deliveries": "/deliveries",
        "deliveries of a webhook": f"/deliveries?webhook_id={hook}",
        "deliveries that wait": "/deliveries?status=pending",
        "deliveries that failed, of which there is none": "/deliveries?status=failed",
        "deliveries of a webhook that failed, of which there is none": f"/deliveries?webhook_id={hook}&status=failed",
        "deliveries of an event that is none": "/deliveries?event_id=none",
        "deliveries since a time": f"/deliveries?since={quote(format_time(time.time_ns() // 1_000_000))}",
        "dead letters": "/dead-letters",
        "quarantine": "/quarantine",
    }
    page = await _open(browser, url)
    await page.evaluate(FILLED)
    listed = {}
    for name, address in lists.items():
        listed[name] = median([float(await page.evaluate(LISTED, address)) for _ in range(LOOKS)])
        say(f"  {name}: {listed[name]:.0f} ms")
    figures = {
        "console_first_paint_ms": round(median(painted), 1),
        "console_overview_ms": round(median(filled), 1),
        "console_list_ms": round(max(listed.values()), 1),
    }
    say("  " + ", ".join(f"{name} {value:g}" for name, value in figures.items()))
    return figures


async def _open(browser: Browser, url: str) -> Page:
    """The overview, with nothing in a cache."""
    page = await (await browser.new_context()).new_page()
    await page.goto(url)
    return page


async def _last_page(browser: Browser, url: str) -> str:
    """Where the last webhooks are."""
    page = await _open(browser, url)
    cursor, address = "", "/webhooks"
    while True:
        answer = await page.request.get(f"{url}/v1/webhooks?limit=200{cursor and f'&cursor={cursor}'}")
        if not answer.ok:
            raise BenchmarkFailed(f"no list of webhooks: {answer.status}")
        told: dict[str, Any] = await answer.json()
        if told["next_cursor"] is None:
            await page.context.close()
            return address
        cursor = told["next_cursor"]
        address = f"/webhooks?cursor={cursor}"
