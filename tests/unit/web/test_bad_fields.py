"""Fields of webhooks that are not what they must be: the rows B10, B13, B15 and B18 of bad input, and the rest of them.

What is registered is sent to strangers for years, so everything is checked when it is registered, and named.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.listening import Answer
from tests.support.webhook_api import BODY, SECRET
from tests.support.whole_api import EVENT, WholeApi, whole_api


@pytest.fixture
async def api() -> AsyncIterator[WholeApi]:
    async with whole_api() as api:
        yield api


async def written(api: WholeApi, fields: dict[str, Any]) -> list[Answer]:
    """The answers to a create and to a change with these fields."""
    return [
        await api.caller.call("POST", "/v1/webhooks", BODY | fields),
        await api.caller.call("PATCH", "/v1/webhooks/wh_a", fields),
    ]


async def assert_refused(api: WholeApi, fields: dict[str, Any], code: str, field: str) -> None:
    for answer in await written(api, fields):
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.code == (422, code)
        assert answer.fields == [field]
    assert api.untouched


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        pytest.param({"X-A": "a\r\nX-B: b"}, "/headers/X-A", id="line-break"),
        pytest.param({"X-A": "a\nb"}, "/headers/X-A", id="line-feed"),
        pytest.param({"X-A": "a\x00b"}, "/headers/X-A", id="nul"),
        pytest.param({"X-A": "a\x7fb"}, "/headers/X-A", id="delete"),
        pytest.param({"X-A\r\nX-B": "a"}, "/headers/X-A\r\nX-B", id="line-break-in-the-name"),
        pytest.param({"X-A:": "a"}, "/headers/X-A:", id="colon"),
        pytest.param({"X A": "a"}, "/headers/X A", id="white-space"),
        pytest.param({"": "a"}, "/headers/", id="empty"),
        pytest.param({"X/A": "a"}, "/headers/X~1A", id="slash"),
        pytest.param({"Ä": "a"}, "/headers/Ä", id="not-ascii"),
        pytest.param({"X-A": "1", "x-a": "2"}, "/headers/x-a", id="twice-by-case"),
        pytest.param({f"X-{n}": "a" for n in range(33)}, "/headers", id="33"),
        pytest.param({f"X-{n}": "a" for n in range(101)}, "/headers", id="101"),
        pytest.param({"X-A": "a" * 9 * 1024}, "/headers/X-A", id="value-of-9-kb"),
        pytest.param({"X-A": 7}, "/headers/X-A", id="number"),
        pytest.param({"X-A": None}, "/headers/X-A", id="null"),
        pytest.param({"X-A": ["a"]}, "/headers/X-A", id="list"),
        pytest.param([["X-A", "a"]], "/headers", id="pairs"),
        pytest.param("X-A: a", "/headers", id="text"),
    ],
)
async def test_b13_a_custom_header_that_cannot_be_sent_is_422(api: WholeApi, headers: Any, field: str) -> None:
    await assert_refused(api, {"headers": headers}, "invalid_header", field)


@pytest.mark.parametrize(
    "name",
    [
        *("Host", "Content-Type", "content-length", "Content-Encoding", "Transfer-Encoding", "Connection", "TE"),
        *("Trailer", "Upgrade", "Expect", "Keep-Alive", "Proxy-Authorization", "Cookie", "Webhook-Id"),
        *("webhook-signature", "X-Webhook-Signature", "X-Event-Id", "X-Delivery-Id", "CE-Id", "traceparent"),
        "TraceState",
    ],
)
async def test_b13_a_reserved_header_is_422(api: WholeApi, name: str) -> None:
    await assert_refused(api, {"headers": {name: "a"}}, "invalid_header", f"/headers/{name}")


async def test_b13_a_value_that_is_not_ascii_is_kept_as_it_is(api: WholeApi) -> None:
    for answer in await written(api, {"headers": {"X-Team": "Datén\t💣"}}):
        assert answer.status in (200, 201)
        assert answer.document["headers"] == {"X-Team": "Datén\t💣"}


@pytest.mark.parametrize(
    ("filter_", "field"),
    [
        ([], "/filter"),
        ("a = 1", "/filter"),
        ({"colour": ["red"]}, "/filter/colour"),
        ({"tenant_id": []}, "/filter/tenant_id"),
        ({"tenant_id": "t1"}, "/filter/tenant_id"),
        ({"tenant_id": [7]}, "/filter/tenant_id"),
        ({"dataset_id": None}, "/filter/dataset_id"),
        ({"data": []}, "/filter/data"),
        ({"data": {"a": []}}, "/filter/data/a"),
        ({"data": {"a": "x"}}, "/filter/data/a"),
        ({"data": {"a": [{}]}}, "/filter/data/a"),
        ({"data": {"a": ["x"] * 101}}, "/filter/data/a"),
        ({"data": {"": ["x"]}}, "/filter/data/"),
        ({"data": {"a..b": ["x"]}}, "/filter/data/a..b"),
        ({"data": {".": ["x"]}}, "/filter/data/."),
        ({"data": {"a/b": []}}, "/filter/data/a~1b"),
        ({"data": {"a" * 257: ["x"]}}, "/filter/data/" + "a" * 257),
        ({"data": {f"p{n}": ["x"] for n in range(21)}}, "/filter/data"),
    ],
    ids=range(18),
)
async def test_b15_a_filter_that_is_none_is_422(api: WholeApi, filter_: Any, field: str) -> None:
    await assert_refused(api, {"filter": filter_}, "invalid_filter", field)


@pytest.mark.parametrize("value", ["*", "(a+)+$", "a" * 30 + "!", "%", ".*", "' OR 1=1"])
async def test_b15_a_filter_compares_and_never_searches(api: WholeApi, value: str) -> None:
    # Nothing in a filter is a pattern, so none of them can take long.
    (made, _) = await written(api, {"filter": {"data": {"name": [value]}}})
    assert made.document["filter"] == {"data": {"name": [value]}}
    for name, why_not in ((value, None), ("a" * 30, "filter:data.name")):
        event = {**EVENT, "data": {"dataset_id": "ds-1", "name": name}}
        verdicts = (await api.caller.call("POST", "/v1/match", event)).document["items"]
        told = {verdict["webhook_id"]: verdict.get("why_not") for verdict in verdicts}
        assert told[made.document["id"]] == why_not


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"url": "https://[::1"}, "invalid_url", "/url"),
        ({"url": "https://ex\tample.com/"}, "invalid_url", "/url"),
        ({"url": "https://example.com\\@10.0.0.1/"}, "invalid_url", "/url"),
        ({"url": "https://example.com:99999/"}, "invalid_url", "/url"),
        ({"url": "https://user@example.com/"}, "invalid_url", "/url"),
        ({"url": "javascript:alert(1)"}, "invalid_url", "/url"),
        ({"url": "//example.com/hook"}, "invalid_url", "/url"),
        ({"url": ""}, "invalid_url", "/url"),
        ({"url": ["https://example.com"]}, "invalid_url", "/url"),
        ({"events": "dataset.*"}, "invalid_pattern", "/events"),
        ({"events": []}, "invalid_pattern", "/events"),
        ({"events": ["*"] * 51}, "invalid_pattern", "/events"),
        ({"events": ["*", 7]}, "invalid_pattern", "/events/1"),
        ({"description": ""}, "invalid_field", "/description"),
        ({"description": "x" * 1025}, "invalid_field", "/description"),
        ({"description": 7}, "invalid_field", "/description"),
        ({"enabled": "true"}, "invalid_field", "/enabled"),
        ({"enabled": 1}, "invalid_field", "/enabled"),
        ({"retry_schedule_s": []}, "invalid_schedule", "/retry_schedule_s"),
        ({"retry_schedule_s": [0] * 51}, "invalid_schedule", "/retry_schedule_s"),
        ({"retry_schedule_s": [0, -1]}, "invalid_schedule", "/retry_schedule_s/1"),
        ({"retry_schedule_s": [604_801]}, "invalid_schedule", "/retry_schedule_s/0"),
        ({"retry_schedule_s": ["0"]}, "invalid_schedule", "/retry_schedule_s/0"),
        ({"retry_schedule_s": [True]}, "invalid_schedule", "/retry_schedule_s/0"),
        ({"timeout_s": 0}, "invalid_field", "/timeout_s"),
        ({"timeout_s": 61}, "invalid_field", "/timeout_s"),
        ({"timeout_s": "15"}, "invalid_field", "/timeout_s"),
        ({"timeout_s": True}, "invalid_field", "/timeout_s"),
        ({"rate_limit_per_s": 0}, "invalid_field", "/rate_limit_per_s"),
        ({"rate_limit_per_s": 10_001}, "invalid_field", "/rate_limit_per_s"),
        ({"max_in_flight": 0}, "invalid_field", "/max_in_flight"),
        ({"max_in_flight": 129}, "invalid_field", "/max_in_flight"),
        ({"max_in_flight": 1.5}, "invalid_field", "/max_in_flight"),
        ({"ordering": "STRICT"}, "invalid_field", "/ordering"),
        ({"ordering": ["strict"]}, "invalid_field", "/ordering"),
        ({"ordering": {}}, "invalid_field", "/ordering"),
        ({"signatures": []}, "invalid_field", "/signatures"),
        ({"signatures": "v1"}, "invalid_field", "/signatures"),
        ({"signatures": ["v2"]}, "invalid_field", "/signatures"),
        ({"signatures": [["v1"]]}, "invalid_field", "/signatures"),
        ({"signatures": [{}]}, "invalid_field", "/signatures"),
        ({"signatures": ["v1a"]}, "invalid_field", "/signatures"),
        ({"signatures": ["v1", "v1a"]}, "invalid_field", "/signatures"),
        ({"handshake": "yes"}, "invalid_field", "/handshake"),
        *(
            ({name: "x"}, "invalid_field", f"/{name}")
            for name in ("id", "version", "health", "created_at", "__class__")
        ),
    ],
    ids=range(49),
)
async def test_a_field_that_is_not_what_it_must_be_is_422(
    api: WholeApi, fields: dict[str, Any], code: str, field: str
) -> None:
    await assert_refused(api, fields, code, field)


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_short", SECRET.removeprefix("whsec_"), SECRET + "!", "whsec_" + "A" * 200, 7, None]
)
async def test_a_secret_that_is_none_is_422_and_not_shown(api: WholeApi, secret: Any) -> None:
    answer = await api.caller.call("POST", "/v1/webhooks", BODY | {"secret": secret})
    assert answer.code == (422, "invalid_secret")
    assert answer.fields == ["/secret"]
    assert api.untouched


@pytest.mark.parametrize(
    ("action", "body", "field"),
    [
        ("hold", {}, "/until"),
        ("hold", {"until": 7}, "/until"),
        ("hold", {"until": ""}, "/until"),
        ("hold", {"until": "2000-01-01T00:00:00Z"}, "/until"),
        ("hold", {"until": "9999-12-31T23:59:59Z"}, "/until"),
        ("hold", {"until": "2026-01-31T12:00:00"}, "/until"),
        ("hold", {"until": ["2026-01-31T12:00:00Z"]}, "/until"),
        ("rotate-secret", {"overlap_s": -1}, "/overlap_s"),
        ("rotate-secret", {"overlap_s": 604_801}, "/overlap_s"),
        ("rotate-secret", {"overlap_s": "0"}, "/overlap_s"),
        ("rotate-secret", {"overlap_s": True}, "/overlap_s"),
        ("rotate-secret", {"overlap_s": None}, "/overlap_s"),
        ("rotate-secret", {"secret": SECRET}, "/secret"),
    ],
)
async def test_a_field_of_an_action_is_422_and_named(
    api: WholeApi, action: str, body: dict[str, Any], field: str
) -> None:
    answer = await api.caller.call("POST", f"/v1/webhooks/wh_a/{action}", body)
    assert answer.code == (422, "invalid_field")
    assert answer.fields == [field]
    assert api.untouched


@pytest.mark.parametrize("path", ["/v1/dead-letters/resend", "/v1/quarantine/republish"])
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, ""),
        ({"all": False}, ""),
        ({"all": 1}, "/all"),
        ({"all": "true"}, "/all"),
        ({"all": None}, "/all"),
        ({"all": True, "since": "2026-01-31T12:00:00Z"}, ""),
        ({"reason": "happy"}, "/reason"),
        ({"reason": 7}, "/reason"),
        ({"reason": ["exhausted"]}, "/reason"),
        ({"since": "yesterday"}, "/since"),
        ({"until": 7}, "/until"),
    ],
    ids=repr,
)
async def test_a_filter_of_many_that_is_none_is_422(api: WholeApi, path: str, body: dict[str, Any], field: str) -> None:
    answer = await api.caller.call("POST", path, body)
    assert answer.status == 422
    assert answer.fields == [field]
    assert api.untouched


@pytest.mark.parametrize("dry_run", ["true", 1, None, {}])
async def test_a_dry_run_that_is_nearly_one_republishes_nothing(api: WholeApi, dry_run: Any) -> None:
    answer = await api.caller.call("POST", "/v1/quarantine/republish", {"all": True, "dry_run": dry_run})
    assert answer.code == (422, "invalid_field")
    assert answer.fields == ["/dry_run"]


async def test_b10_another_body_under_the_same_key_is_422(api: WholeApi) -> None:
    for body, status in ((BODY, 201), (BODY, 201), (BODY | {"description": "x"}, 422)):
        answer = await api.caller.call("POST", "/v1/webhooks", body, headers={"Idempotency-Key": "k-1"})
        assert answer.status == status
    assert answer.document["code"] == "idempotency_key_reused"
    assert len(api.owner.commands) == 1


async def test_b18_markup_comes_back_as_json_and_nothing_else(api: WholeApi) -> None:
    script = "<script>alert(1)</script>"
    for answer in await written(api, {"description": script, "headers": {"X-A": script}}):
        assert answer.document["description"] == script
        assert answer.headers["Content-Type"].startswith("application/json")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    refused = await api.caller.get(f"/v1/webhooks?{script}=1")
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert refused.headers["X-Content-Type-Options"] == "nosniff"
