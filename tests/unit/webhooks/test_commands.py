"""Commands: which are applied, and what they make of a webhook."""

from __future__ import annotations

from typing import Any

import pytest

from app.events import AdminEventType
from app.webhooks.commands import Applied, Command, Op, WebhookPatch, apply_command, decode_command, encode_command
from app.webhooks.errors import SerializationFailed
from app.webhooks.model import Health, SealedSecret, WebhookRow

NOW = 1_750_000_000_000
SECRETS = (SealedSecret(sealed="k1:abc"),)


def row(**changes: Any) -> WebhookRow:
    fields: dict[str, Any] = {
        "webhook_id": "wh_1",
        "version": 3,
        "command_ids": ("old",),
        "url": "https://a.example",
        "events": ("*",),
        "created_at_ms": NOW - 1,
        "updated_at_ms": NOW - 1,
    }
    return WebhookRow(**(fields | changes))


def command(op: Op, **changes: Any) -> Command:
    fields: dict[str, Any] = {
        "command_id": "c1",
        "op": op,
        "webhook_id": "wh_1",
        "expires_at": NOW,
        "actor": "ops",
        "at": NOW,
    }
    return Command(**(fields | changes))


def applied(before: WebhookRow | None, made: Command) -> WebhookRow:
    result = apply_command(before, made, NOW).row
    assert result is not None
    return result


def test_a_command_survives_its_encoding() -> None:
    made = command(Op.UPDATE, patch=WebhookPatch(url="https://b.example", timeout_s=None), secrets=SECRETS)

    assert decode_command(encode_command(made)) == made


@pytest.mark.parametrize("value", [None, b"", b"[]", b'{"op":"create"}', b'{"patch":{"nope":1}}'])
def test_what_is_no_command_is_refused(value: bytes | None) -> None:
    with pytest.raises(SerializationFailed):
        decode_command(value)


def test_create_makes_version_one_with_its_secrets() -> None:
    made = applied(
        None,
        command(Op.CREATE, patch=WebhookPatch(url="https://a.example", events=("*",)), secrets=SECRETS),
    )

    assert (made.version, made.command_ids, made.health, made.secrets) == (1, ("c1",), Health.OK, SECRETS)


def test_create_does_not_replace_a_webhook() -> None:
    assert apply_command(row(), command(Op.CREATE), NOW) == Applied()


@pytest.mark.parametrize("op", [op for op in Op if op is not Op.CREATE])
def test_nothing_is_done_to_a_webhook_that_is_not_there_or_being_deleted(op: Op) -> None:
    assert apply_command(None, command(op), NOW) == Applied()
    assert apply_command(row(deleting=True), command(op), NOW) == Applied()


@pytest.mark.parametrize("op", [Op.UPDATE, Op.DELETE, Op.ENABLE, Op.DISABLE, Op.ROTATE])
def test_a_command_for_another_version_is_left(op: Op) -> None:
    assert apply_command(row(), command(op, base_version=2), NOW) == Applied()
    assert apply_command(row(), command(op, base_version=3), NOW).row is not None


@pytest.mark.parametrize("op", Op)
def test_a_command_that_comes_too_late_is_void(op: Op) -> None:
    before = None if op is Op.CREATE else row()

    assert apply_command(before, command(op), NOW + 1) == Applied()


def test_update_changes_what_it_names_and_takes_none_as_the_default() -> None:
    patch = WebhookPatch(url="https://b.example", timeout_s=None)

    made = applied(row(timeout_s=3.0, description="kept"), command(Op.UPDATE, patch=patch))

    assert (made.url, made.timeout_s, made.description, made.version) == ("https://b.example", None, "kept", 4)
    assert made.command_ids == ("c1", "old")


def test_disable_and_enable_switch_health_with_it() -> None:
    off = applied(row(), command(Op.DISABLE))
    on = applied(off, command(Op.ENABLE))

    assert (off.enabled, off.health, off.disabled_at_ms, off.disabled_reason) == (False, Health.DISABLED, NOW, "admin")
    assert (on.enabled, on.health, on.disabled_reason) == (True, Health.OK, None)
    assert on.disabled_at_ms == NOW


def test_a_webhook_knows_how_long_it_was_disabled_last() -> None:
    enable = command(Op.UPDATE, patch=WebhookPatch(enabled=True))
    off = row(enabled=False, disabled_at_ms=NOW - 5)
    on = applied(off, enable)

    assert (on.disabled_at_ms, on.enabled_at_ms) == (NOW - 5, NOW)
    assert applied(row(enabled_at_ms=7), enable).enabled_at_ms == 7
    assert applied(row(enabled_at_ms=7), command(Op.DISABLE)).enabled_at_ms == 7


def test_hold_and_rekey_are_no_change_of_configuration() -> None:
    held = applied(row(), command(Op.HOLD, patch=WebhookPatch(hold_until_ms=NOW + 5)))
    rekeyed = applied(row(), command(Op.REKEY, secrets=SECRETS))

    assert (held.version, held.hold_until_ms) == (3, NOW + 5)
    assert (rekeyed.version, rekeyed.secrets) == (3, SECRETS)
    assert applied(held, command(Op.HOLD, patch=WebhookPatch(hold_until_ms=None))).hold_until_ms is None


def test_delete_only_marks_the_row() -> None:
    made = apply_command(row(), command(Op.DELETE), NOW)

    assert made.row is not None
    assert made.row.deleting
    assert made.announce is AdminEventType.WEBHOOK_DELETED


def test_the_last_eight_commands_are_named() -> None:
    before = row(command_ids=tuple(f"o{n}" for n in range(8)))

    assert applied(before, command(Op.HOLD)).command_ids == ("c1", *(f"o{n}" for n in range(7)))


def test_a_rotation_that_was_made_before_the_secrets_were_encrypted_anew_brings_the_old_key_not_back() -> None:
    before = row(secrets=(SealedSecret(sealed="old:S"),))
    rotation = command(
        Op.ROTATE,
        base_version=3,
        secrets=(SealedSecret(sealed="old:N"), SealedSecret(sealed="old:S", valid_until_ms=NOW + 1)),
    )
    assert applied(before, rotation).secrets == rotation.secrets

    rekey = command(Op.REKEY, base_version=3, secrets=(SealedSecret(sealed="new:S"),))
    assert apply_command(applied(before, rekey), rotation, NOW) == Applied()
