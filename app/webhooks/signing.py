"""What receivers verify (contracts 2, Request): the seed's signature, and Standard Webhooks v1 and v1a.

The seed's header is keyed with the UTF-8 bytes of the secret as it is shown, the Standard Webhooks one with the decoded
bytes. While a secret is being rotated, the seed's header keeps to the oldest one still valid, because it has room for
one signature; the Standard Webhooks header carries one for each.
"""

from __future__ import annotations

import base64
import binascii
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypedDict

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.events import TRACEPARENT
from app.webhooks.handshake import REQUEST_ORIGIN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from app.webhooks.secrets import Secret

SIGNING_KEY_PREFIX: Final = "whsk_"
CONTENT_TYPE: Final = "application/cloudevents+json; charset=utf-8"
USER_AGENT: Final = "vault-stream"
_SAME_LINES: Final = f"Content-Type: {CONTENT_TYPE}\r\nUser-Agent: {USER_AGENT}\r\n"
_SEED_BYTES: Final = 32
_TYPES_KEPT: Final = 256
_KEY_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
# The CloudEvents HTTP binding (3.1.3.2): what a header value cannot hold as it is.
_NOT_IN_HEADERS: Final = re.compile(r'[^\x21-\x7e]|["%]')


class PublicJwk(TypedDict):
    """The public half of a signing key, as RFC 8037 writes it."""

    kty: str
    crv: str
    kid: str
    x: str
    alg: str
    use: str


class SigningKey:
    """An ed25519 key of ours, for receivers that want to hold no secret (Standard Webhooks v1a).

    Attributes:
        key_id: the ``kid`` under which the public half is published.
    """

    __slots__ = ("_private", "key_id")

    def __init__(self, entry: str) -> None:
        """Read one entry of ``WEBHOOKS__SIGNING_KEYS``.

        Args:
            entry: ``<key id>:whsk_<base64>`` of the 32-byte seed, alone or followed by the 32-byte public key.

        Raises:
            ValueError: the entry is malformed, or its halves do not belong together; the message holds no key.
        """
        key_id, _, text = entry.partition(":")
        if not _KEY_ID.fullmatch(key_id) or not text.startswith(SIGNING_KEY_PREFIX):
            raise ValueError("a signing key must be <key id>:whsk_<base64>, the id of A-Z a-z 0-9 _ . -")
        try:
            raw = base64.b64decode(text.removeprefix(SIGNING_KEY_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(f"signing key {key_id!r}: the part after {SIGNING_KEY_PREFIX} is not base64") from None
        if len(raw) not in (_SEED_BYTES, 2 * _SEED_BYTES):
            raise ValueError(
                f"signing key {key_id!r}: must hold 32 bytes (the seed) or 64 (seed, public key), holds {len(raw)}"
            )
        self._private = Ed25519PrivateKey.from_private_bytes(raw[:_SEED_BYTES])
        if len(raw) > _SEED_BYTES and self._public() != raw[_SEED_BYTES:]:
            raise ValueError(f"signing key {key_id!r}: its public half does not belong to its seed")
        self.key_id = key_id

    def sign(self, content: bytes) -> bytes:
        """The 64-byte ed25519 signature of the content (RFC 8032)."""
        return self._private.sign(content)

    def public_jwk(self) -> PublicJwk:
        """The entry of this key in ``/.well-known/webhook-keys.json``."""
        x = base64.urlsafe_b64encode(self._public()).rstrip(b"=").decode()
        return {"kty": "OKP", "crv": "Ed25519", "kid": self.key_id, "x": x, "alg": "EdDSA", "use": "sig"}

    def _public(self) -> bytes:
        return self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def __repr__(self) -> str:
        return f"SigningKey({self.key_id!r})"


def sign_seed(secret: Secret, body: bytes) -> str:
    """The value of ``X-Webhook-Signature``, keyed with the secret as it is shown."""
    mac = secret.seed_mac.copy()
    mac.update(body)
    return "sha256=" + mac.finalize().hex()


def sign_v1(secret: Secret, message_id: str, timestamp_s: int, body: bytes) -> str:
    """One ``v1,`` signature of Standard Webhooks, keyed with the decoded secret."""
    return _v1(secret, _signed_content(message_id, timestamp_s, body))


def sign_v1a(key: SigningKey, message_id: str, timestamp_s: int, body: bytes) -> str:
    """One ``v1a,`` signature of Standard Webhooks, by an ed25519 key."""
    return _v1a(key, _signed_content(message_id, timestamp_s, body))


class SignedHeaders(msgspec.Struct, frozen=True, gc=False):
    """All headers of an attempt that no custom header may replace: names and values, in the order they are sent in.

    Attributes:
        seed_signature: Value of ``X-Webhook-Signature``.
        webhook_id: The webhook.
        event_id: Of the event, as a header can hold it.
        event_type: Likewise.
        delivery_id: Also the ``webhook-id``.
        attempt: From 1.
        timestamp_s: Unix time of this attempt.
        signatures: Value of ``webhook-signature``.
        traceparent: None: there is no such header.
        origin: Likewise. Value of ``WebHook-Request-Origin``.
    """

    seed_signature: str
    webhook_id: str
    event_id: str
    event_type: str
    delivery_id: str
    attempt: int
    timestamp_s: int
    signatures: str
    traceparent: str | None = None
    origin: str | None = None

    def __iter__(self) -> Iterator[tuple[str, str]]:
        pairs: tuple[tuple[str, str], ...] = (
            ("Content-Type", CONTENT_TYPE),
            ("User-Agent", USER_AGENT),
            ("X-Webhook-Signature", self.seed_signature),
            ("X-Webhook-Id", self.webhook_id),
            ("X-Event-Id", self.event_id),
            ("X-Event-Type", self.event_type),
            ("X-Delivery-Id", self.delivery_id),
            ("X-Delivery-Attempt", str(self.attempt)),
            ("webhook-id", self.delivery_id),
            ("webhook-timestamp", str(self.timestamp_s)),
            ("webhook-signature", self.signatures),
        )
        if self.traceparent:
            pairs += (("traceparent", self.traceparent),)
        if self.origin:
            pairs += ((REQUEST_ORIGIN, self.origin),)
        return iter(pairs)

    def written(self) -> str | None:
        """Their lines, as they are sent; None where one might end early."""
        delivery_id, webhook_id, traceparent = self.delivery_id, self.webhook_id, self.traceparent or ""
        origin = self.origin or ""
        # What else varies are numbers and signatures.
        given = delivery_id + webhook_id + self.event_id + self.event_type + traceparent + origin
        if "\n" in given or "\r" in given or "\0" in given:
            return None
        last = f"traceparent: {traceparent}\r\n" if traceparent else ""
        if origin:
            last += f"{REQUEST_ORIGIN}: {origin}\r\n"
        return (
            f"{_SAME_LINES}X-Webhook-Signature: {self.seed_signature}\r\n"
            f"X-Webhook-Id: {webhook_id}\r\n"
            f"X-Event-Id: {self.event_id}\r\n"
            f"X-Event-Type: {self.event_type}\r\n"
            f"X-Delivery-Id: {delivery_id}\r\n"
            f"X-Delivery-Attempt: {self.attempt}\r\n"
            f"webhook-id: {delivery_id}\r\n"
            f"webhook-timestamp: {self.timestamp_s}\r\n"
            f"webhook-signature: {self.signatures}\r\n"
            f"{last}"
        )


def sign_headers(
    body: bytes,
    *,
    webhook_id: str,
    delivery_id: str,
    event_id: str,
    event_type: str,
    attempt: int,
    timestamp_s: int,
    secrets: Sequence[Secret],
    signing_key: SigningKey | None = None,
    traceparent: str | None = None,
    origin: str | None = None,
) -> SignedHeaders:
    """Sign an attempt.

    Args:
        body: exactly the bytes that will be sent.
        webhook_id: the webhook.
        delivery_id: constant over the attempts of a delivery, without a dot; also the ``webhook-id``.
        event_id: of the event. What a header cannot hold is percent-encoded as the CloudEvents HTTP binding does it,
            so that an id with a line break adds no header.
        event_type: of the event, encoded in the same way.
        attempt: from 1.
        timestamp_s: Unix time of this attempt.
        secrets: those still valid, newest first; at least one.
        signing_key: our ed25519 key, where the webhook asks for v1a.
        traceparent: W3C trace context; left out where it is malformed, since it comes from the event.
        origin: our DNS name, where the receiver was asked for its permission under it.

    Raises:
        ValueError: no secret, or a delivery id with a dot, which would make the signed content ambiguous.
    """
    if not secrets:
        raise ValueError("secrets: at least one valid secret is needed to sign a delivery")
    if "." in delivery_id:
        raise ValueError("delivery_id: must hold no dot, the separator of the signed content")
    content = _signed_content(delivery_id, timestamp_s, body)
    signatures = _v1(secrets[0], content)
    for secret in secrets[1:]:
        signatures += " " + _v1(secret, content)
    if signing_key is not None:
        signatures += " " + _v1a(signing_key, content)
    if traceparent is not None and not TRACEPARENT.fullmatch(traceparent):
        traceparent = None
    return SignedHeaders(
        sign_seed(secrets[-1], body),
        webhook_id,
        _header_value(event_id),
        _known_value(event_type),
        delivery_id,
        attempt,
        timestamp_s,
        signatures,
        traceparent,
        origin,
    )


def _v1(secret: Secret, content: bytes) -> str:
    mac = secret.v1_mac.copy()
    mac.update(content)
    return "v1," + binascii.b2a_base64(mac.finalize(), newline=False).decode()


def _v1a(key: SigningKey, content: bytes) -> str:
    return "v1a," + base64.b64encode(key.sign(content)).decode()


def _signed_content(message_id: str, timestamp_s: int, body: bytes) -> bytes:
    return f"{message_id}.{timestamp_s}.".encode() + body


def _header_value(text: str) -> str:
    # Nearly all ids are that, and to know it costs a fifth of the search for what is not.
    if text.isascii() and text.replace("-", "").isalnum():
        return text
    return _NOT_IN_HEADERS.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), text)


_known_value = lru_cache(_TYPES_KEPT)(_header_value)
