"""Events that are none, put to the API: rows B1 to B9 of bad input. `POST /v1/match` says what the router would do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from tests.support.listening import Answer
from tests.support.whole_api import EVENT, WholeApi, whole_api

EVENT_TYPE = {"Content-Type": "application/cloudevents+json"}
EXTENDED = orjson.dumps(EVENT)[:-1]


@pytest.fixture
async def api() -> AsyncIterator[WholeApi]:
    async with whole_api() as api:
        yield api
        assert api.untouched


async def match(api: WholeApi, event: Any) -> Answer:
    text = event if isinstance(event, bytes) else orjson.dumps(event)
    return await api.caller.call("POST", "/v1/match", data=text, headers=EVENT_TYPE)


def is_problem(answer: Answer, status: int, code: str, field: str = "") -> bool:
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.code == (status, code)
    assert answer.fields == [field]
    return True


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="B1-empty"),
        pytest.param(b" \n", id="B1-white-space"),
        pytest.param(b"hello", id="B2-no-json"),
        pytest.param(EXTENDED, id="B2-truncated"),
        pytest.param(b"\xef\xbb\xbf" + orjson.dumps(EVENT), id="B2-byte-order-mark"),
        pytest.param(EXTENDED + b',"x":"\xff"}', id="B2-no-utf-8"),
        pytest.param(EXTENDED + b',"x":"\x00"}', id="B2-nul"),
        pytest.param(EXTENDED + b',"x":NaN}', id="B2-nan"),
        pytest.param(EXTENDED + b',"x":1e400}', id="B2-beyond-a-double"),
        pytest.param(EXTENDED + b',"x":"\\udc00"}', id="B2-lone-surrogate"),
        pytest.param(EXTENDED + b',"x":' + b"9" * 5000 + b"}", id="B2-5000-digits"),
        pytest.param(b"[" * 100_000 + b"]" * 100_000, id="B2-nested-100000-deep"),
    ],
)
async def test_what_is_no_json_is_400(api: WholeApi, text: bytes) -> None:
    assert is_problem(await match(api, text), 400, "invalid_json")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"null", id="B1-null"),
        pytest.param(b"[]", id="B2-list"),
        pytest.param(b'"x"', id="B2-text"),
        pytest.param(b"1", id="B2-number"),
        pytest.param(EXTENDED + b',"id":"e-2"}', id="B2-a-key-twice"),
        pytest.param(EXTENDED + b',"\\u0069d":"e-2"}', id="B2-a-key-twice-escaped"),
        pytest.param(EXTENDED + b',"x":18446744073709551616}', id="B2-beyond-64-bits"),
        pytest.param(EXTENDED[:-1] + b',"x":' + b"[" * 64 + b"]" * 64 + b"}}", id="B2-nested-66-deep"),
    ],
)
async def test_json_that_can_be_read_in_two_ways_or_is_no_object_is_422(api: WholeApi, text: bytes) -> None:
    assert is_problem(await match(api, text), 422, "invalid_envelope")


@pytest.mark.parametrize("value", [None, "", 7, True, [], {}], ids=repr)
@pytest.mark.parametrize("name", ["id", "source", "type", "specversion"])
async def test_b3_a_required_attribute_that_is_none_is_422_and_named(api: WholeApi, name: str, value: Any) -> None:
    answer = await match(api, {**EVENT, name: value})
    assert is_problem(answer, 422, "invalid_envelope", f"/{name}")
    assert name in answer.document["detail"]


@pytest.mark.parametrize("name", ["id", "source", "type", "specversion"])
async def test_b3_a_required_attribute_that_is_missing_is_422_and_named(api: WholeApi, name: str) -> None:
    answer = await match(api, {key: value for key, value in EVENT.items() if key != name})
    assert is_problem(answer, 422, "invalid_envelope", f"/{name}")
    assert name in answer.document["detail"]


@pytest.mark.parametrize(
    "changes",
    [
        {"specversion": "0.3"},
        {"specversion": "2.0"},
        {"specversion": "1"},
        {"id": "a\nb"},
        {"id": "a\x00b"},
        {"datacontenttype": 7},
        {"datacontenttype": ""},
        {"dataschema": "no scheme"},
        {"source": "not a uri"},
        {"source": "/a\nb"},
        {"source": "/%zz"},
        {"ext": {"a": 1}},
        {"ext": 2**31},
        {"ext": 1.5},
        {"ext": "a\nb"},
        {"expirytime": "soon"},
    ],
    ids=repr,
)
async def test_b3_an_attribute_that_breaks_the_rules_is_422_and_named(api: WholeApi, changes: dict[str, Any]) -> None:
    (name,) = changes
    assert is_problem(await match(api, {**EVENT, **changes}), 422, "invalid_envelope", f"/{name}")


@pytest.mark.parametrize("name", ["Extension", "x" * 21, "a/b"])
async def test_b3_an_attribute_of_a_name_that_none_can_have_is_422(api: WholeApi, name: str) -> None:
    assert is_problem(await match(api, {**EVENT, name: "x"}), 422, "invalid_envelope")


@pytest.mark.parametrize("id_", ["a.b", "💣", "../../etc/passwd", "\u05d0\u05d1", "x" * 10_000, "<script>", "'; --"])
async def test_b3_an_id_is_any_text_and_is_matched(api: WholeApi, id_: str) -> None:
    answer = await match(api, {**EVENT, "id": id_})
    assert (answer.status, [item["matched"] for item in answer.document["items"]]) == (200, [True, True])


@pytest.mark.parametrize(
    "time",
    [
        *("", "yesterday", "2026-01-31", "2026-01-31T12:00:00", "+10000-01-01T00:00:00Z", "2026-02-30T12:00:00Z"),
        *("2026-01-31T25:00:00Z", "2026-01-31T12:00:00+25:00", 1_790_000_000, True, {}),
    ],
    ids=repr,
)
async def test_b4_a_time_that_is_none_is_422(api: WholeApi, time: Any) -> None:
    answer = await match(api, {**EVENT, "time": time})
    assert is_problem(answer, 422, "invalid_envelope", "/time")
    assert "time" in answer.document["detail"]


@pytest.mark.parametrize(
    "time",
    [
        *("2016-12-31T23:59:60Z", "2026-01-31T12:00:00.123456789Z", "9999-12-31T23:59:59Z", "1969-07-20T20:17:40Z"),
        "2036-01-31T12:00:00Z",
    ],
)
async def test_b4_a_time_of_any_year_is_matched(api: WholeApi, time: str) -> None:
    assert (await match(api, {**EVENT, "time": time})).status == 200


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"data_base64": "e30="}, "invalid_envelope"),
        ({"data": None, "data_base64": "not base64"}, "invalid_envelope"),
        ({"data": None, "data_base64": 7}, "invalid_envelope"),
        ({"data": None, "data_base64": "e30=", "datacontenttype": "text/xml"}, "invalid_data"),
        ({"data": None}, "invalid_data"),
        ({"data": []}, "invalid_data"),
        ({"data": "x"}, "invalid_data"),
        ({"data": {"dataset_id": 7, "name": "x"}}, "invalid_data"),
    ],
    ids=repr,
)
async def test_b6_data_that_is_none_of_its_type_is_422(api: WholeApi, changes: dict[str, Any], code: str) -> None:
    assert is_problem(await match(api, {**EVENT, **changes}), 422, code)


@pytest.mark.parametrize(
    "type_",
    ["llm.data-vault.unknown", "llm.data-vault.dataset.exploded", "com.example.new", "dataset.created", "*", "X" * 500],
)
async def test_b9_an_unknown_type_is_422_and_is_delivered_to_nobody(api: WholeApi, type_: str) -> None:
    # Both webhooks ask for everything: what the catalogue does not have is not part of that (contracts 1.1).
    assert is_problem(await match(api, {**EVENT, "type": type_}), 422, "unknown_type", "/type")


@pytest.mark.parametrize(
    "pattern", ["llm.data-vault.unknown", "dataset.exploded", "**", "dataset.**", "dataset.c*", ""]
)
async def test_b9_a_webhook_cannot_ask_for_an_unknown_type(api: WholeApi, pattern: str) -> None:
    body = {"url": "https://example.com/hook", "events": ["dataset.created", pattern]}
    answer = await api.caller.call("POST", "/v1/webhooks", body)
    assert answer.code == (422, "invalid_pattern")
    assert answer.fields == ["/events/1"]
