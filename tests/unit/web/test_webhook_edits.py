"""Webhooks over HTTP: what is changed in place."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from app.engine import OutputFailed
from app.events import delivery_id, format_time
from app.webhooks.commands import Op
from app.webhooks.credentials import open_headers
from app.webhooks.handshake import PermissionAnswer
from app.webhooks.intents import IntentReason
from app.webhooks.model import SealedSecret, WebhookFilter
from app.webhooks.secrets import KeyRing, Secret
from tests.support.listening import ADMIN, TOKENS, VIEWER, Caller
from tests.support.memory_unit import START_MS
from tests.support.webhook_api import SOON_S, Owner, Receiver, create, meanwhile, serving
from tests.support.webhooks import KEYS, webhook_row

DAY_MS = 86_400_000
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
ACTIONS = ["enable", "disable", "hold", "rotate-secret", "rekey", "ping"]


@pytest.fixture
async def owner() -> Owner:
    owner = Owner()
    await owner.write(webhook_row("wh_a", version=3, headers={"Authorization": "Bearer hunter2"}))
    return owner


@pytest.fixture
async def api(owner: Owner) -> AsyncIterator[Caller]:
    async with serving(owner) as caller:
        yield caller


async def patch(api: Caller, body: Any, **headers: str) -> Any:
    return await api.call("PATCH", "/v1/webhooks/wh_a", body, headers=headers)


async def act(api: Caller, action: str, body: Any = None) -> Any:
    return await api.call("POST", f"/v1/webhooks/wh_a/{action}", body)


class TestPatch:
    async def test_changes_what_it_names_and_nothing_else(self, api: Caller, owner: Owner) -> None:
        before = (await api.get("/v1/webhooks/wh_a")).document
        answer = await patch(api, {"events": ["version.*"], "description": "x", "rate_limit_per_s": 5})
        assert (answer.status, answer.headers["ETag"]) == (200, '"4"')
        changed = {"events": ["version.*"], "description": "x", "rate_limit_per_s": 5.0, "version": 4}
        assert answer.document == before | changed
        (command,) = owner.commands
        assert (command.op, command.base_version, command.actor) == (Op.UPDATE, 3, "local")

    async def test_null_puts_what_is_optional_back(self, api: Caller, owner: Owner) -> None:
        await owner.write(webhook_row("wh_a", timeout_s=3.0, filter=WebhookFilter(tenant_id=("t",))))
        answer = await patch(api, {"timeout_s": None, "filter": None})
        assert answer.status == 200
        assert "timeout_s" not in answer.document
        assert "filter" not in answer.document

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, ""),
            ([], ""),
            ({"colour": "red"}, "/colour"),
            ({"secret": SECRET}, "/secret"),
            ({"url": None}, "/url"),
            ({"url": "http://example.com"}, "/url"),
            ({"url": "https://inside.example.com/hook"}, "/url"),
            ({"events": []}, "/events"),
            ({"headers": {"Authorization": "***"}}, "/headers/Authorization"),
            ({"enabled": None}, "/enabled"),
            ({"max_in_flight": 0}, "/max_in_flight"),
        ],
    )
    async def test_a_bad_field_is_named_and_nothing_is_sent(
        self, api: Caller, owner: Owner, body: Any, field: str
    ) -> None:
        answer = await patch(api, body)
        assert (answer.status, answer.fields) == (422, [field])
        assert owner.commands == []

    async def test_if_match_of_another_version_is_412(self, api: Caller, owner: Owner) -> None:
        answer = await patch(api, {"description": "x"}, **{"If-Match": '"2"'})
        assert answer.code == (412, "precondition_failed")
        assert owner.commands == []

    @pytest.mark.parametrize(
        ("headers", "code"), [({}, (409, "conflict")), ({"If-Match": '"3"'}, (412, "precondition_failed"))]
    )
    async def test_a_race_that_is_lost_is_409_and_with_if_match_412(
        self, api: Caller, owner: Owner, headers: dict[str, str], code: tuple[int, str]
    ) -> None:
        owner.deaf = True

        async def another() -> None:
            await owner.write(webhook_row("wh_a", version=4, command_ids=("another",)))

        call = patch(api, {"description": "x"}, **headers)
        answer = await meanwhile(call, owner.arrived, another, owner.apply)
        assert answer.code == code

    async def test_a_webhook_that_is_deleted_meanwhile_is_404(self, api: Caller, owner: Owner) -> None:
        owner.deaf = True

        async def gone() -> None:
            await owner.remove("wh_a")

        answer = await meanwhile(patch(api, {"description": "x"}), owner.arrived, gone)
        assert answer.code == (404, "not_found")

    async def test_an_effect_that_is_not_seen_is_503(self, owner: Owner) -> None:
        owner.deaf = True
        async with serving(owner, confirm_s=SOON_S) as api:
            assert (await patch(api, {"description": "x"})).code == (503, "unconfirmed")

    async def test_a_body_that_no_row_could_hold_is_413(self, api: Caller) -> None:
        answer = await patch(api, {"description": "x" * 300_000})
        assert answer.code == (413, "too_large")


class TestSwitch:
    async def test_disable_and_enable_are_seen_at_once(self, api: Caller, owner: Owner) -> None:
        off = await act(api, "disable")
        assert (off.status, off.document["health"], off.document["disabled_reason"]) == (200, "disabled", "admin")
        on = await act(api, "enable", {})
        assert (on.status, on.document["health"], on.document["enabled"]) == (200, "ok", True)
        assert (bool(off.document["disabled_at"]), "disabled_at" in on.document) == (True, False)
        assert [command.op for command in owner.commands] == [Op.DISABLE, Op.ENABLE]

    async def test_what_is_so_already_is_answered_and_not_sent(self, api: Caller, owner: Owner) -> None:
        answer = await act(api, "enable")
        assert (answer.status, answer.document["version"]) == (200, 3)
        assert owner.commands == []

    @pytest.mark.parametrize("action", ["enable", "disable", "ping", "rekey"])
    async def test_a_field_that_it_does_not_know_is_422(self, api: Caller, action: str) -> None:
        answer = await act(api, action, {"force": True})
        assert (answer.status, answer.fields) == (422, ["/force"])


class TestHold:
    async def test_a_time_is_held_until_and_null_lifts_it(self, api: Caller) -> None:
        until = format_time(START_MS + DAY_MS)
        held = await act(api, "hold", {"until": until})
        assert (held.status, held.document["hold_until"], held.document["version"]) == (200, until, 3)
        lifted = await act(api, "hold", {"until": None})
        assert (lifted.status, "hold_until" in lifted.document) == (200, False)

    @pytest.mark.parametrize(
        "body",
        [
            None,
            {},
            {"until": "tomorrow"},
            {"until": 5},
            {"until": format_time(START_MS)},
            {"until": "9999-01-01T00:00:00Z"},
        ],
    )
    async def test_anything_else_names_the_field(self, api: Caller, owner: Owner, body: Any) -> None:
        answer = await act(api, "hold", body)
        assert (answer.status, answer.fields) == (422, ["/until"])
        assert owner.commands == []


class TestRotate:
    def secrets(self, owner: Owner) -> list[tuple[str, int | None]]:
        row = owner.row("wh_a")
        assert row is not None
        return [(KEYS.open("wh_a", one.sealed).text, one.valid_until_ms) for one in row.secrets]

    async def test_the_new_secret_is_shown_once_and_the_old_one_ends_after_a_day(
        self, api: Caller, owner: Owner
    ) -> None:
        answer = await act(api, "rotate-secret")
        new = answer.document["secret"]
        assert (answer.status, answer.document["version"]) == (200, 4)
        assert self.secrets(owner) == [(new, None), (SECRET, START_MS + DAY_MS)]
        assert "whsec_" not in (await api.get("/v1/webhooks/wh_a")).text

    async def test_without_overlap_the_old_one_is_gone(self, api: Caller, owner: Owner) -> None:
        answer = await act(api, "rotate-secret", {"overlap_s": 0})
        assert self.secrets(owner) == [(answer.document["secret"], None)]

    async def test_what_has_ended_is_dropped_and_nothing_is_prolonged(self, api: Caller, owner: Owner) -> None:
        def sealed(until_ms: int | None) -> SealedSecret:
            return SealedSecret(sealed=KEYS.seal("wh_a", Secret(SECRET)), valid_until_ms=until_ms)

        await owner.write(
            webhook_row("wh_a", secrets=(sealed(None), sealed(START_MS + 5), sealed(START_MS), sealed(START_MS - 5)))
        )
        await act(api, "rotate-secret")
        assert [until_ms for _, until_ms in self.secrets(owner)] == [None, START_MS + DAY_MS, START_MS + 5]

    async def test_more_than_five_valid_ones_are_refused(self, api: Caller) -> None:
        for _ in range(4):
            assert (await act(api, "rotate-secret")).status == 200
        assert (await act(api, "rotate-secret")).code == (409, "too_many_secrets")
        assert (await act(api, "rotate-secret", {"overlap_s": 0})).status == 200

    @pytest.mark.parametrize("overlap_s", [-1, 604_801, "1", True, None])
    async def test_an_overlap_out_of_range_names_the_field(self, api: Caller, overlap_s: Any) -> None:
        answer = await act(api, "rotate-secret", {"overlap_s": overlap_s})
        assert (answer.status, answer.fields) == (422, ["/overlap_s"])

    async def test_without_an_encryption_key_is_503(self, owner: Owner) -> None:
        async with serving(owner, keys=KeyRing([], bytes)) as api:
            assert (await act(api, "rotate-secret")).code == (503, "encryption_key_missing")


class TestRekey:
    async def test_secrets_are_encrypted_with_the_active_key_and_stay_the_same(self, owner: Owner) -> None:
        old, new = (
            f"{name}:" + base64.b64encode(bytes([place] * 32)).decode() for place, name in enumerate(("k1", "k2"))
        )
        keys = KeyRing([new, old], bytes)
        async with serving(owner, keys=keys) as api:
            answer = await act(api, "rekey")
            again = await act(api, "rekey")
        row = owner.row("wh_a")
        assert row is not None
        assert (answer.status, answer.document["version"], again.status) == (200, 3, 200)
        assert [command.op for command in owner.commands] == [Op.REKEY]
        assert [keys.open("wh_a", one.sealed).text for one in row.secrets] == [SECRET]
        assert all(keys.is_active(one.sealed) for one in row.secrets)

    async def test_a_secret_whose_key_is_missing_is_503_and_stays_as_it_is(self, owner: Owner) -> None:
        async with serving(owner, keys=KeyRing(["k9:" + base64.b64encode(bytes(32)).decode()], bytes)) as api:
            answer = await act(api, "rekey")
        assert answer.code == (503, "encryption_key_missing")
        assert answer.document["setting"] == "VAULT_STREAM_WEBHOOKS__ENCRYPTION_KEYS"
        assert owner.commands == []

    async def test_a_secret_that_is_damaged_is_503_and_no_setting_is_named(self, owner: Owner) -> None:
        active, old = (f"{name}:" + base64.b64encode(bytes(32)).decode() for name in ("k9", "k8"))
        await owner.write(webhook_row("wh_a", secrets=(SealedSecret(sealed="k8:AAAA"),)))
        async with serving(owner, keys=KeyRing([active, old], bytes)) as api:
            answer = await act(api, "rekey")
        assert answer.code == (503, "unreadable_secret")
        assert "setting" not in answer.document

    async def test_a_secret_that_was_rotated_out_needs_no_key_and_is_dropped(self, owner: Owner) -> None:
        gone = SealedSecret(sealed="gone:AAAA", valid_until_ms=START_MS)
        row = webhook_row("wh_a")
        await owner.write(webhook_row("wh_a", secrets=(*row.secrets, gone)))
        async with serving(owner) as api:
            assert (await act(api, "rekey")).status == 200
        left = owner.row("wh_a")
        assert left is not None
        assert [KEYS.open("wh_a", one.sealed).text for one in left.secrets] == [SECRET]


class TestPing:
    async def test_makes_an_event_for_this_webhook_alone(self, api: Caller, owner: Owner) -> None:
        answer = await act(api, "ping")
        assert answer.status == 202
        (intent,) = owner.intents
        assert (intent.webhook_id, intent.reason, intent.event_type) == (
            "wh_a",
            IntentReason.PING,
            "llm.data-vault.webhook.ping",
        )
        assert answer.document == {"delivery_id": intent.delivery_id, "event_id": intent.event_id}
        assert intent.delivery_id == delivery_id("wh_a", intent.event_source, intent.event_id)
        assert orjson.loads(intent.body)["data"]["webhook_id"] == "wh_a"

    async def test_two_pings_are_two_events(self, api: Caller, owner: Owner) -> None:
        assert (await act(api, "ping")).document != (await act(api, "ping")).document
        assert len(owner.intents) == 2

    async def test_of_a_disabled_webhook_is_409(self, api: Caller, owner: Owner) -> None:
        await owner.write(webhook_row("wh_a", enabled=False))
        assert (await act(api, "ping")).code == (409, "disabled")

    async def test_that_kafka_does_not_acknowledge_is_503(self, api: Caller, owner: Owner) -> None:
        owner.failure = OutputFailed("no broker")
        assert (await act(api, "ping")).code == (503, "unconfirmed")


class TestHandshake:
    async def test_a_receiver_that_allows_us_is_asked_once_at_the_beginning(self, owner: Owner) -> None:
        receiver = Receiver()
        async with serving(owner, receiver=receiver) as api:
            body = {"url": "https://example.com/hook", "events": ["*"], "handshake": True, "rate_limit_per_s": 2}
            made = await create(api, body)
        assert (made.status, made.document["handshake"]) == (201, True)
        headers = {"WebHook-Request-Origin": "vault.example.com", "WebHook-Request-Rate": "120"}
        assert receiver.asked == [("https://example.com/hook", headers)]

    async def test_a_rate_that_it_permits_becomes_the_limit(self, owner: Owner) -> None:
        answer = PermissionAnswer(200, {"WebHook-Allowed-Origin": "*", "WebHook-Allowed-Rate": "30"})
        async with serving(owner, receiver=Receiver(answer)) as api:
            made = await create(api, {"url": "https://example.com/hook", "events": ["*"], "handshake": True})
        assert made.document["rate_limit_per_s"] == 0.5

    @pytest.mark.parametrize("more", [None, 100])
    async def test_more_than_it_permits_is_asked_for_again(self, owner: Owner, more: float | None) -> None:
        answer = PermissionAnswer(200, {"WebHook-Allowed-Origin": "*", "WebHook-Allowed-Rate": "30"})
        async with serving(owner, receiver=Receiver(answer)) as api:
            made = await create(api, {"url": "https://example.com/hook", "events": ["*"], "handshake": True})
            faster = await api.call("PATCH", f"/v1/webhooks/{made.document['id']}", {"rate_limit_per_s": more})
        assert (faster.status, faster.document["rate_limit_per_s"]) == (200, 0.5)

    @pytest.mark.parametrize(
        "answer",
        [
            PermissionAnswer(None, {}, "timeout"),
            PermissionAnswer(405, {"WebHook-Allowed-Origin": "*"}),
            PermissionAnswer(200, {}),
            PermissionAnswer(200, {"WebHook-Allowed-Origin": "other.example.com"}),
            PermissionAnswer(200, {"WebHook-Allowed-Origin": "*", "WebHook-Allowed-Rate": "many"}),
            PermissionAnswer(200, {"WebHook-Allowed-Origin": "*", "WebHook-Allowed-Rate": "0"}),
        ],
    )
    async def test_one_that_does_not_is_422_and_nothing_is_made(self, owner: Owner, answer: PermissionAnswer) -> None:
        async with serving(owner, receiver=Receiver(answer)) as api:
            made = await create(api, {"url": "https://example.com/hook", "events": ["*"], "handshake": True})
            changed = await patch(api, {"handshake": True})
        assert (made.code, made.fields) == ((422, "handshake_refused"), ["/handshake"])
        assert changed.code == (422, "handshake_refused")
        assert owner.commands == []

    async def test_it_is_asked_again_only_when_the_url_changes(self, owner: Owner) -> None:
        receiver = Receiver()
        async with serving(owner, receiver=receiver) as api:
            await patch(api, {"handshake": True})
            await patch(api, {"description": "x"})
            await patch(api, {"url": "https://example.com/other"})
            await patch(api, {"handshake": False, "url": "https://example.com/third"})
        assert [url for url, _ in receiver.asked] == ["https://wh-a.example.com/hook", "https://example.com/other"]


@pytest.mark.parametrize("action", ACTIONS)
async def test_an_unknown_webhook_is_404(api: Caller, action: str) -> None:
    answer = await api.call("POST", f"/v1/webhooks/wh_b/{action}", {"until": None} if action == "hold" else {})
    assert answer.code == (404, "not_found")


@pytest.mark.parametrize("action", ACTIONS)
async def test_a_viewer_only_reads(owner: Owner, action: str) -> None:
    async with serving(owner, tokens=TOKENS) as api:
        refused = await api.call("POST", f"/v1/webhooks/wh_a/{action}", headers=VIEWER)
        nobody = await api.call("POST", f"/v1/webhooks/wh_a/{action}")
        changed = await api.call("PATCH", "/v1/webhooks/wh_a", {"description": "x"}, headers=VIEWER)
        done = await api.call("POST", "/v1/webhooks/wh_a/disable", headers=ADMIN)
    assert (refused.code, nobody.code) == ((403, "forbidden"), (401, "unauthorized"))
    assert changed.code == (403, "forbidden")
    assert done.status == 200


async def test_nothing_that_is_printed_of_a_webhook_shows_a_header(api: Caller, owner: Owner) -> None:
    await patch(api, {"headers": {"X-Api-Key": "correct-horse"}})
    printed = f"{owner.row('wh_a')!r} {owner.commands!r}"
    assert "hunter2" not in printed
    assert "correct-horse" not in printed
    assert b"correct-horse" not in b"".join(owner.values)


async def test_credentials_are_sent_on_after_a_change_and_encrypted_anew_by_rekey(owner: Owner) -> None:
    old, new = (f"k{place + 1}:" + base64.b64encode(bytes([place] * 32)).decode() for place in range(2))
    async with serving(owner, keys=KeyRing([old], bytes)) as api:
        changed = await patch(api, {"headers": {"X-Api-Key": "correct-horse", "X-Team": "lake"}})
    keys = KeyRing([new, old], bytes)
    async with serving(owner, keys=keys) as api:
        await act(api, "rekey")
    row = owner.row("wh_a")
    assert row is not None
    assert changed.document["headers"] == {"X-Api-Key": "***", "X-Team": "lake"}
    assert open_headers(row, keys) == {"X-Api-Key": "correct-horse", "X-Team": "lake"}
    assert all(map(keys.is_active, row.sealed_headers.values()))


async def test_a_mask_that_is_sent_back_keeps_the_value_that_it_stands_for(api: Caller, owner: Owner) -> None:
    await patch(api, {"headers": {"X-Api-Key": "correct-horse", "X-Team": "lake"}})
    shown = await patch(api, {"headers": {"X-Api-Key": "***", "X-Team": "sea"}})

    row = owner.row("wh_a")
    assert row is not None
    assert shown.document["headers"] == {"X-Api-Key": "***", "X-Team": "sea"}
    assert open_headers(row, KEYS) == {"X-Api-Key": "correct-horse", "X-Team": "sea"}
    renamed = await patch(api, {"headers": {"X-Other-Key": "***"}})
    assert (renamed.status, renamed.fields) == (422, ["/headers/X-Other-Key"])
