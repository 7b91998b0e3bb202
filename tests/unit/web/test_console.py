"""The console's files: what a browser may do with them, and that nothing else is served as one of them."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from app.settings.model import WebhookSettings
from app.web.console import console_routes
from tests.support.listening import ADMIN, TOKENS, VIEWER, Caller, listening

FOLDER = Path(str(files("app.web.console"))) / "assets"
ASSETS = sorted(str(file.relative_to(FOLDER)) for file in FOLDER.rglob("*") if file.is_file())
OURS = [name for name in ASSETS if name.endswith(".js") and not name.startswith("vendor/")]
DOCUMENTATION = Path(__file__).parents[3] / "docs" / "console.md"
PICTURES = DOCUMENTATION.parent / "console"
# Each version of each is kept by git for ever.
PICTURES_BYTES = 600_000
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "connect-src": "'self'",
    "img-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}


@pytest.fixture
async def api() -> AsyncIterator[Caller]:
    async with listening(console_routes(), TOKENS) as caller:
        yield caller


async def fetch(api: Caller, path: str, **headers: str) -> tuple[aiohttp.ClientResponse, bytes]:
    async with api.session.get(URL(api.url + path, encoded=True), headers=headers) as answer:
        return answer, await answer.read()


async def test_the_page_needs_no_token_and_holds_no_data(api: Caller) -> None:
    answer, body = await fetch(api, "/")
    assert (answer.status, answer.content_type, answer.charset) == (200, "text/html", "utf-8")
    named = re.findall(rb'<link rel="modulepreload" href="/console/([^"]+)">', body)
    assert {name.decode() for name in named} == {name for name in ASSETS if name.endswith(".js")}
    rest = re.sub(rb"( *<link rel=.modulepreload[^\n]+\n)+", b"    <!-- modules -->\n", body)
    assert rest == (FOLDER / "index.html").read_bytes()


def test_the_form_of_a_webhook_names_the_defaults_of_a_deployment() -> None:
    form = (FOLDER / "pages" / "webhook_form.js").read_text()
    usual = WebhookSettings()
    schedule = f"{len(usual.retry_schedule_s)} attempts within {math.ceil(sum(usual.retry_schedule_s) / 3600)} hours"
    for default in (f"{usual.timeout_s:g}", f"{usual.max_in_flight}", schedule):
        assert f"Empty: as the deployment, {default} unless it says otherwise." in form


@pytest.mark.parametrize("name", [name for name in OURS if name.startswith("pages/")])
def test_a_page_shows_and_takes_times_in_the_one_way_of_the_console(name: str) -> None:
    page = (FOLDER / name).read_text()
    # `Time` shows and `TimeField` takes them; `exactly` and `rfc3339` write them for the API.
    for own in ("new Date(", "toISOString", "toLocale", "DateTimeFormat", "<time", "datetime-local", "UTC)"):
        assert own not in page, own
    times = r"[\w.]+(?:_at|_until|since)"
    assert re.findall(rf'>\$\{{{times}\}}|\["[^"]+", {times}\]', page) == []
    for label in re.findall(r'<\$\{Field\} label="([^"]+)"', page):
        assert not re.search(r"\b(since|until|before|after|start|end)$", label, re.IGNORECASE), label


@pytest.mark.parametrize("path", ["/", *(f"/console/{name}" for name in ASSETS)])
async def test_a_browser_loads_and_asks_nothing_but_this_worker(api: Caller, path: str) -> None:
    answer, _ = await fetch(api, path)
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
    assert policy == POLICY
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize("name", ASSETS)
async def test_a_file_comes_again_only_when_it_was_changed(api: Caller, name: str) -> None:
    first, body = await fetch(api, f"/console/{name}")
    assert name == "index.html" or body == (FOLDER / name).read_bytes()
    assert first.headers["Cache-Control"] == "no-cache"
    etag = first.headers["ETag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again, nothing = await fetch(api, f"/console/{name}", **{"If-None-Match": known})
        assert (again.status, nothing, again.headers["ETag"]) == (304, b"", etag)
        assert "Content-Security-Policy" in again.headers
    other, whole = await fetch(api, f"/console/{name}", **{"If-None-Match": '"other"'})
    assert (other.status, whole) == (200, body)


@pytest.mark.parametrize(
    "name",
    [
        "../__init__.py",
        "..%2f__init__.py",
        "%2e%2e/__init__.py",
        "pages/../../__init__.py",
        "pages/..%2f..%2f__init__.py",
        "..\\__init__.py",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "app.js%00",
        "app.js/",
        "pages",
        "pages/",
        "__init__.py",
        "APP.JS",
        "",
    ],
)
async def test_nothing_else_is_a_file_of_the_console(api: Caller, name: str) -> None:
    answer, body = await fetch(api, f"/console/{name}")
    assert (answer.status, answer.content_type) == (404, "application/problem+json")
    assert b"import" not in body


def test_no_file_loads_anything_foreign_or_has_anything_inline() -> None:
    page = (FOLDER / "index.html").read_text()
    assert not re.search(r"<style|<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=", page)
    for name in ASSETS:
        text = (FOLDER / name).read_text()
        loaded = re.findall(r"""(?:from|import|src=|href=|url\()\s*["']([^"'`$]+)["']""", text)
        assert all(re.match(r"[./#]", address) and not address.startswith("//") for address in loaded), (name, loaded)


@pytest.mark.parametrize("name", OURS)
def test_no_page_makes_html_of_strings(name: str) -> None:
    text = (FOLDER / name).read_text()
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|\bstyle=|javascript:"
    assert not re.search(forbidden, text)
    assert "localStorage" not in text


def test_the_vendored_library_says_what_it_is() -> None:
    head = (FOLDER / "vendor" / "htm-preact.js").read_text()[:2000]
    assert "htm 3.1.1" in head
    assert "Apache License 2.0" in head
    assert "MIT License" in head


async def test_the_session_is_the_token_s(api: Caller) -> None:
    assert (await api.get("/v1/session")).status == 401
    assert (await api.get("/v1/session", headers=VIEWER)).document == {"name": "viewer", "role": "viewer"}
    assert (await api.get("/v1/session", headers=ADMIN)).document == {"name": "admin", "role": "admin"}


async def test_without_tokens_everybody_on_this_machine_is_an_admin() -> None:
    async with listening(console_routes()) as api:
        assert (await api.get("/v1/session")).document == {"name": "local", "role": "admin"}
        assert (await api.get("/v1/session", headers={"Host": "evil.example"})).code == (403, "forbidden_host")


class TestDocumentation:
    def test_has_a_line_for_each_page_of_the_navigation(self) -> None:
        told = re.findall(r"^\| ([A-Z][a-z ]+) \|", DOCUMENTATION.read_text(), re.MULTILINE)
        pages = (FOLDER / "pages").glob("*.js")
        assert sorted(told) == sorted(nav for page in pages for nav in re.findall(r'nav: "([^"]+)"', page.read_text()))

    def test_shows_each_picture_that_the_tests_take_and_no_other(self) -> None:
        shown = re.findall(r"\(console/([a-z-]+)\.png\)", DOCUMENTATION.read_text())
        tests = (Path(__file__).parents[2] / "contract" / "console").glob("test_*.py")
        taken = [name for test in tests for name in re.findall(r'\.picture\("([^"]+)"', test.read_text())]
        assert sorted(shown) == sorted(taken) == sorted(file.stem for file in PICTURES.iterdir())
        assert sum(file.stat().st_size for file in PICTURES.iterdir()) < PICTURES_BYTES
