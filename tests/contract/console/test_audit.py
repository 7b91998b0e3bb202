"""The audit trail: how far its chains are, whether they are as they were sealed, exports and reports."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Download, Locator, Route, expect

from app.devstack.standins import Dashboard, Fault
from app.integrations.verification import verify
from tests.support.console import EVIL, Seen, System

pytestmark = pytest.mark.foreign

Console = Callable[..., Seen]
RUN = "6f1c1d56-4f5e-4c0f-9a55-2b2e0a6d3c11"
HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


@pytest.fixture(scope="module")
def trail(system: System) -> list[dict[str, Any]]:
    """The chains, once everything that was recorded is sealed; those of some partitions have no entry."""
    system.publish(seed=7)

    def heads() -> list[dict[str, Any]]:
        rows = system.call("GET", "/v1/governance/status")["partitions"]
        sealed = any(row["head_hash"] for row in rows) and not any(row["unsealed"] for row in rows)
        return list(rows) if sealed else []

    return system.until(heads, "everything that was recorded is sealed")


def with_head(trail: list[dict[str, Any]]) -> int:
    return sum(row["head_hash"] is not None for row in trail)


@pytest.fixture
def dashboard(system: System) -> Iterator[Dashboard]:
    """The dashboard, which behaves again afterwards."""
    dashboard = system.deployment.upstreams.dashboard
    yield dashboard
    dashboard.fault = None


def region(seen: Seen, name: str) -> Locator:
    found = seen.page.get_by_role("region", name=name, exact=True)
    found.wait_for()
    return found


def run(**more: Any) -> dict[str, Any]:
    told = {"id": RUN, "worker": "worker-1", "state": "running", "step": "records", "read": 1200, "total": 5000}
    times = {"started_at": "2026-02-01T00:00:00.000Z", "ended_at": None}
    return {**told, **times, "ok": None, "error": None, "first_broken": None, "partitions": [], **more}


def with_run(seen: Seen, **more: Any) -> Locator:
    """The verification of the page, made up."""
    made = run(**more)
    seen.page.route(
        "**/v1/governance/verifications", lambda route: route.fulfill(json={"items": [made], "missing": []})
    )
    seen.go("/audit", "Audit")
    return region(seen, "Verification")


# --- Chains


def test_the_head_of_each_chain_is_shown(console: Console, trail: list[dict[str, Any]]) -> None:
    seen = console("/audit", role="viewer")
    table = seen.page.get_by_role("table", name="The chain of each partition of the audit topic")
    expect(table.get_by_role("row")).to_have_count(len(trail) + 1)
    assert table.get_by_role("rowheader").all_inner_texts() == [str(row["partition"]) for row in trail]
    assert len(re.findall("[0-9a-f]{64}", table.inner_text())) == with_head(trail)
    seen.has("No worker remembers a verification.")
    assert seen.page.get_by_role("button", name="Verify").count() == 0
    seen.check()


def test_without_governance_the_page_says_what_to_do(console: Console) -> None:
    seen = console("/webhooks")
    off = {"items": [{"off": ["governance"]}], "missing": []}
    empty = {"head_sequence": None, "head_hash": None, "unsealed": 7, "sealed": 0, "oldest_unaccepted_s": None}
    status = {"partitions": [{"partition": 0, **empty}], "missing": [1, 2]}
    seen.page.route("**/v1/workers", lambda route: route.fulfill(json=off))
    seen.page.route("**/v1/governance/status", lambda route: route.fulfill(json=status))
    seen.go("/audit", "Audit")
    seen.has("Governance is off: nothing is sealed.")
    seen.has("There is no dashboard to ask.")
    seen.has("No answer for 2 partitions (1, 2)")
    seen.check()


# --- Verification


def test_the_trail_is_verified_and_the_result_is_shown(console: Console, trail: list[dict[str, Any]]) -> None:
    seen = console("/audit")
    part = region(seen, "Verification")
    part.get_by_role("button", name="Verify").click()
    expect(part.get_by_role("status").first).to_contain_text("as it was sealed")
    compared = part.get_by_role("table", name="What was compared")
    expect(compared.get_by_text("as it was sealed")).to_have_count(with_head(trail))
    expect(compared.get_by_text("nothing sealed")).to_have_count(len(trail) - with_head(trail))
    seen.check()
    seen.picture("audit", height=955)
    seen.page.reload()
    expect(region(seen, "Verification").get_by_role("status").first).to_contain_text("as it was sealed")


def test_progress_is_shown_and_a_verification_is_cancelled_only_after_it_was_asked(console: Console) -> None:
    seen = console("/webhooks")
    part = with_run(seen)
    bar = part.get_by_role("progressbar", name="Records read of the verification")
    expect(bar).to_have_attribute("value", "1200")
    expect(part).to_contain_text("1,200 of 5,000 records")
    expect(part.get_by_role("button", name="Verify")).to_be_disabled()
    seen.check()
    asked = []

    def end(route: Route) -> None:
        asked.append(route.request.method)
        route.fulfill(json=run(state="cancelled"))

    seen.page.route(f"**/v1/governance/verifications/{RUN}", end)
    part.get_by_role("button", name="Cancel").click()
    seen.page.get_by_role("dialog", name="Cancel the verification?").wait_for()
    seen.check()
    assert asked == []
    seen.confirm("End it", RUN, "worker-1")
    seen.has("The verification is cancelled.")
    assert asked == ["DELETE"]
    viewer = console("/webhooks", role="viewer")
    part = with_run(viewer)
    part.get_by_role("progressbar").wait_for()
    assert part.get_by_role("button").count() == 0


def test_the_first_broken_batch_is_named(console: Console) -> None:
    finding = {"kind": "edited", "detail": EVIL, "sequence": None, "batch": "c-1-3-5"}
    good = {"partition": 0, "ok": True, "first": 0, "from_start": True, "head_sequence": 9, "head_hash": HASH}
    counts = {"checked": 10, "batches": 3, "unsealed": 1, "repeats": 0, "findings": [], "not_named": 0}
    bad = {**good, **counts, "partition": 1, "ok": False, "findings": [finding], "not_named": 2}
    seen = console("/webhooks")
    broken = {"first_broken": {"partition": 1, **finding}, "partitions": [{**good, **counts}, bad]}
    part = with_run(seen, state="done", ok=False, **broken)
    expect(part.get_by_role("status").first).to_contain_text("broken")
    expect(part.get_by_role("alert")).to_contain_text("First broken: batch c-1-3-5, partition 1: edited.")
    expect(part.get_by_role("table", name=re.compile("not as it was sealed, and 2 more"))).to_contain_text(EVIL)
    assert seen.page.locator("main img, main script").count() == 0
    assert part.locator(".badge.good").count() == 1
    seen.check()


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_one_that_did_not_reach_the_end_is_no_good_news(console: Console, state: str) -> None:
    seen = console("/webhooks")
    part = with_run(seen, state=state, error="Kafka could not be read" if state == "failed" else None)
    expect(part.get_by_role("status").first).to_contain_text(f"{state} It says nothing about")
    assert part.locator(".badge.good").count() == 0
    seen.check()


# --- Export


def downloaded(seen: Seen, press: Locator, folder: Path) -> tuple[Download, bytes]:
    with seen.page.expect_download() as info:
        press.click()
    file = folder / info.value.suggested_filename
    info.value.save_as(file)
    return info.value, file.read_bytes()


def test_an_export_is_saved_whole_with_its_digest(
    console: Console, trail: list[dict[str, Any]], tmp_path: Path
) -> None:
    seen = console("/audit", role="viewer")
    part = region(seen, "Export")
    part.get_by_label("Recorded since").fill("")
    download, body = downloaded(seen, part.get_by_role("button", name="Export"), tmp_path)
    assert download.suggested_filename == "audit-until-now.jsonl"
    expect(part.get_by_role("status")).to_contain_text(hashlib.sha256(body).hexdigest())
    verdicts = verify([json.loads(line) for line in body.splitlines()], trailers=True)
    assert [verdict.ok and verdict.ended for verdict in verdicts] == [True] * len(trail)
    seen.check()
    part.get_by_label("Export format").select_option("csv")
    part.get_by_label("Resource or dataset").fill("ds-none")
    download, body = downloaded(seen, part.get_by_role("button", name="Export"), tmp_path)
    assert download.suggested_filename == "audit-until-now.csv"
    assert body.startswith(b"kind,partition,")
    assert body.count(b"\r\ntrailer,") == len(trail)


def test_what_is_wrong_with_the_range_is_said_at_its_field(console: Console) -> None:
    seen = console("/audit")
    seen.allowed.add(422)
    part = region(seen, "Export")
    part.get_by_label("Recorded before").fill("2020-01-01T00:00:00")
    part.get_by_role("button", name="Export").click()
    expect(part.get_by_label("Recorded before")).to_have_attribute("aria-invalid", "true")
    seen.check()


def test_a_time_that_is_entered_in_part_is_not_taken_for_none(console: Console) -> None:
    seen = console("/audit")
    part = region(seen, "Export")
    since = part.get_by_label("Recorded since")
    since.focus()
    # Of the date, the month alone is gone.
    seen.page.keyboard.press("Delete")
    part.get_by_role("button", name="Export").click()
    expect(part.get_by_role("alert")).to_contain_text("Recorded since (UTC)")
    expect(since).to_be_focused()
    assert "Saved as" not in part.inner_text()


def test_an_export_that_is_not_whole_is_not_saved(console: Console) -> None:
    seen = console("/audit")
    saved: list[str] = []
    seen.page.on("download", lambda download: saved.append(download.suggested_filename))
    part = region(seen, "Export")
    seen.page.route("**/v1/governance/export**", lambda route: route.fulfill(body='{"sequence": 1}\n'))
    part.get_by_role("button", name="Export").click()
    expect(part.get_by_role("alert")).to_contain_text("no trailer at its end")
    seen.check()
    seen.page.unroute("**/v1/governance/export**")
    seen.page.route("**/v1/governance/export**", lambda route: route.abort())
    part.get_by_role("button", name="Export").click()
    expect(part.get_by_role("alert")).to_contain_text("broke off")
    assert saved == []
    assert all("ERR_FAILED" in error for error in seen.errors)
    seen.errors.clear()


# --- Reports


def test_each_report_is_saved_with_its_digest(console: Console, trail: list[dict[str, Any]], tmp_path: Path) -> None:
    seen = console("/audit", role="viewer")
    part = region(seen, "Reports")
    wanted = {
        "gdpr_article_30": "pdf",
        "soc2": "csv",
        "hipaa": "json",
        "access_summary": "pdf",
        "data_inventory": "csv",
    }
    starts = {"pdf": b"%PDF-1.4\n", "csv": b"category,events\n", "json": b'{\n  "'}
    for kind, form in wanted.items():
        part.get_by_label("Report", exact=True).select_option(kind)
        part.get_by_label("Report format").select_option(form)
        part.get_by_label("Start").fill("2026-01-01T00:00:00")
        part.get_by_label("End").fill("2026-02-01T00:00:00")
        part.get_by_label("Scope").fill("all")
        download, body = downloaded(seen, part.get_by_role("button", name="Make the report"), tmp_path)
        assert download.suggested_filename == f"{kind}-2026-01-01-2026-02-01.{form}"
        assert body.startswith(starts[form])
        expect(part.get_by_role("status")).to_contain_text(hashlib.sha256(body).hexdigest())
    seen.check()


def test_a_report_that_is_not_made_says_why_at_its_field_or_above(console: Console, dashboard: Dashboard) -> None:
    seen = console("/audit")
    seen.allowed |= {422, 503}
    part = region(seen, "Reports")
    part.get_by_label("Start").fill("2026-02-01T00:00:00")
    part.get_by_label("End").fill("2026-01-01T00:00:00")
    part.get_by_role("button", name="Make the report").click()
    expect(part.get_by_label("End")).to_have_accessible_description(re.compile("after start_date"))
    seen.check()
    part.get_by_label("Start").fill("2025-01-01T00:00:00")
    dashboard.fault = Fault(status=422, path="/reports/")
    part.get_by_role("button", name="Make the report").click()
    expect(part.get_by_role("alert")).to_contain_text("report_rejected (422)")
    seen.check()


def test_what_the_dashboard_says_is_text_and_nothing_else(console: Console) -> None:
    seen = console("/audit")
    content = base64.b64encode(b"%PDF-1.4\n").decode()
    told = {"id": EVIL, "generated_at": "2026-02-01T00:00:00Z", "content": content, "download_url": EVIL}
    seen.page.route("**/v1/governance/reports", lambda route: route.fulfill(json=told))
    part = region(seen, "Reports")
    with seen.page.expect_download():
        part.get_by_role("button", name="Make the report").click()
    expect(part.get_by_role("status")).to_contain_text(EVIL)
    assert seen.page.locator("main img, main script").count() == 0
    assert part.get_by_role("link").count() == 0
    seen.check()
