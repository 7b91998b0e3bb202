from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from app.integrations.reports import Reports
from app.web.reports import report_routes
from tests.support.listening import TOKENS, VIEWER, Answer, Caller, listening
from tests.support.scripted_upstream import ScriptedUpstream

PATH = "/v1/governance/reports"
ASKED = {"report_type": "soc2", "start_date": "2026-01-01T00:00:00Z", "end_date": "2026-02-01T00:00:00Z"}


class Scene:
    """The route, and the dashboard behind it."""

    def __init__(self, caller: Caller, dashboard: ScriptedUpstream) -> None:
        self.caller = caller
        self.dashboard = dashboard
        self.answer: dict[str, Any] = {
            "id": "rep-1",
            "report_type": "soc2",
            "generated_at": "2026-02-01T00:00:00Z",
            "content": {"controls": 4},
        }

    async def ask(self, **fields: Any) -> Answer:
        body = {name: value for name, value in {**ASKED, **fields}.items() if value is not None}
        return await self.caller.call("POST", PATH, body, headers=VIEWER)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    dashboard = ScriptedUpstream()
    reports = Reports(dashboard, ScriptedUpstream(), "http://dashboard.example", "/api/v1/reports/{type}")
    async with listening(report_routes(reports), TOKENS) as caller:
        found = Scene(caller, dashboard)
        dashboard.body = lambda _: orjson.dumps(found.answer)
        yield found


async def test_a_viewer_gets_a_report(scene: Scene) -> None:
    answer = await scene.ask()
    assert answer.status == 200
    assert answer.document == {**scene.answer, "format": "json"}


async def test_a_type_may_be_spelled_as_in_the_source_document(scene: Scene) -> None:
    scene.answer |= {"report_type": "GdprArticle30", "content": base64.b64encode(b"%PDF-").decode()}
    answer = await scene.ask(report_type=None, type="GdprArticle30", format="Pdf", scope="tenant t1")
    assert (answer.status, answer.document["report_type"]) == (200, "gdpr_article_30")
    (call,) = scene.dashboard.calls
    assert call.path == "/api/v1/reports/gdpr_article_30"
    assert orjson.loads(call.body)["format"] == "pdf"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"report_type": "everything"}, "/report_type"),
        ({"report_type": None}, "/report_type"),
        ({"report_type": 7}, "/report_type"),
        ({"type": "soc2"}, "/type"),
        ({"format": "xlsx"}, "/format"),
        ({"start_date": "2026-01"}, "/start_date"),
        ({"end_date": None}, "/end_date"),
        ({"end_date": ASKED["start_date"]}, "/end_date"),
        ({"scope": ""}, "/scope"),
        ({"scope": ["t1"]}, "/scope"),
        ({"colour": "red"}, "/colour"),
    ],
)
async def test_a_request_that_is_wrong_names_the_field(scene: Scene, fields: dict[str, Any], field: str) -> None:
    answer = await scene.ask(**fields)
    assert (answer.code, answer.fields) == ((422, "invalid_field"), [field])
    assert scene.dashboard.calls == []


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (None, (503, "governance_unavailable")),
        (401, (503, "governance_unavailable")),
        (503, (503, "governance_unavailable")),
        (422, (422, "report_rejected")),
    ],
)
async def test_what_the_dashboard_refuses_is_a_problem(scene: Scene, status: int | None, code: tuple[int, str]) -> None:
    scene.dashboard.judge = lambda _: status
    scene.dashboard.retry_after_s = 7.2
    answer = await scene.ask()
    assert answer.code == code
    assert status != 503 or answer.headers["Retry-After"] == "8"


async def test_what_is_no_report_is_a_problem(scene: Scene) -> None:
    scene.answer["content"] = None
    assert (await scene.ask()).code == (503, "report_malformed")


async def test_without_a_dashboard_it_says_what_to_set() -> None:
    async with listening(report_routes(None)) as caller:
        answer = await caller.call("POST", PATH, ASKED)
    assert answer.code == (503, "governance_off")
    assert answer.document["setting"] == "VAULT_STREAM_GOVERNANCE__ENDPOINT"
    assert "set VAULT_STREAM_GOVERNANCE__ENDPOINT" in answer.document["detail"]
