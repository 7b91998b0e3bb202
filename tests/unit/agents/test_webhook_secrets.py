"""What an owner does with secrets: sign with all that are valid, and park rather than sign with less or garbage."""

from __future__ import annotations

import base64
import os
from typing import Any

import pytest

from app.observability import metrics
from app.webhooks.census import webhooks_without_key
from app.webhooks.commands import Op, WebhookPatch
from app.webhooks.credentials import seal_headers
from app.webhooks.model import Reason, SealedSecret, Status
from app.webhooks.owned import KeySetting
from app.webhooks.secrets import KeyRing, Secret, new_secret
from app.webhooks.signing import sign_seed, sign_v1
from tests.support.memory_unit import START_MS
from tests.support.webhooks import Desk, header, webhook_row

OLD, NEW = new_secret(os.urandom), new_secret(os.urandom)
HOUR_MS = 3_600_000


def ring(*key_ids: str) -> KeyRing:
    keys = {"k1": b"1", "k2": b"2", "k3": b"3"}
    return KeyRing([f"{key_id}:{base64.b64encode(keys[key_id] * 32).decode()}" for key_id in key_ids], os.urandom)


def sealed(secret: Secret, keys: KeyRing, valid_until_ms: int | None = None) -> SealedSecret:
    return SealedSecret(sealed=keys.seal("wh_a", secret), valid_until_ms=valid_until_ms)


async def opened(keys: KeyRing, before: Desk | None = None, **row: Any) -> Desk:
    """A number whose owner has these keys; `before`: it takes over from that one."""
    if before is None:
        return await Desk(keys=keys).open(webhook_row(**row))
    await before.context.close(before.processor)
    return await Desk(keys=keys, rows=before.context.rows, clock=before.clock).open()


def is_key_missing() -> float | None:
    return metrics.REGISTRY.get_sample_value("vault_stream_encryption_key_missing")


async def closed(desk: Desk) -> None:
    await desk.context.close(desk.processor)


def signatures(desk: Desk, secret: Secret) -> list[tuple[bool, bool]]:
    """Of each request: whether the seed's header is of this secret, and whether one of the v1 signatures is."""
    found = []
    for request in desk.receiver.requests:
        id_, at_s = header(request, "webhook-id"), int(header(request, "webhook-timestamp"))
        v1 = sign_v1(secret, id_, at_s, request.body) in header(request, "webhook-signature").split(" ")
        found.append((header(request, "X-Webhook-Signature") == sign_seed(secret, request.body), v1))
    return found


async def test_during_a_rotation_both_secrets_sign_and_the_old_one_keeps_the_seeds_header_until_its_end() -> None:
    keys = ring("k1")
    desk = await opened(keys, secrets=(sealed(NEW, keys), sealed(OLD, keys, START_MS + HOUR_MS)))
    await desk.deliver(desk.intent("e1"))
    await desk.pass_time(HOUR_MS / 1000)
    await desk.deliver(desk.intent("e2"))

    assert signatures(desk, OLD) == [(True, True), (False, False)]
    assert signatures(desk, NEW) == [(False, True), (True, True)]
    await closed(desk)


@pytest.mark.parametrize("missing", ["new", "old"])
async def test_with_one_of_two_valid_secrets_unreadable_nothing_is_sent_until_its_key_is_back(missing: str) -> None:
    here, gone = ring("k1"), ring("k2")
    new, old = (sealed(NEW, gone), here) if missing == "new" else (sealed(NEW, here), gone)
    desk = await opened(ring("k1"), secrets=(new, sealed(OLD, old, START_MS + HOUR_MS)))
    await desk.deliver(desk.intent("e1"), desk.intent("e2"))
    await desk.pass_time(120)
    row = desk.row("e1")
    assert row is not None
    assert (row.status, row.reason, row.attempts) == (Status.PENDING, Reason.NO_KEY, 0)
    assert desk.receiver.requests == []

    assert (is_key_missing(), webhooks_without_key()) == (1, {KeySetting.ENCRYPTION: 1})

    desk = await opened(ring("k1", "k2"), desk)

    assert (is_key_missing(), webhooks_without_key()) == (0, {})
    assert desk.receiver.events() == ["e1", "e2"]
    assert signatures(desk, OLD) == [(True, True)] * 2
    assert signatures(desk, NEW) == [(False, True)] * 2
    await closed(desk)


async def test_a_key_that_only_a_rotated_out_secret_needs_may_go() -> None:
    kept, removed = ring("k1"), ring("k2")
    desk = await opened(kept, secrets=(sealed(NEW, kept), sealed(OLD, removed, START_MS - 1)))
    await desk.deliver(desk.intent("e1"))

    assert signatures(desk, NEW) == [(True, True)]
    await closed(desk)


async def test_a_webhook_parked_for_an_old_secret_sends_again_when_the_overlap_ends() -> None:
    kept, removed = ring("k1"), ring("k2")
    desk = await opened(kept, secrets=(sealed(NEW, kept), sealed(OLD, removed, START_MS + HOUR_MS)))
    await desk.deliver(desk.intent("e1"))
    assert desk.receiver.requests == []
    assert is_key_missing() == 1
    await desk.pass_time(HOUR_MS / 1000 + 60)

    assert is_key_missing() == 0
    assert signatures(desk, NEW) == [(True, True)]
    await closed(desk)


async def test_a_damaged_secret_parks_and_does_not_sign() -> None:
    keys = ring("k1")
    desk = await opened(keys, secrets=(SealedSecret(sealed=keys.seal("wh_b", NEW)),))
    await desk.deliver(desk.intent("e1"))
    await desk.pass_time(120)

    row = desk.row("e1")
    assert row is not None
    assert (row.status, row.reason, row.attempts) == (Status.PENDING, Reason.NO_KEY, 0)
    assert desk.receiver.requests == []
    await closed(desk)


async def test_a_credential_without_its_key_parks_and_is_sent_when_the_key_is_back() -> None:
    keys, gone = ring("k1"), ring("k2")
    patch = seal_headers(WebhookPatch(headers={"Authorization": "Bearer x", "X-Team": "data"}), "wh_a", gone)
    desk = await opened(keys, secrets=(sealed(NEW, keys),), headers=patch.headers, sealed_headers=patch.sealed_headers)
    await desk.deliver(desk.intent("e1"))
    await desk.pass_time(120)
    assert desk.receiver.requests == []

    desk = await opened(ring("k1", "k2"), desk)

    (request,) = desk.receiver.requests
    assert request.custom_headers == {"Authorization": "Bearer x", "X-Team": "data"}
    await closed(desk)


async def test_a_webhook_that_was_given_a_readable_secret_sends_what_waited() -> None:
    keys = ring("k1")
    desk = await opened(keys, secrets=(sealed(OLD, ring("k2")),))
    await desk.deliver(desk.intent("e1"))
    assert desk.receiver.requests == []
    await desk.deliver(desk.command(Op.ROTATE, secrets=(sealed(NEW, keys),)))
    await desk.pass_time(60)

    assert signatures(desk, NEW) == [(True, True)]
    await closed(desk)


async def test_after_a_rekey_the_old_key_may_go() -> None:
    desk = await opened(ring("k2"), secrets=(sealed(NEW, ring("k2")),))
    await desk.deliver(desk.command(Op.REKEY, secrets=(sealed(NEW, ring("k1")),)))

    desk = await opened(ring("k1"), desk)
    await desk.deliver(desk.intent("e1"))

    assert signatures(desk, NEW) == [(True, True)]
    await closed(desk)
