"""What if: which webhooks would get an event, by the router's own matching; and the public keys."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.events import format_time
from app.web.match import match_routes
from app.web.signing_keys import signing_key_routes
from app.web.webhook_commands import CommandGate
from app.webhooks.matching import MatchIndex
from app.webhooks.model import WebhookFilter, WebhookRow
from app.webhooks.signing import SigningKey
from tests.support.listening import TOKENS, VIEWER, Caller, listening
from tests.support.memory_unit import START_MS
from tests.support.webhook_api import Owner, webhooks_api
from tests.support.webhooks import Desk, webhook_row

EVENT = {
    "specversion": "1.0",
    "id": "e-1",
    "source": "/vault",
    "type": "llm.data-vault.dataset.created",
    "data": {"dataset_id": "ds-1", "name": "x"},
}


@pytest.fixture
async def owner() -> Owner:
    return Owner()


@pytest.fixture
async def api(owner: Owner) -> AsyncIterator[Caller]:
    index = MatchIndex()

    def matched(key: bytes, row: WebhookRow | None) -> None:
        if row is None:
            index.remove(key.decode())
        else:
            index.set(row.webhook_id, row.events, row.filter)

    owner.replica.subscribe(matched)
    async with listening(match_routes(CommandGate(webhooks_api(owner)), index, lambda: START_MS), TOKENS) as caller:
        yield caller


async def match(api: Caller, **changes: Any) -> Any:
    return await api.call("POST", "/v1/match", {**EVENT, **changes}, headers=VIEWER)


async def test_each_webhook_says_whether_it_would_get_the_event_and_why_not(api: Caller, owner: Owner) -> None:
    await owner.write(
        webhook_row("wh_a", events=("dataset.*", "*")),
        webhook_row("wh_b", events=("version.*",)),
        webhook_row("wh_c", filter=WebhookFilter(dataset_id=("ds-2",))),
        webhook_row("wh_d", filter=WebhookFilter(data={"schema.name": ("x",)})),
        webhook_row("wh_e", enabled=False),
    )
    answer = await match(api)
    assert answer.status == 200
    assert answer.document == {
        "items": [
            {"webhook_id": "wh_a", "matched": True, "pattern": "dataset.*"},
            {"webhook_id": "wh_b", "matched": False, "why_not": "pattern"},
            {"webhook_id": "wh_c", "matched": False, "pattern": "*", "why_not": "filter:dataset_id"},
            {"webhook_id": "wh_d", "matched": False, "pattern": "*", "why_not": "filter:data.schema.name"},
            {"webhook_id": "wh_e", "matched": False, "pattern": "*", "why_not": "disabled"},
        ]
    }


async def test_what_administrators_do_goes_to_nobody(api: Caller, owner: Owner) -> None:
    await owner.write(webhook_row("wh_a", events=("webhook.*", "*")))
    answer = await match(api, type="llm.data-vault.webhook.created", data={"webhook_id": "wh_b"})
    assert answer.document["items"] == [{"webhook_id": "wh_a", "matched": False, "why_not": "pattern"}]


@pytest.mark.parametrize(
    ("expires_in_ms", "verdict"),
    [
        pytest.param(1, {"matched": True}, id="in time"),
        pytest.param(0, {"matched": False, "why_not": "expired"}, id="expired"),
    ],
)
async def test_an_event_past_its_expirytime_would_be_sent_to_nobody(
    api: Caller, owner: Owner, expires_in_ms: int, verdict: dict[str, Any]
) -> None:
    await owner.write(
        webhook_row("wh_a"), webhook_row("wh_b", enabled=False), webhook_row("wh_c", events=("version.*",))
    )
    answer = await match(api, expirytime=format_time(START_MS + expires_in_ms))
    assert answer.document["items"] == [
        {"webhook_id": "wh_a", "pattern": "*", **verdict},
        {"webhook_id": "wh_b", "pattern": "*", "matched": False, "why_not": "disabled"},
        {"webhook_id": "wh_c", "matched": False, "why_not": "pattern"},
    ]


async def test_it_expires_for_the_answer_when_it_does_for_its_owner(api: Caller, owner: Owner) -> None:
    await owner.write(webhook_row("wh_a"))
    for expires_in_ms in (-1, 0, 1):
        event = EVENT | {"expirytime": format_time(START_MS + expires_in_ms)}
        desk = await Desk().open(webhook_row("wh_a"))
        await desk.deliver(desk.intent("e-1", expirytime=event["expirytime"]))
        (verdict,) = (await match(api, **event)).document["items"]
        assert verdict["matched"] is (desk.receiver.events() == ["e-1"])
        await desk.context.close(desk.processor)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"id": ""}, "invalid_envelope"),
        ({"type": "llm.data-vault.dataset.exploded"}, "unknown_type"),
        ({"data": {"name": "x"}}, "invalid_data"),
    ],
)
async def test_what_the_router_would_quarantine_is_422_with_its_reason(
    api: Caller, changes: dict[str, Any], code: str
) -> None:
    assert (await match(api, **changes)).code == (422, code)


async def test_public_keys_are_shown_to_everybody_and_verify_what_the_first_one_signs() -> None:
    pairs = [Ed25519PrivateKey.generate() for _ in range(2)]
    keys = [
        SigningKey(f"k{place}:whsk_{base64.b64encode(pair.private_bytes_raw() + public(pair)).decode()}")
        for place, pair in enumerate(pairs)
    ]
    async with listening(signing_key_routes(keys), TOKENS) as api:
        answer = await api.get("/.well-known/webhook-keys.json")

    assert (answer.status, answer.headers["Cache-Control"]) == (200, "public, max-age=300")
    first, second = answer.document["keys"]
    assert (first["kid"], second["kid"]) == ("k0", "k1")
    x = base64.urlsafe_b64decode(first["x"] + "=" * (-len(first["x"]) % 4))
    Ed25519PublicKey.from_public_bytes(x).verify(keys[0].sign(b"content"), b"content")
    assert "whsk_" not in answer.text


async def test_without_keys_the_set_is_empty() -> None:
    async with listening(signing_key_routes([])) as api:
        assert (await api.get("/.well-known/webhook-keys.json")).document == {"keys": []}


def public(pair: Ed25519PrivateKey) -> bytes:
    return pair.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
