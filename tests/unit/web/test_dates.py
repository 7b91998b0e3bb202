"""A date is taken wherever a time is: its midnight in UTC, so that `to` a date is before its first moment."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.whole_api import WholeApi, whole_api


@pytest.fixture
async def api() -> AsyncIterator[WholeApi]:
    async with whole_api() as api:
        yield api


@pytest.mark.parametrize("path", ["/v1/deliveries", "/v1/dead-letters", "/v1/quarantine"])
async def test_a_list_since_a_date_has_what_came_on_that_day(api: WholeApi, path: str) -> None:
    # What the API of these tests has is of 2025-06-15, at noon.
    for date, found in (("2025-06-15", 2), ("2025-06-16", 0)):
        answer = await api.caller.get(f"{path}?since={date}")
        assert (answer.status, len(answer.document["items"])) == (200, found), date


@pytest.mark.parametrize("path", ["/v1/dead-letters", "/v1/quarantine"])
async def test_until_a_date_is_before_its_first_moment(api: WholeApi, path: str) -> None:
    for date, found in (("2025-06-15", 0), ("2025-06-16", 2)):
        assert len((await api.caller.get(f"{path}?until={date}")).document["items"]) == found, date


async def test_an_export_is_of_dates(api: WholeApi) -> None:
    async with api.caller.session.get(
        api.caller.url + "/v1/governance/export", params={"from": "2026-01-01", "to": "2026-02-01"}
    ) as answer:
        assert answer.status == 200
    assert (await api.caller.get("/v1/governance/export?from=2026-01-01&to=2026-01-01")).fields == ["to"]


async def test_a_report_is_of_dates(api: WholeApi) -> None:
    body = {"type": "soc2", "start_date": "2026-01-01", "end_date": "2026-02-01"}
    # There is no dashboard here: that it is asked for is as far as a report comes.
    assert (await api.caller.call("POST", "/v1/governance/reports", body)).code == (503, "governance_off")


async def test_a_replay_begins_at_the_midnight_of_a_date(api: WholeApi) -> None:
    body = {"since": "2025-06-01", "until": "2025-06-15"}
    answer = await api.caller.call("POST", "/v1/webhooks/wh_a/replay", body)
    assert answer.status == 202
    assert answer.document["since"] == "2025-06-01T00:00:00.000Z"
    assert answer.document["until"] == "2025-06-15T00:00:00.000Z"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/deliveries?since=2026-02-30", None),
        ("GET", "/v1/governance/export?from=2026-13-01", None),
        ("POST", "/v1/webhooks/wh_a/replay", {"since": "2026-2-3"}),
        ("POST", "/v1/webhooks/wh_a/hold", {"until": "tomorrow"}),
        ("POST", "/v1/governance/reports", {"type": "soc2", "start_date": "2026", "end_date": "2026-02-01"}),
    ],
)
async def test_what_is_neither_says_what_is_taken(api: WholeApi, method: str, path: str, body: Any) -> None:
    answer = await api.caller.call(method, path, body)
    assert answer.status == 422
    assert "or a date" in answer.document["errors"][0]["message"]
