"""Webhooks over HTTP: repeated creates, effects that are not seen, and deletes that meet other changes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.engine import OutputFailed
from app.settings import ApiSettings, ApiToken
from app.webhooks.commands import Op
from app.webhooks.secrets import KeyRing
from tests.support.listening import ADMIN, TOKENS, Caller
from tests.support.memory_unit import FakeClock
from tests.support.webhook_api import BODY, KEYS, SECRET, SOON_S, Owner, create, meanwhile, serving
from tests.support.webhooks import webhook_row

KEY, NEWER_KEY = (f"{name}:{base64.b64encode(bytes([place] * 32)).decode()}" for place, name in enumerate(("k1", "k2")))
OTHER_SECRET = "whsec_" + base64.b64encode(bytes(32)).decode()


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
async def api(owner: Owner) -> AsyncIterator[Caller]:
    async with serving(owner) as caller:
        yield caller


@pytest.fixture
async def hasty(owner: Owner) -> AsyncIterator[Caller]:
    """An API that waits for a moment only."""
    async with serving(owner, confirm_s=SOON_S) as caller:
        yield caller


class TestAnIdempotencyKey:
    async def test_repeated_gives_the_same_answer_and_makes_nothing(self, api: Caller, owner: Owner) -> None:
        first = await create(api, key="k-1")
        again = await create(api, key="k-1")
        assert (again.status, again.document, again.headers["ETag"]) == (201, first.document, first.headers["ETag"])
        assert again.document["secret"]
        assert len(owner.commands) == 1

    async def test_repeated_with_a_given_secret_gives_the_same_answer(self, api: Caller) -> None:
        first = await create(api, BODY | {"secret": SECRET}, key="k-1")
        assert (await create(api, BODY | {"secret": SECRET}, key="k-1")).document == first.document

    @pytest.mark.parametrize(
        "other",
        [
            {"description": "x"},
            {"url": "https://example.com/other"},
            {"secret": OTHER_SECRET},
        ],
    )
    async def test_repeated_with_another_body_is_422(self, api: Caller, owner: Owner, other: dict[str, Any]) -> None:
        await create(api, BODY | {"secret": SECRET}, key="k-1")
        answer = await create(api, BODY | {"secret": SECRET} | other, key="k-1")
        assert answer.code == (422, "idempotency_key_reused")
        assert (await create(api, key="k-1")).code == (422, "idempotency_key_reused")
        assert len(owner.commands) == 1

    async def test_repeated_with_another_credential_is_422(self, api: Caller, owner: Owner) -> None:
        body = BODY | {"headers": {"Authorization": "Bearer one", "X-Team": "data"}}
        first = await create(api, body, key="k-1")
        assert (await create(api, body, key="k-1")).document == first.document
        for headers in ({"Authorization": "Bearer two", "X-Team": "data"}, {"X-Team": "data"}):
            answer = await create(api, body | {"headers": headers}, key="k-1")
            assert answer.code == (422, "idempotency_key_reused")
        assert len(owner.commands) == 1

    async def test_of_another_caller_is_another_one(self, owner: Owner) -> None:
        digest = hashlib.sha256(b"ci-token").hexdigest()
        ci = ApiToken(name="ci", role="admin", sha256=digest)
        tokens = ApiSettings(admin_token=TOKENS.admin_token, tokens=(ci,))
        async with serving(owner, tokens=tokens) as api:
            ours = await create(api, key="k-1", **ADMIN)
            theirs = await create(api, key="k-1", Authorization="Bearer ci-token")
        assert ours.status == theirs.status == 201
        assert ours.document["id"] != theirs.document["id"]

    async def test_without_it_every_create_makes_one(self, api: Caller) -> None:
        made = [await create(api) for _ in range(2)]
        assert made[0].document["id"] != made[1].document["id"]
        assert made[0].document["secret"] != made[1].document["secret"]

    async def test_two_creates_at_once_make_one_and_have_one_answer(self, api: Caller, owner: Owner) -> None:
        owner.deaf = True
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(create(api, key="k-1")) for _ in range(2)]
            await owner.arrived(2)
            await owner.apply()
        first, second = (task.result() for task in tasks)
        assert first.status == second.status == 201
        assert first.document == second.document

    async def test_that_met_another_body_at_the_owner_is_422(self, api: Caller, owner: Owner) -> None:
        owner.deaf = True
        async with asyncio.TaskGroup() as group:
            first = group.create_task(create(api, BODY | {"description": "x"}, key="k-1"))
            await owner.arrived()
            second = group.create_task(create(api, key="k-1"))
            await owner.arrived(2)
            await owner.apply()
        assert first.result().status == 201
        assert second.result().code == (422, "idempotency_key_reused")

    async def test_repeated_after_a_change_shows_the_webhook_without_its_secret(
        self, api: Caller, owner: Owner
    ) -> None:
        made = await create(api, key="k-1")
        row = owner.row(made.document["id"])
        assert row is not None
        await owner.write(webhook_row(row.webhook_id, fingerprint=row.fingerprint, version=2))
        again = await create(api, key="k-1")
        assert (again.status, again.document["version"]) == (201, 2)
        assert "whsec_" not in again.text
        assert "rotate-secret" in again.document["secret_hint"]

    @pytest.mark.parametrize(
        ("action", "body"),
        [
            pytest.param(None, None, id="nothing else"),
            pytest.param("hold", {"until": "2025-06-16T00:00:00Z"}, id="hold"),
            pytest.param("rekey", None, id="rekey"),
        ],
    )
    async def test_shows_the_secret_for_a_quarter_of_an_hour_whatever_leaves_the_version(
        self, api: Caller, owner: Owner, action: str | None, body: Any
    ) -> None:
        made = await create(api, key="k-1")
        clock = FakeClock()
        async with serving(owner, now_ms=clock.now_ms, keys=KeyRing([NEWER_KEY, KEY], bytes)) as later:
            clock.advance(15 * 60 - 0.001)
            if action is not None:
                changed = await later.call("POST", f"/v1/webhooks/{made.document['id']}/{action}", body)
                assert (changed.status, changed.document["updated_at"] > made.document["updated_at"]) == (200, True)
            in_time = await create(later, key="k-1")
            clock.advance(0.001)
            late = await create(later, key="k-1")
            other_body = await create(later, BODY | {"description": "x"}, key="k-1")
        assert in_time.document["secret"] == made.document["secret"]
        assert (late.status, late.document["id"], late.headers["ETag"]) == (201, made.document["id"], '"1"')
        assert made.document["secret"].removeprefix("whsec_") not in late.text
        assert "rotate-secret" in late.document["secret_hint"]
        assert other_body.code == (422, "idempotency_key_reused")

    async def test_repeated_after_a_change_with_a_secret_that_the_webhook_does_not_have_is_422(
        self, api: Caller
    ) -> None:
        made = await create(api, BODY | {"secret": SECRET}, key="k-1")
        path = f"/v1/webhooks/{made.document['id']}"
        await api.call("PATCH", path, {"description": "x"})
        same = await create(api, BODY | {"secret": SECRET}, key="k-1")
        other = await create(api, BODY | {"secret": OTHER_SECRET}, key="k-1")
        assert (same.status, same.document["version"]) == (201, 2)
        assert other.code == (422, "idempotency_key_reused")
        assert "whsec_" not in same.text + other.text

    async def test_repeated_with_a_secret_that_was_rotated_out_is_422_once_it_is_not_valid_any_more(
        self, owner: Owner
    ) -> None:
        clock = FakeClock()
        async with serving(owner, now_ms=clock.now_ms) as api:
            made = await create(api, BODY | {"secret": SECRET}, key="k-1")
            await api.call("POST", f"/v1/webhooks/{made.document['id']}/rotate-secret", {"overlap_s": 60})
            valid = await create(api, BODY | {"secret": SECRET}, key="k-1")
            clock.advance(60)
            ended = await create(api, BODY | {"secret": SECRET}, key="k-1")
        assert (valid.status, ended.code) == (201, (422, "idempotency_key_reused"))

    async def test_repeated_after_a_change_where_the_secret_cannot_be_read_is_503_and_not_called_another_one(
        self, api: Caller, owner: Owner
    ) -> None:
        made = await create(api, BODY | {"secret": SECRET}, key="k-1")
        await api.call("PATCH", f"/v1/webhooks/{made.document['id']}", {"description": "x"})
        others = KeyRing(["k2:" + base64.b64encode(bytes(32)).decode()], bytes)
        async with serving(owner, keys=others) as keyless:
            answer = await create(keyless, BODY | {"secret": SECRET}, key="k-1")
        assert answer.code == (503, "encryption_key_missing")

    async def test_of_a_webhook_that_is_being_deleted_is_409(self, api: Caller) -> None:
        made = await create(api, key="k-1")
        await api.call("DELETE", f"/v1/webhooks/{made.document['id']}")
        again = await create(api, key="k-1")
        assert again.code == (409, "conflict")
        assert "whsec_" not in again.text

    async def test_of_a_webhook_that_is_gone_makes_a_new_one(self, api: Caller, owner: Owner) -> None:
        made = await create(api, key="k-1")
        await owner.remove(made.document["id"])
        again = await create(api, key="k-1")
        assert again.status == 201
        assert again.document["secret"] != made.document["secret"]

    async def test_whose_secret_cannot_be_read_here_is_503_and_names_the_webhook(self, owner: Owner) -> None:
        async with serving(owner) as api:
            made = await create(api, key="k-1")
        others = KeyRing(["k2:" + base64.b64encode(bytes(32)).decode()], bytes)
        async with serving(owner, keys=others) as api:
            answer = await create(api, key="k-1")
        assert answer.code == (503, "encryption_key_missing")
        assert answer.document["setting"] == "VAULT_STREAM_WEBHOOKS__ENCRYPTION_KEYS"
        assert "add it to VAULT_STREAM_WEBHOOKS__ENCRYPTION_KEYS" in answer.document["detail"]
        assert made.document["id"] in answer.document["detail"]

    @pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "é"])
    async def test_that_is_no_word_of_printable_ascii_is_422(self, api: Caller, owner: Owner, key: str) -> None:
        answer = await create(api, key=key)
        assert (answer.code, answer.fields) == ((422, "invalid_header"), ["Idempotency-Key"])
        assert owner.commands == []

    async def test_that_is_no_text_at_all_is_422(self, api: Caller) -> None:
        head = b"POST /v1/webhooks HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: a\xffb\r\nConnection: close\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
        writer.write(head)
        answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 422 ")

    async def test_given_twice_is_422(self, api: Caller) -> None:
        headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
        answer = await api.call("POST", "/v1/webhooks", BODY, headers=headers)
        assert answer.code == (422, "invalid_header")


class TestUnconfirmed:
    async def check(self, api: Caller, owner: Owner) -> None:
        answer = await create(api)
        assert answer.code == (503, "unconfirmed")
        assert answer.document["id"] == owner.commands[0].webhook_id
        assert answer.document["id"] in answer.document["detail"]
        assert int(answer.headers["Retry-After"]) > 0
        assert "whsec_" not in answer.text

    async def test_a_change_whose_effect_is_not_seen_is_503_with_the_id(self, hasty: Caller, owner: Owner) -> None:
        owner.deaf = True
        await self.check(hasty, owner)

    async def test_a_command_that_came_too_late_is_void(self, hasty: Caller, owner: Owner) -> None:
        owner.late_ms = 1_000
        await self.check(hasty, owner)
        assert owner.row(owner.commands[0].webhook_id) is None

    async def test_so_is_a_send_that_kafka_does_not_acknowledge(self, api: Caller, owner: Owner) -> None:
        owner.failure = OutputFailed("no broker")
        await self.check(api, owner)

    async def test_so_is_a_send_that_takes_too_long(self, hasty: Caller, owner: Owner) -> None:
        owner.hangs = True
        await self.check(hasty, owner)

    async def test_any_other_failure_is_an_error_of_ours(self, api: Caller, owner: Owner) -> None:
        owner.failure = RuntimeError("hunter2")
        answer = await create(api)
        assert answer.code == (500, "internal_error")
        assert "hunter2" not in answer.text

    async def test_a_delete_that_is_not_seen_is_503_with_the_id(self, hasty: Caller, owner: Owner) -> None:
        await owner.write(webhook_row("wh_a"))
        owner.deaf = True
        answer = await hasty.call("DELETE", "/v1/webhooks/wh_a")
        assert (answer.code, answer.document["id"]) == ((503, "unconfirmed"), "wh_a")

    async def test_what_the_owner_does_not_change_the_version_for_is_no_effect(
        self, hasty: Caller, owner: Owner
    ) -> None:
        await owner.write(webhook_row("wh_a"))
        owner.deaf = True

        async def health() -> None:
            await owner.write(webhook_row("wh_a", failures=10))

        answer = await meanwhile(hasty.call("DELETE", "/v1/webhooks/wh_a"), owner.arrived, health)
        assert answer.code == (503, "unconfirmed")


class TestDelete:
    async def test_a_deleted_webhook_is_gone_at_once(self, api: Caller, owner: Owner) -> None:
        await owner.write(webhook_row("wh_a", version=3), webhook_row("wh_b"))
        answer = await api.call("DELETE", "/v1/webhooks/wh_a")
        assert (answer.status, answer.text) == (204, "")
        assert (await api.get("/v1/webhooks/wh_a")).code == (404, "not_found")
        assert [item["id"] for item in (await api.get("/v1/webhooks")).document["items"]] == ["wh_b"]
        assert (await api.call("DELETE", "/v1/webhooks/wh_a")).code == (404, "not_found")
        (command,) = owner.commands
        assert (command.op, command.base_version, command.actor) == (Op.DELETE, 3, "local")

    @pytest.mark.parametrize("given", ['"2"', "3", 'W/"3"', '"2", "4"', ""])
    async def test_if_match_of_another_version_is_412_before_anything_is_sent(
        self, api: Caller, owner: Owner, given: str
    ) -> None:
        await owner.write(webhook_row("wh_a", version=3))
        answer = await api.call("DELETE", "/v1/webhooks/wh_a", headers={"If-Match": given})
        assert answer.code == (412, "precondition_failed")
        assert owner.commands == []

    @pytest.mark.parametrize("given", ["1", "abc", 'W/"1"', '"abc"', ""])
    async def test_if_match_that_no_version_is_written_as_is_told_how(
        self, api: Caller, owner: Owner, given: str
    ) -> None:
        await owner.write(webhook_row("wh_a", version=1))
        answer = await api.call("DELETE", "/v1/webhooks/wh_a", headers={"If-Match": given})
        assert answer.code == (412, "precondition_failed")
        assert 'in quotes: If-Match: "1"' in answer.document["detail"]

    @pytest.mark.parametrize("given", ['"3"', '"2", "3"', "*"])
    async def test_if_match_of_this_version_is_carried_out(self, api: Caller, owner: Owner, given: str) -> None:
        await owner.write(webhook_row("wh_a", version=3))
        assert (await api.call("DELETE", "/v1/webhooks/wh_a", headers={"If-Match": given})).status == 204

    @pytest.mark.parametrize(
        ("headers", "code"),
        [({}, (409, "conflict")), ({"If-Match": '"3"'}, (412, "precondition_failed"))],
    )
    async def test_a_race_that_is_lost_is_409_and_with_if_match_412(
        self, api: Caller, owner: Owner, headers: dict[str, str], code: tuple[int, str]
    ) -> None:
        await owner.write(webhook_row("wh_a", version=3))
        owner.deaf = True

        async def another_change() -> None:
            await owner.write(webhook_row("wh_a", version=4, command_ids=("another",)))

        answer = await meanwhile(
            api.call("DELETE", "/v1/webhooks/wh_a", headers=headers), owner.arrived, another_change, owner.apply
        )
        assert answer.code == code
        assert "version 4" in answer.document["detail"]
        assert (await api.get("/v1/webhooks/wh_a")).status == 200

    async def test_if_match_of_any_version_loses_no_race(self, api: Caller, owner: Owner) -> None:
        await owner.write(webhook_row("wh_a", version=3))
        owner.deaf = True

        async def another_change() -> None:
            await owner.write(webhook_row("wh_a", version=4, command_ids=("another",)))

        answer = await meanwhile(
            api.call("DELETE", "/v1/webhooks/wh_a", headers={"If-Match": "*"}),
            owner.arrived,
            another_change,
            owner.apply,
        )
        assert answer.status == 204

    async def test_what_another_caller_deleted_meanwhile_is_deleted(self, api: Caller, owner: Owner) -> None:
        await owner.write(webhook_row("wh_a", version=3))
        owner.deaf = True

        async def another_delete() -> None:
            await owner.write(webhook_row("wh_a", version=4, deleting=True))

        answer = await meanwhile(api.call("DELETE", "/v1/webhooks/wh_a"), owner.arrived, another_delete)
        assert answer.status == 204

    async def test_a_row_that_is_gone_is_deleted(self, api: Caller, owner: Owner) -> None:
        await owner.write(webhook_row("wh_a", version=3))
        owner.deaf = True

        async def tombstone() -> None:
            await owner.remove("wh_a")

        answer = await meanwhile(api.call("DELETE", "/v1/webhooks/wh_a"), owner.arrived, tombstone)
        assert answer.status == 204


async def test_nothing_is_answered_from_a_copy_that_is_not_complete(owner: Owner, api: Caller) -> None:
    owner.replica.ready = False

    for method, path in (("GET", "/v1/webhooks"), ("GET", "/v1/webhooks/wh_1"), ("DELETE", "/v1/webhooks/wh_1")):
        answer = await api.call(method, path)
        assert (answer.status, answer.document["code"]) == (503, "starting")
        assert answer.headers["Retry-After"]


async def test_of_two_rotations_at_once_one_wins_whatever_they_say_of_versions() -> None:
    owner = Owner()
    await owner.write(webhook_row())
    async with serving(owner) as api:
        owner.deaf = True

        async def rotate() -> Any:
            return await api.call("POST", "/v1/webhooks/wh_a/rotate-secret", {}, headers={"If-Match": "*"})

        async def apply_both() -> None:
            await owner.arrived(2)
            await owner.apply()

        first, second, _ = await asyncio.gather(rotate(), rotate(), apply_both())

    assert sorted([first.status, second.status]) == [200, 409]
    won = first if first.status == 200 else second
    assert KEYS.open("wh_a", owner.row("wh_a").secrets[0].sealed).text == won.document["secret"]
