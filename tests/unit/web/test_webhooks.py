"""Webhooks over HTTP: create, show, list. What concerns changes that meet others is in `test_webhook_changes`."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.web.cursors import seal_cursor
from app.web.requests import MAX_JSON_BYTES
from app.webhooks.commands import Op
from app.webhooks.model import Health
from app.webhooks.secrets import KeyRing
from tests.support.listening import ADMIN, TOKENS, VIEWER, Caller, walk
from tests.support.memory_unit import START_MS
from tests.support.webhook_api import BODY, SECRET, Owner, create, meanwhile, serving
from tests.support.webhooks import KEYS, webhook_row


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
async def api(owner: Owner) -> AsyncIterator[Caller]:
    async with serving(owner) as caller:
        yield caller


class TestCreate:
    async def test_the_answer_has_the_configuration_the_defaults_and_the_secret(self, api: Caller) -> None:
        made = await create(api)
        webhook_id = made.document["id"]
        assert made.status == 201
        assert made.headers["ETag"] == '"1"'
        assert made.document.pop("secret").startswith("whsec_")
        assert made.document == {
            "id": webhook_id,
            "url": "https://example.com/hook",
            "events": ["dataset.*"],
            "headers": {},
            "enabled": True,
            "ordering": "best_effort",
            "signatures": ["v1"],
            "handshake": False,
            "version": 1,
            "health": "ok",
            "standing": "unknown",
            "created_at": "2025-06-15T15:06:40.000Z",
            "updated_at": "2025-06-15T15:06:40.000Z",
        }

    async def test_the_secret_is_in_the_201_and_nowhere_else(self, api: Caller, owner: Owner) -> None:
        made = await create(api)
        secret = made.document["secret"]
        shown = await api.get(f"/v1/webhooks/{made.document['id']}")
        listed = await api.get("/v1/webhooks")
        assert shown.status == listed.status == 200
        for text in (shown.text, listed.text, *map(bytes.decode, owner.values)):
            assert "whsec_" not in text
            assert secret.removeprefix("whsec_") not in text
        row = owner.row(made.document["id"])
        assert row is not None
        assert row.secrets[0].sealed not in shown.text + listed.text
        assert KEYS.open(row.webhook_id, row.secrets[0].sealed).text == secret

    async def test_a_given_secret_is_the_secret(self, api: Caller) -> None:
        made = await create(api, BODY | {"secret": SECRET})
        assert (made.status, made.document["secret"]) == (201, SECRET)

    async def test_values_of_headers_that_hold_credentials_are_never_shown(self, api: Caller, owner: Owner) -> None:
        headers = {"Authorization": "Bearer hunter2", "X-Api-Key": "hunter2", "X-Team": "data"}
        made = await create(api, BODY | {"headers": headers})
        shown = await api.get(f"/v1/webhooks/{made.document['id']}")
        listed = await api.get("/v1/webhooks")
        assert "hunter2" not in made.text + shown.text + listed.text
        assert b"hunter2" not in b"".join(owner.values)
        assert shown.document["headers"] == {"Authorization": "***", "X-Api-Key": "***", "X-Team": "data"}

    async def test_the_command_says_who_asked_when_and_until_when(self, owner: Owner) -> None:
        async with serving(owner, tokens=TOKENS) as api:
            made = await create(api, **ADMIN)
        (command,) = owner.commands
        assert (command.op, command.webhook_id, command.base_version) == (Op.CREATE, made.document["id"], None)
        assert (command.actor, command.at, command.expires_at) == ("admin", START_MS, START_MS + 5_000)
        id_ = uuid.UUID(command.command_id)
        assert (id_.version, id_.variant, id_.int >> 80) == (7, uuid.RFC_4122, START_MS)

    async def test_it_is_answered_when_the_replica_shows_it_and_not_before(self, api: Caller, owner: Owner) -> None:
        owner.deaf = True
        made = await meanwhile(create(api), owner.arrived, owner.apply)
        assert made.status == 201
        assert (await api.get(f"/v1/webhooks/{made.document['id']}")).status == 200


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("change", "field", "code"),
        [
            ({"url": "http://example.com/hook"}, "/url", "insecure_url"),
            ({"url": "ftp://example.com/hook"}, "/url", "insecure_url"),
            ({"url": "https://10.0.0.1/hook"}, "/url", "forbidden_target"),
            ({"url": "https://[::ffff:10.0.0.1]/hook"}, "/url", "forbidden_target"),
            ({"url": "https://inside.example.com/hook"}, "/url", "forbidden_target"),
            ({"url": "https://user:hunter2@example.com/hook"}, "/url", "invalid_url"),
            ({"url": "https://example.com/hook#part"}, "/url", "invalid_url"),
            ({"url": "https://example.com/" + "x" * 2048}, "/url", "invalid_url"),
            ({"url": "nonsense"}, "/url", "invalid_url"),
            ({"events": ["dataset.exploded"]}, "/events/0", "invalid_pattern"),
            ({"headers": {"X-Event-Id": "x"}}, "/headers/X-Event-Id", "invalid_header"),
            ({"secret": "hunter2"}, "/secret", "invalid_secret"),
            ({"filter": {"data": {"a": {}}}}, "/filter/data/a", "invalid_filter"),
            ({"retry_schedule_s": [-1]}, "/retry_schedule_s/0", "invalid_schedule"),
            ({"timeout_s": 1e25}, "/timeout_s", "invalid_field"),
            ({"max_in_flight": 129}, "/max_in_flight", "invalid_field"),
            ({"colour": "red"}, "/colour", "invalid_field"),
            ({"id": "wh_mine"}, "/id", "invalid_field"),
        ],
    )
    async def test_a_bad_field_is_422_and_named(
        self, api: Caller, owner: Owner, change: dict[str, Any], field: str, code: str
    ) -> None:
        answer = await create(api, BODY | change)
        assert answer.code == (422, code)
        assert [(error["field"], error["code"]) for error in answer.document["errors"]] == [(field, code)]
        assert field in answer.document["detail"]
        assert "hunter2" not in answer.text
        assert owner.commands == []

    async def test_a_host_that_does_not_resolve_yet_is_let_through(self, api: Caller) -> None:
        assert (await create(api, BODY | {"url": "https://later.example.com/hook"})).status == 201

    @pytest.mark.parametrize("body", [[], "x", 5, True])
    async def test_a_body_that_is_no_object_is_422(self, api: Caller, body: Any) -> None:
        answer = await create(api, body)
        assert (answer.status, answer.fields) == (422, [""])
        assert answer.document["detail"] == "the body: must be an object"

    @pytest.mark.parametrize(
        "text", [b"", b"{", b'{"timeout_s": NaN}', b'{"timeout_s": 1e999}', b"\xff", b'{"url": "\\ud800"}']
    )
    async def test_a_body_that_is_no_json_is_400(self, api: Caller, text: bytes) -> None:
        headers = {"Content-Type": "application/json"}
        answer = await api.call("POST", "/v1/webhooks", data=text, headers=headers)
        assert answer.code == (400, "invalid_json")

    async def test_a_body_that_no_row_could_hold_is_413(self, api: Caller, owner: Owner) -> None:
        answer = await create(api, BODY | {"filter": {"data": {"a": ["x" * MAX_JSON_BYTES]}}})
        assert answer.code == (413, "too_large")
        assert owner.commands == []

    async def test_without_an_encryption_key_it_is_503(self, owner: Owner) -> None:
        async with serving(owner, keys=KeyRing([], bytes)) as api:
            answer = await create(api)
            assert answer.code == (503, "encryption_key_missing")
            assert answer.document["setting"] == "VAULT_STREAM_WEBHOOKS__ENCRYPTION_KEYS"
            assert "set VAULT_STREAM_WEBHOOKS__ENCRYPTION_KEYS" in answer.document["detail"]
            assert int(answer.headers["Retry-After"]) > 0
            assert (await api.get("/v1/webhooks")).status == 200
        assert owner.commands == []

    async def test_a_viewer_reads_and_does_not_write(self, owner: Owner) -> None:
        await owner.write(webhook_row("wh_a"))
        async with serving(owner, tokens=TOKENS) as api:
            assert (await api.get("/v1/webhooks", headers=VIEWER)).status == 200
            assert (await api.get("/v1/webhooks/wh_a", headers=VIEWER)).status == 200
            assert (await create(api, **VIEWER)).code == (403, "forbidden")
            assert (await api.call("DELETE", "/v1/webhooks/wh_a", headers=VIEWER)).code == (403, "forbidden")
            assert (await api.get("/v1/webhooks")).code == (401, "unauthorized")
        assert owner.commands == []


class TestShowAndList:
    async def test_a_webhook_is_shown_with_its_version_as_etag(self, api: Caller, owner: Owner) -> None:
        await owner.write(webhook_row("wh_a", version=7))
        answer = await api.get("/v1/webhooks/wh_a")
        assert (answer.status, answer.document["id"], answer.headers["ETag"]) == (200, "wh_a", '"7"')

    @pytest.mark.parametrize("id_", ["wh_b", "%00", "%ff", "a%2Fb", "%ED%A0%80", "wh_a%0A", "x" * 2000])
    async def test_what_is_not_there_is_404(self, api: Caller, owner: Owner, id_: str) -> None:
        await owner.write(webhook_row("wh_a"))
        for method in ("GET", "DELETE"):
            assert (await api.call(method, f"/v1/webhooks/{id_}")).code == (404, "not_found")
        assert owner.commands == []

    async def test_pages_visit_each_webhook_once_oldest_first(self, api: Caller, owner: Owner) -> None:
        # Two of each time, so that a page may end between them.
        rows = [webhook_row(f"wh_{n}", created_at_ms=START_MS + n // 2) for n in range(7)]
        await owner.write(*reversed(rows))
        seen, sizes = [], []
        async for page in walk([api], "/v1/webhooks?limit=3"):
            seen += [item["id"] for item in page["items"]]
            sizes.append(len(page["items"]))
        assert seen == [f"wh_{n}" for n in range(7)]
        assert sizes == [3, 3, 1]

    async def test_a_full_page_may_be_the_last(self, api: Caller, owner: Owner) -> None:
        await owner.write(*(webhook_row(f"wh_{n}") for n in range(3)))
        found = (await api.get("/v1/webhooks?limit=3")).document
        assert (len(found["items"]), found["next_cursor"]) == (3, None)

    async def test_what_is_made_or_deleted_between_pages_moves_nothing(self, api: Caller, owner: Owner) -> None:
        await owner.write(*(webhook_row(f"wh_{n}", created_at_ms=START_MS + n) for n in range(4)))
        first = (await api.get("/v1/webhooks?limit=2")).document
        await owner.remove("wh_1")
        await owner.write(webhook_row("wh_new", created_at_ms=START_MS + 9))
        rest = (await api.get("/v1/webhooks", params={"limit": "9", "cursor": first["next_cursor"]})).document
        assert [item["id"] for item in rest["items"]] == ["wh_2", "wh_3", "wh_new"]
        assert rest["next_cursor"] is None

    async def test_a_page_has_fifty_items_unless_said_and_200_at_most(self, api: Caller, owner: Owner) -> None:
        await owner.write(*(webhook_row(f"wh_{n:03}") for n in range(201)))
        assert len((await api.get("/v1/webhooks")).document["items"]) == 50
        assert len((await api.get("/v1/webhooks?limit=200")).document["items"]) == 200
        for limit in ("0", "201", "-1", "1.5", "x", ""):
            answer = await api.get(f"/v1/webhooks?limit={limit}")
            assert (answer.code, answer.fields) == ((422, "invalid_query"), ["limit"])

    async def test_some_are_found_by_a_part_of_what_they_say(self, api: Caller, owner: Owner) -> None:
        await owner.write(
            webhook_row("wh_1", url="https://a.example/Hook", description="Billing"),
            webhook_row("wh_2", events=("llm.data-vault.pii.*",)),
            webhook_row("wh_3", health=Health.FAILING),
        )

        async def found(query: str) -> list[str]:
            return [item["id"] for item in (await api.get(f"/v1/webhooks?{query}")).document["items"]]

        assert await found("search=hook&limit=1") == ["wh_1"]
        assert await found("search=BILL") == ["wh_1"]
        assert await found("search=pii") == ["wh_2"]
        assert await found("search=wh_3") == await found("health=failing") == ["wh_3"]
        assert await found("search=nothing") == []
        assert await found("health=failing&search=pii") == []
        answer = await api.get("/v1/webhooks?health=well")
        assert (answer.code, answer.fields) == ((422, "invalid_query"), ["health"])

    async def test_nothing_is_an_empty_page(self, api: Caller) -> None:
        assert (await api.get("/v1/webhooks")).document == {"items": [], "next_cursor": None}

    @pytest.mark.parametrize(
        "cursor",
        [
            "",
            "!",
            "é",
            "abc",
            "MS93aF9h!",
            "MS93\naF9h",
            *(
                seal_cursor("webhooks", place)
                for place in (b"", b"/wh_a", b"1/", b"-1/wh_a", b"1_0/wh_a", b" 1/wh_a", b"1/\xff", b"9" * 5000 + b"/a")
            ),
            seal_cursor("webhooks", f"{2**63}/wh_a".encode()),
        ],
    )
    async def test_a_cursor_that_no_list_has_given_is_422(self, api: Caller, cursor: str) -> None:
        answer = await api.get("/v1/webhooks", params={"cursor": cursor})
        assert (answer.code, answer.fields) == ((422, "invalid_query"), ["cursor"])

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/v1/webhooks"),
            ("GET", "/v1/webhooks/wh_a"),
            ("DELETE", "/v1/webhooks/wh_a"),
            ("POST", "/v1/webhooks"),
        ],
    )
    async def test_an_unknown_query_parameter_is_422(self, api: Caller, owner: Owner, method: str, path: str) -> None:
        await owner.write(webhook_row("wh_a"))
        answer = await api.call(method, f"{path}?colour=red", BODY if method == "POST" else None)
        assert (answer.code, answer.fields) == ((422, "invalid_query"), ["colour"])
        assert owner.commands == []
