"""Changes of a webhook: commands that any worker sends and the owner applies (architecture 5, Config changes).

A command names the version that it was made for. The owner applies it or leaves it, in one step with its row, and the
row names the last commands that were applied: that is how the sender learns what became of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec

from app.events import AdminEventType
from app.webhooks.errors import SerializationFailed
from app.webhooks.model import COMMAND_IDS_LIMIT, Health, Ordering, SealedSecret, WebhookFilter, WebhookRow

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Applied", "Command", "Op", "WebhookPatch", "apply_command", "decode_command", "encode_command"]


class Op(StrEnum):
    """What a command does."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    ENABLE = "enable"
    DISABLE = "disable"
    HOLD = "hold"
    ROTATE = "rotate"
    REKEY = "rekey"
    CANCEL_REPLAY = "cancel_replay"


class WebhookPatch(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, forbid_unknown_fields=True):
    """Checked configuration; UNSET stays as it is, None goes back to the default.

    Attributes:
        sealed_headers: The credentials among the headers, see `credentials.seal_headers`.
    """

    url: str | msgspec.UnsetType = msgspec.UNSET
    events: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    description: str | msgspec.UnsetType | None = msgspec.UNSET
    headers: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    sealed_headers: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    enabled: bool | msgspec.UnsetType = msgspec.UNSET
    filter: WebhookFilter | msgspec.UnsetType | None = msgspec.UNSET
    retry_schedule_s: tuple[float, ...] | msgspec.UnsetType | None = msgspec.UNSET
    timeout_s: float | msgspec.UnsetType | None = msgspec.UNSET
    rate_limit_per_s: float | msgspec.UnsetType | None = msgspec.UNSET
    max_in_flight: int | msgspec.UnsetType | None = msgspec.UNSET
    ordering: Ordering | msgspec.UnsetType = msgspec.UNSET
    signatures: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    handshake: bool | msgspec.UnsetType = msgspec.UNSET
    fingerprint: str | msgspec.UnsetType = msgspec.UNSET
    hold_until_ms: int | msgspec.UnsetType | None = msgspec.UNSET

    def __repr__(self) -> str:
        # Headers hold credentials.
        return f"WebhookPatch({', '.join(self.changes())})"

    def changes(self) -> dict[str, Any]:
        """The fields that are set, by name."""
        found = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: value for name, value in found.items() if value is not msgspec.UNSET}


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One record of `webhook.commands` (contracts 9.2).

    Attributes:
        command_id: A UUIDv7.
        base_version: The version that it was made for; None: whatever there is.
        expires_at: Void if the broker's timestamp on it is later; milliseconds.
        patch: For create and update; of a rekey, `sealed_headers` only.
        secrets: Encrypted, for create, rotate and rekey.
        actor: The name of the token.
        at: When it was sent; milliseconds.
    """

    command_id: str
    op: Op
    webhook_id: str
    base_version: int | None = None
    expires_at: int
    patch: WebhookPatch = WebhookPatch()
    secrets: tuple[SealedSecret, ...] = ()
    actor: str
    at: int


@dataclass(frozen=True, slots=True)
class Applied:
    """What a command made of its webhook.

    Attributes:
        row: The row to write; None: leave everything as it is.
        announce: The event that tells of it, if it is one that is audited.
    """

    row: WebhookRow | None = None
    announce: AdminEventType | None = None


_NOTHING: Final = Applied()
_ANNOUNCED: Final[Mapping[Op, AdminEventType]] = {
    Op.CREATE: AdminEventType.WEBHOOK_CREATED,
    Op.UPDATE: AdminEventType.WEBHOOK_UPDATED,
    Op.DELETE: AdminEventType.WEBHOOK_DELETED,
    Op.ENABLE: AdminEventType.WEBHOOK_ENABLED,
    Op.DISABLE: AdminEventType.WEBHOOK_UPDATED,
    Op.HOLD: AdminEventType.WEBHOOK_UPDATED,
    Op.ROTATE: AdminEventType.WEBHOOK_ROTATED,
    Op.REKEY: AdminEventType.WEBHOOK_ROTATED,
}
# What is not configuration: the version stays.
_SAME_VERSION: Final = frozenset({Op.HOLD, Op.REKEY})
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Command).decode


def encode_command(command: Command) -> bytes:
    """The record value; its key is the webhook id."""
    return _encode(command)


def decode_command(value: bytes | None) -> Command:
    """The inverse.

    Raises:
        SerializationFailed: It is no command; the message names the field and shows no value.
    """
    try:
        return _decode(value or b"")
    except msgspec.MsgspecError as error:
        raise SerializationFailed(f"a webhook command does not decode: {error}") from None


def apply_command(row: WebhookRow | None, command: Command, record_at_ms: int) -> Applied:
    """Apply a command, or not: it is too late, was made for another version, or there is nothing to apply it to.

    Args:
        row: The webhook as it is; None: there is none.
        command: What to do.
        record_at_ms: The broker's timestamp on it, the only clock in this.
    """
    if record_at_ms > command.expires_at or command.op is Op.CANCEL_REPLAY:
        return _NOTHING
    if command.op is Op.CREATE:
        return Applied(_created(command, record_at_ms), _ANNOUNCED[Op.CREATE]) if row is None else _NOTHING
    if row is None or row.deleting or command.base_version not in {None, row.version}:
        return _NOTHING
    kept = {one.sealed for one in command.secrets[1:]}
    if command.op is Op.ROTATE and not kept <= {one.sealed for one in row.secrets}:
        # Those that stay were encrypted anew since, under another key, which leaves the version.
        return _NOTHING
    changed = msgspec.structs.replace(
        row,
        version=row.version + (command.op not in _SAME_VERSION),
        command_ids=(command.command_id, *row.command_ids)[:COMMAND_IDS_LIMIT],
        updated_at_ms=record_at_ms,
        **_changes(row, command, record_at_ms),
    )
    return Applied(changed, _ANNOUNCED[command.op])


def _changes(row: WebhookRow, command: Command, at_ms: int) -> dict[str, Any]:
    match command.op:
        case Op.DELETE:
            return {"deleting": True}
        case Op.ENABLE:
            return _switched(row, enabled=True, at_ms=at_ms)
        case Op.DISABLE:
            return _switched(row, enabled=False, at_ms=at_ms)
        case Op.ROTATE:
            return {"secrets": command.secrets}
        case Op.REKEY:
            return {"secrets": command.secrets, **command.patch.changes()}
        case _:
            changes = command.patch.changes()
            if "headers" in changes:
                # All of them are replaced, the sealed ones, too.
                changes.setdefault("sealed_headers", {})
            enabled = changes.pop("enabled", row.enabled)
            if changes.get("url", row.url) != row.url:
                # What is known is known of another receiver.
                changes |= {"first_success_ms": None, "first_failure_ms": None}
            return changes | _switched(row, enabled=enabled, at_ms=at_ms)


def _switched(row: WebhookRow, *, enabled: bool, at_ms: int) -> dict[str, Any]:
    if enabled == row.enabled:
        return {}
    return {
        "enabled": enabled,
        "health": Health.OK if enabled else Health.DISABLED,
        "failures": 0,
        "failing_since_ms": None,
        "unheard": False,
        # Where a replay of what was missed would begin, so it outlives the switch.
        "disabled_at_ms": row.disabled_at_ms if enabled else at_ms,
        "disabled_reason": None if enabled else "admin",
        "enabled_at_ms": at_ms if enabled else row.enabled_at_ms,
    }


def _created(command: Command, at_ms: int) -> WebhookRow:
    changes = command.patch.changes()
    enabled = changes.pop("enabled", True)
    return WebhookRow(
        webhook_id=command.webhook_id,
        version=1,
        command_ids=(command.command_id,),
        enabled=enabled,
        health=Health.OK if enabled else Health.DISABLED,
        disabled_at_ms=None if enabled else at_ms,
        disabled_reason=None if enabled else "admin",
        secrets=command.secrets,
        created_at_ms=at_ms,
        updated_at_ms=at_ms,
        **changes,
    )
