import base64
from typing import Any

import orjson
import pytest

from app.integrations.reports import ReportFormat, ReportRequest, Reports, ReportType, origin_of
from app.integrations.upstream import Malformed, Rejected, Unavailable
from tests.support.scripted_upstream import ScriptedUpstream

ENDPOINT = "https://dashboard.example/governance"
PDF = b"%PDF-1.7\n\xff"
START_MS, END_MS = 1_767_225_600_000, 1_769_904_000_000
SEED_SPELLINGS = {
    "GdprArticle30": "gdpr_article_30",
    "Soc2": "soc2",
    "Hipaa": "hipaa",
    "AccessSummary": "access_summary",
    "DataInventory": "data_inventory",
}
CONTENTS: dict[str, Any] = {"json": {"rows": 3}, "csv": "a,b\r\n1,2\r\n", "pdf": base64.b64encode(PDF).decode()}


def answered(type_: ReportType = ReportType.SOC2, **fields: Any) -> dict[str, Any]:
    return {
        "id": "rep-1",
        "report_type": type_.value,
        "generated_at": "2026-02-01T00:00:00Z",
        "content": CONTENTS["json"],
        **fields,
    }


class Scene:
    def __init__(self, answer: Any, download: bytes = b"") -> None:
        self.dashboard = ScriptedUpstream(body=lambda _: orjson.dumps(answer))
        self.downloads = ScriptedUpstream(body=lambda _: download)
        self.reports = Reports(self.dashboard, self.downloads, ENDPOINT, "/api/v1/reports/{type}")

    async def ask(self, format_: str = "json", type_: ReportType = ReportType.SOC2, **fields: Any) -> dict[str, Any]:
        request = ReportRequest(type_, START_MS, END_MS, ReportFormat(format_), **fields)
        return (await self.reports.generate(request)).show()


@pytest.mark.parametrize(("seed", "ours"), SEED_SPELLINGS.items())
def test_each_type_has_both_spellings(seed: str, ours: str) -> None:
    assert ReportType.parse(seed) is ReportType.parse(ours) is ReportType(ours)


def test_there_are_five_types_and_three_formats() -> None:
    assert set(ReportType) == set(SEED_SPELLINGS.values())
    assert [ReportFormat.parse(text) for text in ("pdf", "Pdf", "json", "Json", "csv", "Csv")] == [
        *("pdf", "pdf", "json", "json", "csv", "csv")
    ]


@pytest.mark.parametrize("text", ["", "SOC2", "soc-2", "Gdpr_Article_30", "everything"])
def test_no_other_type_is_known(text: str) -> None:
    with pytest.raises(ValueError, match="gdpr_article_30"):
        ReportType.parse(text)


@pytest.mark.parametrize("type_", ReportType)
@pytest.mark.parametrize("format_", ReportFormat)
async def test_each_type_comes_in_each_format(type_: ReportType, format_: ReportFormat) -> None:
    scene = Scene(answered(type_, content=CONTENTS[format_]))
    shown = await scene.ask(format_, type_, scope="tenant t1")
    assert (shown["report_type"], shown["format"], shown["content"]) == (type_, format_, CONTENTS[format_])
    (call,) = scene.dashboard.calls
    assert (call.method, call.path) == ("POST", f"/api/v1/reports/{type_.value}")
    assert orjson.loads(call.body) == {
        "start_date": "2026-01-01T00:00:00.000Z",
        "end_date": "2026-02-01T00:00:00.000Z",
        "format": format_.value,
        "scope": "tenant t1",
    }
    assert scene.downloads.calls == []


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://dashboard.example/files/1?sig=a%2Fb", "/files/1?sig=a%2Fb"),
        ("https://dashboard.example:443/f", "/f"),
        ("/files/2", "/files/2"),
        ("files/3", "/governance/files/3"),
    ],
)
@pytest.mark.parametrize(("format_", "raw"), [("json", b'{"rows":3}'), ("csv", b"a,b\r\n1,2\r\n"), ("pdf", PDF)])
async def test_a_report_elsewhere_is_fetched_from_the_dashboards_own_origin(
    url: str, target: str, format_: str, raw: bytes
) -> None:
    scene = Scene(answered(content=None, download_url=url), raw)
    shown = await scene.ask(format_)
    assert shown["content"] == CONTENTS[format_]
    assert origin_of(shown["download_url"]) == origin_of(ENDPOINT)
    (call,) = scene.downloads.calls
    assert (call.method, call.path) == ("GET", target)


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/f",
        "http://dashboard.example/f",
        "https://dashboard.example:8443/f",
        "https://dashboard.example@evil.example/f",
        "https://user@dashboard.example/f",
        "https://dashboard.example\\@evil.example/f",
        "//evil.example/f",
        "https://dashboard.example/f\r\nX: y",
        "file:///etc/passwd",
        "https://dashboard.example:x/f",
        7,
        None,
    ],
)
async def test_nothing_is_fetched_from_anywhere_else(url: Any) -> None:
    scene = Scene(answered(content=None, download_url=url))
    with pytest.raises(Malformed, match="own origin"):
        await scene.ask()
    assert scene.downloads.calls == []
    given = await Scene(answered(download_url=url)).ask()
    assert "download_url" not in given


@pytest.mark.parametrize(
    ("format_", "answer"),
    [
        ("json", []),
        ("json", answered(id="")),
        ("json", answered(id=5)),
        ("json", answered(report_type="hipaa")),
        ("json", answered(report_type=None)),
        ("json", answered(generated_at="yesterday")),
        ("json", answered(content="text")),
        ("csv", answered(content={"rows": 3})),
        ("csv", answered(content="")),
        ("csv", answered(content="\n<!DOCTYPE html><p>Please log in</p>")),
        ("pdf", answered(content="not base64!")),
        ("pdf", answered(content="nicht base64 \xe4")),
        ("pdf", answered(content="")),
        ("pdf", answered(content=base64.b64encode(b"<html>Please log in</html>").decode())),
    ],
)
async def test_what_is_not_exactly_a_report_is_none(format_: str, answer: Any) -> None:
    with pytest.raises(Malformed):
        await Scene(answer).ask(format_)


@pytest.mark.parametrize(
    ("format_", "raw"),
    [
        ("json", b"[]"),
        ("json", b"{"),
        ("csv", b"\xff"),
        ("csv", b""),
        ("csv", b"<html>Please log in</html>"),
        ("pdf", b"<html>Please log in</html>"),
        ("pdf", b"\x1f\x8b%PDF-1.7"),
        ("pdf", b""),
    ],
)
async def test_what_is_fetched_is_looked_at_as_closely(format_: str, raw: bytes) -> None:
    with pytest.raises(Malformed):
        await Scene(answered(content=None, download_url="/f"), raw).ask(format_)


@pytest.mark.parametrize(("format_", "raw"), [("csv", b"a,b\r\n1,2\r\n"), ("pdf", PDF)])
@pytest.mark.parametrize(
    ("status", "content_type", "content_encoding"),
    [(200, "text/html; charset=utf-8", ""), (200, "", "gzip"), (206, "", "")],
)
async def test_what_is_fetched_as_a_page_or_compressed_or_in_part_is_no_report(
    format_: str, raw: bytes, status: int, content_type: str, content_encoding: str
) -> None:
    scene = Scene(answered(content=None, download_url="/f"), raw)
    scene.downloads.judge = lambda _: status
    scene.downloads.content_type, scene.downloads.content_encoding = content_type, content_encoding
    with pytest.raises(Malformed):
        await scene.ask(format_)


@pytest.mark.parametrize(
    ("status", "error"), [(None, Unavailable), (401, Unavailable), (503, Unavailable), (422, Rejected)]
)
async def test_a_refusal_is_never_a_report(status: int | None, error: type[Exception]) -> None:
    scene = Scene(answered())
    scene.dashboard.judge = lambda _: status
    with pytest.raises(error):
        await scene.ask()
