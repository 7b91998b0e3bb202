"""Credentials in custom headers: encrypted in command and row, masked beside that, and sent as they were given."""

from __future__ import annotations

import base64
import os
from typing import Any

import pytest

from app.webhooks.commands import Command, Op, WebhookPatch, apply_command, encode_command
from app.webhooks.credentials import open_headers, reseal_headers, seal_headers, struck_out
from app.webhooks.errors import InvalidHeader, MissingKey, UnreadableSecret
from app.webhooks.model import WebhookRow
from app.webhooks.registration import Limits, read_registration
from app.webhooks.secrets import KeyRing, key_id_of
from tables.webhooks import WEBHOOKS
from tests.support.memory_unit import START_MS

WEBHOOK = "wh_a"
GIVEN = {"Authorization": "Bearer hunter-hunter-2", "X-Team": "data", "X-Forwarded-For": "basic aHVudGVyMg=="}


def ring(*key_ids: str) -> KeyRing:
    entries = [f"{key_id}:{base64.b64encode(key_id.encode() * 32).decode()[:43]}=" for key_id in key_ids]
    return KeyRing(entries, os.urandom)


KEYS = ring("k")


def command(op: Op, patch: WebhookPatch, **more: Any) -> Command:
    fields: dict[str, Any] = {"command_id": "c", "expires_at": START_MS, "actor": "ops", "at": START_MS}
    return Command(op=op, webhook_id=WEBHOOK, patch=patch, **(fields | more))


def applied(op: Op, patch: WebhookPatch, row: WebhookRow | None = None, **more: Any) -> WebhookRow:
    changed = apply_command(row, command(op, patch, **more), START_MS).row
    assert changed is not None
    return changed


def created(headers: dict[str, str]) -> WebhookRow:
    patch = WebhookPatch(url="https://a.example", events=("*",), headers=headers)
    return applied(Op.CREATE, seal_headers(patch, WEBHOOK, KEYS))


def test_neither_the_command_nor_the_row_has_a_credential_in_clear() -> None:
    patch = seal_headers(WebhookPatch(headers=GIVEN), WEBHOOK, KEYS)
    logged = encode_command(command(Op.UPDATE, patch)) + WEBHOOKS.encode(created(GIVEN))

    assert b"hunter" not in logged
    assert b"aHVudGVyMg" not in logged
    assert b"data" in logged


def test_they_are_sent_as_they_were_given() -> None:
    assert open_headers(created(GIVEN), KEYS) == GIVEN


def test_what_is_shown_in_the_row_is_the_mask() -> None:
    assert created(GIVEN).headers == {"Authorization": "***", "X-Team": "data", "X-Forwarded-For": "***"}


def test_new_headers_replace_all_of_the_old_ones() -> None:
    changed = seal_headers(WebhookPatch(headers={"X-Api-Key": "new-new-new"}), WEBHOOK, KEYS)

    assert open_headers(applied(Op.UPDATE, changed, created(GIVEN)), KEYS) == {"X-Api-Key": "new-new-new"}
    assert open_headers(applied(Op.UPDATE, WebhookPatch(headers={}), created(GIVEN)), KEYS) == {}


def test_a_change_of_something_else_leaves_them() -> None:
    changed = seal_headers(WebhookPatch(description="x"), WEBHOOK, KEYS)

    assert open_headers(applied(Op.UPDATE, changed, created(GIVEN)), KEYS) == GIVEN


def test_a_rekey_moves_them_to_the_active_key() -> None:
    row = created(GIVEN)
    patch = WebhookPatch(sealed_headers=reseal_headers(row, ring("new", "k")))
    rekeyed = applied(Op.REKEY, patch, row, secrets=row.secrets)

    assert {key_id_of(sealed) for sealed in rekeyed.sealed_headers.values()} == {"new"}
    assert open_headers(rekeyed, ring("new")) == GIVEN
    assert rekeyed.version == row.version
    assert reseal_headers(rekeyed, ring("new", "k")) == rekeyed.sealed_headers


def test_without_their_key_they_are_not_read() -> None:
    with pytest.raises(MissingKey):
        open_headers(created(GIVEN), ring("other"))
    with pytest.raises(MissingKey):
        seal_headers(WebhookPatch(headers=GIVEN), WEBHOOK, ring())


def test_a_webhook_without_credentials_needs_no_key() -> None:
    assert open_headers(created({"X-Team": "data"}), ring()) == {"X-Team": "data"}


def test_a_sealed_value_does_not_open_under_another_name_or_webhook() -> None:
    sealed = created(GIVEN).sealed_headers["Authorization"]

    assert KEYS.open_header(WEBHOOK, "AUTHORIZATION", sealed) == GIVEN["Authorization"]
    for webhook_id, name in ((WEBHOOK, "X-Team"), ("wh_b", "Authorization")):
        with pytest.raises(UnreadableSecret):
            KEYS.open_header(webhook_id, name, sealed)
    with pytest.raises(UnreadableSecret):
        KEYS.open(WEBHOOK, sealed)


def test_the_mask_is_refused_as_a_value_so_that_what_was_shown_is_never_sent() -> None:
    body = {"url": "https://a.example", "events": ["*"], "headers": {"Authorization": "***"}}
    with pytest.raises(InvalidHeader) as refused:
        read_registration(body, Limits(max_in_flight=1, signing_key=False))

    assert refused.value.field == "/headers/Authorization"


def test_the_fingerprint_of_a_request_says_nothing_about_a_credential() -> None:
    def fingerprint(value: str) -> object:
        body = {"url": "https://a.example", "events": ["*"], "headers": {"Authorization": value}}
        return read_registration(body, Limits(max_in_flight=1, signing_key=False)).patch.fingerprint

    assert fingerprint("a") == fingerprint("b")


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (b'{"you_sent": "Bearer hunter-hunter-2"}', b'{"you_sent": "***"}'),
        (b"token hunter-hunter-2 is not known", b"token *** is not known"),
        (b"team data", b"team data"),
    ],
)
def test_an_answer_that_repeats_a_credential_is_kept_without_it(answer: bytes, kept: bytes) -> None:
    assert struck_out(answer, GIVEN) == kept


def test_a_short_credential_is_not_struck_out_of_innocent_words() -> None:
    assert struck_out(b"not authorized", {"X-Token": "auth"}) == b"not authorized"
