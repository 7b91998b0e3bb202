"""Secrets of webhooks: their text form, and how they are kept (contracts 2, Secrets).

A secret is ``whsec_`` and the base64 of 24 to 64 bytes. It is shown once and stored as ``<key id>:<base64>``, where the
base64 holds a 12-byte nonce and the AES-256-GCM cipher text of the whole text form. The associated data is the webhook
id, so that a stored secret cannot be moved to another webhook. Credentials in custom headers are stored likewise, the
name of the header behind the webhook id.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from app.webhooks.errors import InvalidSecret, MissingKey, UnreadableSecret

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - the public prefix, not a secret
SECRET_BYTES: Final = 32
MIN_SECRET_BYTES: Final = 24
MAX_SECRET_BYTES: Final = 64
ENCRYPTION_KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
_KEY_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)


class Secret:
    """The secret of a webhook, in both of the forms that signatures are keyed with.

    Attributes:
        text: the form that is shown, ``whsec_`` included.
        key: the decoded bytes, 24 to 64 of them.
    """

    __slots__ = ("_seed_mac", "_v1_mac", "key", "text")

    def __init__(self, text: str) -> None:
        """Parse the text form.

        Args:
            text: ``whsec_`` and standard base64, with or without its padding.

        Raises:
            InvalidSecret: the prefix, the alphabet or the length is wrong.
        """
        if not text.startswith(SECRET_PREFIX):
            raise InvalidSecret(f"must begin with {SECRET_PREFIX!r}, followed by base64")
        encoded = text.removeprefix(SECRET_PREFIX)
        try:
            key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise InvalidSecret(f"must be standard base64 after {SECRET_PREFIX!r}") from None
        if not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
            raise InvalidSecret(f"must hold {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes, holds {len(key)}")
        self.text: Final = text
        self.key: Final = key
        self._seed_mac: HMAC | None = None
        self._v1_mac: HMAC | None = None

    @property
    def seed_mac(self) -> HMAC:
        """HMAC-SHA256 of nothing yet, keyed with the text; to be copied, which costs less than to key one again."""
        if self._seed_mac is None:
            self._seed_mac = HMAC(self.text.encode(), SHA256())
        return self._seed_mac

    @property
    def v1_mac(self) -> HMAC:
        """The same, keyed with the decoded bytes."""
        if self._v1_mac is None:
            self._v1_mac = HMAC(self.key, SHA256())
        return self._v1_mac

    def __repr__(self) -> str:
        return f"Secret({SECRET_PREFIX}***)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


def new_secret(random_bytes: Callable[[int], bytes]) -> Secret:
    """Make a secret of 32 random bytes.

    Args:
        random_bytes: a cryptographic source, such as ``os.urandom``.
    """
    return Secret(SECRET_PREFIX + base64.b64encode(random_bytes(SECRET_BYTES)).decode())


def key_id_of(sealed: str) -> str:
    """The id of the key that a stored secret was encrypted with.

    Raises:
        UnreadableSecret: the text is not of the stored form.
    """
    key_id, colon, _ = sealed.partition(":")
    if not colon:
        raise UnreadableSecret("a stored secret names no encryption key")
    return key_id


class KeyRing:
    """The keys that secrets are encrypted with: the first one is active, all of them decrypt."""

    __slots__ = ("_ciphers", "_random_bytes", "active_key_id")

    def __init__(self, entries: Sequence[str], random_bytes: Callable[[int], bytes]) -> None:
        """Read the keys.

        Args:
            entries: ``<key id>:<base64 of 32 bytes>`` each (``WEBHOOKS__ENCRYPTION_KEYS``); may be empty, and then
                nothing can be sealed or opened.
            random_bytes: a cryptographic source of nonces, such as ``os.urandom``.

        Raises:
            ValueError: an entry is malformed or repeats a key id; the message names its place, never the key.
        """
        self._ciphers: dict[str, AESGCM] = {}
        self._random_bytes = random_bytes
        for place, entry in enumerate(entries, 1):
            key_id, key = _encryption_key(entry, place)
            if key_id in self._ciphers:
                raise ValueError(f"encryption key {place}: key id {key_id!r} is there twice")
            self._ciphers[key_id] = AESGCM(key)
        self.active_key_id: str | None = next(iter(self._ciphers), None)

    def seal(self, webhook_id: str, secret: Secret) -> str:
        """Encrypt a secret of this webhook with the active key.

        Returns:
            The stored form, ASCII.

        Raises:
            MissingKey: there is no key.
        """
        return self._encrypt(secret.text, webhook_id)

    def open(self, webhook_id: str, sealed: str) -> Secret:
        """Decrypt a stored secret of this webhook.

        Raises:
            MissingKey: the key that the stored form names is not in the ring.
            UnreadableSecret: the stored form is damaged, or was sealed for another webhook.
        """
        try:
            return Secret(self._decrypt(sealed, webhook_id))
        except InvalidSecret:
            raise _unreadable(key_id_of(sealed)) from None

    def seal_header(self, webhook_id: str, name: str, value: str) -> str:
        """Encrypt the value of a custom header of this webhook, as ``seal`` does.

        Raises:
            MissingKey: there is no key.
        """
        return self._encrypt(value, _of_header(webhook_id, name))

    def open_header(self, webhook_id: str, name: str, sealed: str) -> str:
        """Decrypt the stored value of a custom header of this webhook.

        Raises:
            MissingKey: the key that the stored form names is not in the ring.
            UnreadableSecret: the stored form is damaged, or was sealed for another webhook or name.
        """
        return self._decrypt(sealed, _of_header(webhook_id, name))

    def is_active(self, sealed: str) -> bool:
        """Whether a stored secret is encrypted with the active key; if not, ``rekey`` has work to do."""
        return key_id_of(sealed) == self.active_key_id

    def _encrypt(self, text: str, associated: str) -> str:
        if self.active_key_id is None:
            raise MissingKey(None)
        nonce = self._random_bytes(NONCE_BYTES)
        sealed = self._ciphers[self.active_key_id].encrypt(nonce, text.encode(), associated.encode())
        return f"{self.active_key_id}:{base64.b64encode(nonce + sealed).decode()}"

    def _decrypt(self, sealed: str, associated: str) -> str:
        key_id = key_id_of(sealed)
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise MissingKey(key_id)
        try:
            raw = base64.b64decode(sealed.partition(":")[2], validate=True)
            return cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], associated.encode()).decode()
        except (InvalidTag, ValueError):
            raise _unreadable(key_id) from None

    def __repr__(self) -> str:
        return f"KeyRing(key_ids={list(self._ciphers)})"


def _of_header(webhook_id: str, name: str) -> str:
    return f"{webhook_id}/{name.lower()}"


def _unreadable(key_id: str) -> UnreadableSecret:
    return UnreadableSecret(f"a stored secret does not open with encryption key {key_id!r}")


def _encryption_key(entry: str, place: int) -> tuple[str, bytes]:
    key_id, _, encoded = entry.partition(":")
    if not _KEY_ID.fullmatch(key_id):
        raise ValueError(f"encryption key {place}: write it as <key id>:<base64>, the id of A-Z a-z 0-9 _ . -")
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"encryption key {place} ({key_id}): the part after the colon is not base64") from None
    if len(key) != ENCRYPTION_KEY_BYTES:
        raise ValueError(f"encryption key {place} ({key_id}): must hold {ENCRYPTION_KEY_BYTES} bytes, holds {len(key)}")
    return key_id, key
