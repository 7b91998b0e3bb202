"""`vault-stream report`, against an API that a test scripts."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from app.cli.report import report
from tests.support import scripted_api as scripted

PDF = b"%PDF-1.7\n\x00\xff"
RANGE = ("--from", "2026-01-01", "--to", "2026-02-01T12:00:00Z")


def made(content: Any, type_: str = "soc2") -> dict[str, Any]:
    return {"id": "rep-1", "report_type": type_, "generated_at": "2026-02-01T00:00:00Z", "content": content}


@pytest.mark.parametrize(
    ("format_", "content", "saved"),
    [
        ("pdf", base64.b64encode(PDF).decode(), PDF),
        ("csv", "a,b\r\n1,2\r\n", b"a,b\r\n1,2\r\n"),
        ("json", {"controls": 4}, b'{\n  "controls": 4\n}\n'),
    ],
)
def test_a_report_is_saved_and_its_digest_printed(
    api: scripted.Api, tmp_path: Path, format_: str, content: Any, saved: bytes
) -> None:
    api.will_answer(made(content))
    result = scripted.run(report, "Soc2", *RANGE, "--format", format_, "--scope", "t1", "-o", "r.out")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "r.out").read_bytes() == saved
    assert result.stdout == f"r.out: {len(saved)} bytes, SHA-256 {hashlib.sha256(saved).hexdigest()}\n"
    (asked,) = api.asked
    assert (asked.method, asked.path) == ("POST", "/v1/governance/reports")
    assert asked.body == {
        "report_type": "soc2",
        "start_date": "2026-01-01T00:00:00.000Z",
        "end_date": "2026-02-01T12:00:00.000Z",
        "format": format_,
        "scope": "t1",
    }


@pytest.mark.parametrize("spelling", ["gdpr_article_30", "GdprArticle30"])
def test_without_a_name_the_file_is_called_by_what_is_in_it(api: scripted.Api, tmp_path: Path, spelling: str) -> None:
    api.will_answer(made(base64.b64encode(PDF).decode(), "gdpr_article_30"))
    result = scripted.run(report, spelling, *RANGE, "--json")
    told = json.loads(result.stdout)
    assert told["file"] == "gdpr_article_30-2026-01-01-2026-02-01.pdf"
    assert told["sha256"] == hashlib.sha256((tmp_path / told["file"]).read_bytes()).hexdigest()


def test_on_standard_output_there_is_nothing_but_the_report(api: scripted.Api) -> None:
    api.will_answer(made("a,b\n"))
    result = scripted.run(report, "hipaa", *RANGE, "--format", "Csv", "-o", "-")
    assert (result.exit_code, result.stdout) == (0, "a,b\n")
    assert "SHA-256" in result.stderr


@pytest.mark.parametrize("content", [None, 7, "no base64!", {"a": 1}])
def test_what_is_no_report_leaves_no_file(api: scripted.Api, tmp_path: Path, content: Any) -> None:
    api.will_answer(made(content))
    result = scripted.run(report, "soc2", *RANGE)
    assert result.exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_what_the_api_refuses_is_said_in_one_line(api: scripted.Api) -> None:
    api.will_answer({"code": "governance_off", "detail": "Set GOVERNANCE__ENDPOINT."}, status=503)
    result = scripted.run(report, "soc2", *RANGE)
    assert result.exit_code == 1
    assert "GOVERNANCE__ENDPOINT" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("everything", *RANGE),
        ("soc2",),
        ("soc2", "--from", "yesterday", "--to", "2026-02-01"),
        ("soc2", "--from", "2026-02-01", "--to", "2026-01-01"),
        ("soc2", *RANGE, "--format", "xlsx"),
    ],
)
def test_wrong_usage_exits_2_and_asks_nobody(api: scripted.Api, arguments: tuple[str, ...]) -> None:
    assert scripted.run(report, *arguments).exit_code == 2
    assert api.asked == []
