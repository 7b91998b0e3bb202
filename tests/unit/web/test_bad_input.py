"""Requests that no honest caller sends: each is answered by a problem document that names what is wrong, and none of
them does anything. The rows B1 to B19 are those of bad input to the system; those of events are in `test_bad_events`.
"""

from __future__ import annotations

import base64
import gzip
import io
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.listening import ADMIN, TOKENS, VIEWER, Answer
from tests.support.whole_api import DELIVERY_ID, WholeApi, whole_api

JSON = {"Content-Type": "application/json"}
PROBLEM = "application/problem+json"

NEEDS_BODY = [("POST", "/v1/webhooks"), ("PATCH", "/v1/webhooks/wh_a"), ("POST", "/v1/webhooks/wh_a/hold")]
MAY_HAVE_BODY = [
    ("POST", "/v1/webhooks/wh_a/rotate-secret"),
    ("POST", "/v1/webhooks/wh_a/rekey"),
    ("POST", "/v1/webhooks/wh_a/enable"),
    ("POST", "/v1/webhooks/wh_a/disable"),
    ("POST", "/v1/webhooks/wh_a/ping"),
    ("POST", f"/v1/deliveries/{DELIVERY_ID}/resend"),
    ("POST", "/v1/dead-letters/resend"),
    ("POST", "/v1/dead-letters/0-0/resend"),
    ("POST", "/v1/quarantine/republish"),
    ("POST", "/v1/quarantine/0-0/republish"),
]
REPLAY = ("POST", "/v1/webhooks/wh_a/replay")
WRITES = [*NEEDS_BODY, *MAY_HAVE_BODY, REPLAY]
LISTS = ["/v1/webhooks", "/v1/deliveries", "/v1/dead-letters", "/v1/quarantine", "/v1/replays"]
READS = [
    *LISTS,
    "/v1/webhooks/wh_a",
    f"/v1/deliveries/{DELIVERY_ID}",
    "/v1/dead-letters/0-0",
    "/v1/quarantine/0-0",
]


@pytest.fixture
async def api() -> AsyncIterator[WholeApi]:
    async with whole_api() as api:
        yield api
        assert api.untouched


async def ask(api: WholeApi, method: str, path: str, **named: Any) -> Answer:
    return await api.caller.call(method, path, **named)


def is_problem(answer: Answer, status: int, code: str, *fields: str) -> bool:
    """Whether it is a problem document of this status and name that names these fields, and no others."""
    document = answer.document
    named = [error["field"] for error in document.get("errors", ())]
    assert answer.headers["Content-Type"] == PROBLEM
    assert document.keys() <= {"type", "title", "status", "detail", "code", "errors"}
    assert (answer.status, document["status"], document["code"], named) == (status, status, code, list(fields))
    assert document["type"] == "about:blank"
    return bool(document["title"] and document["detail"])


BAD_JSON = {
    "B1-white-space": b" \n\t",
    "B2-no-json": b"hello",
    "B2-truncated": b'{"description": "x"',
    "B2-byte-order-mark": b"\xef\xbb\xbf{}",
    "B2-utf-16": '{"description": "x"}'.encode("utf-16"),
    "B2-no-utf-8": b'{"description": "\xff"}',
    "B2-overlong-utf-8": b'{"description": "\xc0\xaf"}',
    "B2-nul": b'{"description": "\x00"}',
    "B2-control-character": b'{"description": "\x1b"}',
    "B2-lone-surrogate": b'{"description": "\\ud800"}',
    "B2-nan": b'{"timeout_s": NaN}',
    "B2-infinity": b'{"timeout_s": -Infinity}',
    "B2-beyond-a-double": b'{"timeout_s": 1e400}',
    "B2-beyond-64-bits": b'{"timeout_s": 18446744073709551616}',
    "B2-below-64-bits": b'{"timeout_s": -9223372036854775809}',
    "B2-5000-digits": b'{"timeout_s": ' + b"9" * 5000 + b"}",
    "B2-a-key-twice": b'{"description": "x", "description": "y"}',
    "B2-a-key-twice-escaped": b'{"description": "x", "\\u0064escription": "y"}',
    "B2-a-key-twice-inside": b'{"filter": {"data": {"a": [1], "a": [2]}}}',
    "B2-nested-65-deep": b'{"filter": ' + b"[" * 64 + b"]" * 64 + b"}",
    "B2-nested-100000-deep": b"[" * 100_000 + b"]" * 100_000,
    "two-values": b"{}{}",
    "a-comment": b"{/* */}",
    "a-trailing-comma": b'{"description": "x",}',
    "single-quotes": b"{'description': 'x'}",
}


class TestBodies:
    @pytest.mark.parametrize("text", BAD_JSON.values(), ids=BAD_JSON)
    async def test_what_cannot_be_read_in_one_way_is_400(self, api: WholeApi, text: bytes) -> None:
        for method, path in WRITES:
            answer = await ask(api, method, path, data=text, headers=JSON)
            assert is_problem(answer, 400, "invalid_json", "")

    @pytest.mark.parametrize(("method", "path"), [*NEEDS_BODY[:2], REPLAY])
    async def test_b1_none_where_one_is_needed_is_400(self, api: WholeApi, method: str, path: str) -> None:
        answer = await ask(api, method, path, data=b"", headers=JSON)
        assert is_problem(answer, 400, "invalid_json", "")
        assert "empty" in answer.document["detail"]

    @pytest.mark.parametrize("text", [b"[]", b'"x"', b"1", b"null", b"true", b"[{}]"])
    async def test_b2_a_value_that_is_no_object_is_422(self, api: WholeApi, text: bytes) -> None:
        for method, path in WRITES:
            answer = await ask(api, method, path, data=text, headers=JSON)
            assert is_problem(answer, 422, "invalid_field", "")

    async def test_b2_ten_megabytes_are_413(self, api: WholeApi) -> None:
        text = b'{"description": "' + b"x" * 10_000_000 + b'"}'
        for method, path in [*WRITES, ("POST", "/v1/match")]:
            assert is_problem(await ask(api, method, path, data=io.BytesIO(text), headers=JSON), 413, "too_large")

    async def test_more_than_any_body_has_to_be_is_413(self, api: WholeApi) -> None:
        text = b'{"description": "' + b"x" * 256 * 1024 + b'"}'
        for method, path in WRITES:
            assert is_problem(await ask(api, method, path, data=text, headers=JSON), 413, "too_large")

    async def test_a_small_body_that_unpacks_to_ten_megabytes_is_413(self, api: WholeApi) -> None:
        bomb = gzip.compress(b'{"description": "' + b"x" * 10_000_000 + b'"}')
        assert len(bomb) < 20_000
        answer = await ask(api, "POST", "/v1/webhooks", data=bomb, headers={**JSON, "Content-Encoding": "gzip"})
        assert is_problem(answer, 413, "too_large")

    async def test_an_unknown_field_is_422_and_named_as_a_pointer(self, api: WholeApi) -> None:
        for method, path in MAY_HAVE_BODY:
            answer = await ask(api, method, path, body={"a/b~c": 1})
            assert is_problem(answer, 422, "invalid_field", "/a~1b~0c")

    async def test_of_many_unknown_fields_some_are_named(self, api: WholeApi) -> None:
        body = {f"field-{n}": n for n in range(10_000)}
        for method, path in WRITES:
            answer = await ask(api, method, path, body=body)
            assert (answer.status, answer.document["code"]) == (422, "invalid_field")
            assert 1 <= len(answer.fields) <= 20

    @pytest.mark.parametrize(
        "kind",
        [
            "text/plain",
            "text/json",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/xml",
            "application/json; charset=utf-16",
            "application/json; charset=nonsense",
            "application/jsonp",
            "json",
            "",
            "é",
            "/",
            "application/json, application/json",
        ],
    )
    async def test_b6_a_body_that_does_not_say_it_is_json_is_415(self, api: WholeApi, kind: str) -> None:
        for method, path in [*WRITES, ("POST", "/v1/match")]:
            answer = await ask(api, method, path, data=b"{}", headers={"Content-Type": kind})
            assert is_problem(answer, 415, "unsupported_media_type", "Content-Type")
            assert "application/json" in answer.headers["Accept-Post"].split(", ")


class TestPaths:
    @pytest.mark.parametrize(
        "id_",
        [
            "%00",
            "wh_a%00",
            "wh_a%0A",
            "wh_a%0D%0ASet-Cookie:%20a=b",
            "%1B%5B2J",
            "%E2%80%AEa_hw",
            "%F0%9F%92%A3",
            "%ff",
            "%C0%AF",
            "%ED%A0%80",
            "..%2f..%2fhealth",
            "wh_a%2F..%2Fwh_b",
            "%2e%2e",
            "wh_a%2500",
            "WH_A",
            "wh_a;v=1",
            "wh_a%20",
            "wh_%D0%B0",
            "*",
            "0-18446744073709551616",
            "-1--1",
            "%EF%BC%90-%EF%BC%90",
            "1" * 5000,
        ],
    )
    async def test_b3_an_id_that_is_none_is_404(self, api: WholeApi, id_: str) -> None:
        asked = [("GET", f"{path}/{id_}") for path in LISTS]
        asked += [(method, f"/v1/replays/{id_}") for method in ("GET", "DELETE")]
        asked += [("DELETE", f"/v1/webhooks/{id_}"), ("POST", f"/v1/webhooks/{id_}/enable")]
        asked += [("POST", f"{path}/{id_}/resend") for path in ("/v1/deliveries", "/v1/dead-letters")]
        asked += [("POST", f"/v1/quarantine/{id_}/republish")]
        for method, path in asked:
            assert is_problem(await ask(api, method, path), 404, "not_found")

    @pytest.mark.parametrize(
        "path",
        ["/v1/webhooks/", "//v1/webhooks", "/v1//webhooks", "/V1/webhooks", "/v1/webhooks%2Fwh_a", "/v1", "/%00"],
    )
    async def test_another_way_to_write_a_path_is_404(self, api: WholeApi, path: str) -> None:
        assert is_problem(await ask(api, "GET", path), 404, "not_found")

    @pytest.mark.parametrize("method", ["PUT", "TRACE", "OPTIONS", "PROPFIND"])
    async def test_another_method_is_405_and_says_which_there_are(self, api: WholeApi, method: str) -> None:
        answer = await ask(api, method, "/v1/webhooks/wh_a")
        assert is_problem(answer, 405, "method_not_allowed")
        assert answer.headers["Allow"] == "DELETE,GET,HEAD,PATCH"


class TestQueries:
    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("colour=red", "colour"),
            ("colour", "colour"),
            ("LIMIT=1", "LIMIT"),
            ("limit%00=1", "limit\x00"),
            ("%22%3E%3Cscript%3E=1", '"><script>'),
            ("%ff=1", "\ufffd"),
            ("a%0Ab=1", "a\nb"),
            ("%E2%80%AE=1", "\u202e"),
            ("a;b=1", "a;b"),
        ],
    )
    async def test_a_parameter_that_is_not_known_is_422_everywhere(self, api: WholeApi, query: str, field: str) -> None:
        asked = [
            *(("GET", path) for path in READS),
            *WRITES,
            ("DELETE", "/v1/webhooks/wh_a"),
            ("DELETE", "/v1/replays/r"),
            ("POST", "/v1/match"),
        ]
        for method, path in asked:
            assert is_problem(await ask(api, method, f"{path}?{query}"), 422, "invalid_query", field)

    async def test_a_name_of_half_a_character_is_422(self, api: WholeApi) -> None:
        answer = await ask(api, "GET", "/v1/webhooks?%ED%A0%80=1")
        assert (answer.status, answer.document["code"]) == (422, "invalid_query")

    async def test_of_many_unknown_ones_some_are_named(self, api: WholeApi) -> None:
        answer = await ask(api, "GET", "/v1/webhooks?" + "&".join(f"a{n}" for n in range(1000)))
        assert answer.status == 422
        assert 1 <= len(answer.fields) <= 20

    @pytest.mark.parametrize("path", LISTS)
    @pytest.mark.parametrize(
        "limit", ["", "0", "-1", "201", "1.0", "1e2", "0x10", "%EF%BC%91", "1%00", "+1", "%201", "9" * 5000, "NaN"]
    )
    async def test_a_limit_that_is_none_is_422(self, api: WholeApi, path: str, limit: str) -> None:
        assert is_problem(await ask(api, "GET", f"{path}?limit={limit}"), 422, "invalid_query", "limit")

    @pytest.mark.parametrize("path", LISTS[1:4])
    @pytest.mark.parametrize(
        "time",
        [
            "",
            "yesterday",
            "0",
            "2026-01-31T12:00:00",
            "2026-02-30T12:00:00Z",
            "%2B10000-01-01T00:00:00Z",
            "2026-01-31T24:00:00Z",
            "2026-01-31T12:00:00Z%00",
            "9999-12-31T23:59:60Z",
        ],
    )
    async def test_b4_a_time_that_is_none_is_422(self, api: WholeApi, path: str, time: str) -> None:
        assert is_problem(await ask(api, "GET", f"{path}?since={time}"), 422, "invalid_query", "since")

    @pytest.mark.parametrize(("path", "name"), [(LISTS[1], "status"), (LISTS[2], "reason"), (LISTS[3], "reason")])
    async def test_a_word_that_is_none_of_its_own_is_422(self, api: WholeApi, path: str, name: str) -> None:
        for word in ("", "happy", "%00", "FAILED"):
            assert is_problem(await ask(api, "GET", f"{path}?{name}={word}"), 422, "invalid_query", name)

    @pytest.mark.parametrize("path", READS)
    async def test_a_parameter_twice_is_422(self, api: WholeApi, path: str) -> None:
        name = "limit" if path in LISTS else "cursor"
        answer = await ask(api, "GET", f"{path}?{name}=1&{name}=1")
        assert is_problem(answer, 422, "invalid_query", name)


class TestCursors:
    @pytest.mark.parametrize("path", LISTS)
    async def test_one_that_was_changed_is_422_and_the_real_one_goes_on(self, api: WholeApi, path: str) -> None:
        first = (await ask(api, "GET", f"{path}?limit=1")).document
        cursor = first["next_cursor"]
        plain = base64.urlsafe_b64decode(cursor)
        changed = [
            *(plain[:at] + bytes([plain[at] ^ 1]) + plain[at + 1 :] for at in range(len(plain))),
            plain[:-1],
            plain[1:],
            plain + b"1",
            plain + plain,
            b"",
        ]
        for text in (*(base64.urlsafe_b64encode(one).decode() for one in changed), cursor[:-1], "é", "%00", "a b"):
            answer = await ask(api, "GET", path, params={"cursor": text})
            assert is_problem(answer, 422, "invalid_query", "cursor")

        second = await ask(api, "GET", path, params={"cursor": cursor})
        assert second.status == 200
        assert [item["id"] for item in second.document["items"]] != [item["id"] for item in first["items"]]

    async def test_one_of_another_list_is_422(self, api: WholeApi) -> None:
        cursors = {path: (await ask(api, "GET", f"{path}?limit=1")).document["next_cursor"] for path in LISTS}
        for path in LISTS:
            for other in set(LISTS) - {path}:
                answer = await ask(api, "GET", path, params={"cursor": cursors[other]})
                assert is_problem(answer, 422, "invalid_query", "cursor")

    async def test_one_in_a_body_is_named_as_a_field(self, api: WholeApi) -> None:
        cursor = (await ask(api, "GET", "/v1/quarantine?limit=1")).document["next_cursor"]
        for wrong in (cursor, "x", "", 7, {"a": 1}):
            answer = await ask(api, "POST", "/v1/dead-letters/resend", body={"all": True, "cursor": wrong})
            assert is_problem(answer, 422, "invalid_query", "/cursor")


class TestHeaders:
    @pytest.mark.parametrize("tag", ["", "3", '"2"', 'W/"3"', '"3', "null", ",", '"é"', '"' + "x" * 4000 + '"', '" 3"'])
    async def test_an_if_match_that_is_not_this_version_is_412(self, api: WholeApi, tag: str) -> None:
        asked = [("DELETE", "", None), ("PATCH", "", {"description": "x"}), ("POST", "/disable", None)]
        asked += [("POST", f"/{name}", body) for name, body in (("hold", {"until": None}), ("rotate-secret", {}))]
        for method, action, body in asked:
            path, headers = f"/v1/webhooks/wh_a{action}", {"If-Match": tag}
            answer = await ask(api, method, path, body=body, headers=headers)
            assert is_problem(answer, 412, "precondition_failed", "If-Match")

    @pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "é", "\u202e", "💣"])
    async def test_an_idempotency_key_that_is_none_is_422(self, api: WholeApi, key: str) -> None:
        for path in (
            "/v1/webhooks",
            f"/v1/deliveries/{DELIVERY_ID}/resend",
            "/v1/dead-letters/0-0/resend",
            "/v1/dead-letters/resend",
        ):
            body = {"all": True} if path == "/v1/dead-letters/resend" else {}
            answer = await ask(api, "POST", path, body=body, headers={"Idempotency-Key": key})
            assert is_problem(answer, 422, "invalid_header", "Idempotency-Key")

    async def test_two_idempotency_keys_are_422(self, api: WholeApi) -> None:
        twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
        answer = await ask(api, "POST", "/v1/webhooks", body={}, headers=twice)
        assert is_problem(answer, 422, "invalid_header", "Idempotency-Key")

    async def test_two_tokens_are_401(self) -> None:
        async with whole_api(TOKENS) as api:
            twice = [*VIEWER.items(), *ADMIN.items()]
            assert is_problem(await ask(api, "GET", "/v1/webhooks", headers=twice), 401, "unauthorized")

    async def test_a_hop_that_nobody_made_is_answered_here(self, api: WholeApi) -> None:
        for hop in ("", "1", "2", "junk"):
            assert (await ask(api, "GET", "/v1/deliveries", headers={"Vault-Hop": hop})).status == 200
