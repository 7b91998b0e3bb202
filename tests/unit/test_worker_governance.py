"""Reports over real HTTP, as a worker asks for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from app.integrations.reports import ReportRequest, Reports, ReportType
from app.integrations.upstream import HttpUpstream, Unavailable, UpstreamConfig
from app.settings.model import GovernanceSettings
from app.worker_governance import at_origin

ASKED = ReportRequest(ReportType.SOC2, 1_767_225_600_000, 1_769_904_000_000)


class DashboardServer:
    """Keeps its reports beside the path of its endpoint."""

    def __init__(self, download_url: str) -> None:
        self.download_url = download_url
        self.tokens: list[tuple[str, str | None]] = []
        self.endpoint = ""

    async def make(self, request: web.Request) -> web.Response:
        self._note(request)
        report = {"id": "rep-1", "report_type": "soc2", "generated_at": "2026-02-01T00:00:00Z", "content": None}
        return web.json_response({**report, "download_url": self.download_url})

    async def give(self, request: web.Request) -> web.Response:
        self._note(request)
        return web.json_response({"controls": 4})

    async def redirect(self, request: web.Request) -> web.Response:
        self._note(request)
        raise web.HTTPFound("/files/1")

    def _note(self, request: web.Request) -> None:
        self.tokens.append((request.path, request.headers.get("Authorization")))


@asynccontextmanager
async def serving(download_url: str) -> AsyncIterator[tuple[DashboardServer, Reports]]:
    server = DashboardServer(download_url)
    app = web.Application()
    app.add_routes(
        [
            web.post("/gov/api/v1/reports/soc2", server.make),
            web.get("/files/1", server.give),
            web.get("/files/moved", server.redirect),
        ]
    )
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}/gov"
    settings = GovernanceSettings(endpoint=endpoint)
    clients = [
        HttpUpstream(UpstreamConfig(endpoint=str(one.endpoint), timeout_s=5, token="hunter2"))
        for one in (settings, at_origin(settings))
    ]
    try:
        yield server, Reports(clients[0], clients[1], endpoint, settings.path_reports)
    finally:
        for client in clients:
            await client.close()
        await runner.cleanup()


async def test_a_report_beside_the_endpoint_is_fetched_with_the_same_token() -> None:
    async with serving("/files/1") as (server, reports):
        report = await reports.generate(ASKED)
    assert report.content == {"controls": 4}
    assert server.tokens == [("/gov/api/v1/reports/soc2", "Bearer hunter2"), ("/files/1", "Bearer hunter2")]


async def test_a_redirect_is_not_followed() -> None:
    async with serving("/files/moved") as (server, reports):
        with pytest.raises(Unavailable):
            await reports.generate(ASKED)
    assert [path for path, _ in server.tokens] == ["/gov/api/v1/reports/soc2", "/files/moved"]


@pytest.mark.parametrize(
    ("endpoint", "origin"),
    [
        ("https://dashboard.example/governance/v2", "https://dashboard.example:443"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        (None, None),
    ],
)
def test_the_root_of_an_endpoint_is_its_origin(endpoint: str | None, origin: str | None) -> None:
    assert at_origin(GovernanceSettings(endpoint=endpoint)).endpoint == origin
