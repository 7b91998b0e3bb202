from __future__ import annotations

import base64
import json
import os

import pytest

from app.webhooks.errors import InvalidSecret, MissingKey, UnreadableSecret
from app.webhooks.secrets import KeyRing, Secret, key_id_of, new_secret

WEBHOOK = "wh_aaaaaaaaaaaaaaaaaaaaaaaaaa"


def key_entry(key_id: str, byte: bytes = b"k") -> str:
    return f"{key_id}:{base64.b64encode(byte * 32).decode()}"


def whsec(size: int) -> str:
    return "whsec_" + base64.b64encode(bytes(range(size))).decode()


class TestSecret:
    def test_a_new_secret_is_whsec_and_the_base64_of_32_random_bytes(self) -> None:
        secret = new_secret(lambda size: b"\x07" * size)

        assert secret.text == "whsec_" + base64.b64encode(b"\x07" * 32).decode()
        assert secret.key == b"\x07" * 32

    @pytest.mark.parametrize("size", [24, 32, 64])
    def test_24_to_64_bytes_are_accepted(self, size: int) -> None:
        assert Secret(whsec(size)).key == bytes(range(size))

    @pytest.mark.parametrize("size", [0, 23, 65])
    def test_another_length_is_refused_with_the_field(self, size: int) -> None:
        with pytest.raises(InvalidSecret, match=f"24 to 64 bytes, holds {size}") as refused:
            Secret(whsec(size))

        assert refused.value.field == "/secret"

    def test_missing_padding_is_accepted_and_the_text_stays_as_it_was(self) -> None:
        text = whsec(32).rstrip("=")

        assert Secret(text).text == text
        assert Secret(text).key == bytes(range(32))

    @pytest.mark.parametrize("text", ["", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])
    def test_the_prefix_is_required(self, text: str) -> None:
        with pytest.raises(InvalidSecret, match="must begin with 'whsec_'"):
            Secret(text)

    @pytest.mark.parametrize("encoded", ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa-_", "M" * 33, "ü" * 32, "M" * 31 + "\n"])
    def test_what_is_not_standard_base64_is_refused_without_being_shown(self, encoded: str) -> None:
        with pytest.raises(InvalidSecret, match="standard base64") as refused:
            Secret("whsec_" + encoded)

        assert encoded not in str(refused.value)

    def test_a_secret_is_not_shown_by_its_repr(self) -> None:
        secret = new_secret(os.urandom)

        assert repr(secret) == str(secret) == "Secret(whsec_***)"


class TestKeyRing:
    def test_what_is_sealed_opens_again(self) -> None:
        ring = KeyRing([key_entry("k1")], os.urandom)
        secret = new_secret(os.urandom)

        sealed = ring.seal(WEBHOOK, secret)

        assert ring.open(WEBHOOK, sealed) == secret

    def test_the_stored_form_names_its_key_and_shows_neither_secret_nor_key(self) -> None:
        ring = KeyRing([key_entry("2026-01")], os.urandom)
        secret = new_secret(os.urandom)

        sealed = ring.seal(WEBHOOK, secret)

        assert key_id_of(sealed) == "2026-01"
        assert json.loads(json.dumps(sealed)) == sealed
        assert secret.text.encode() not in base64.b64decode(sealed.partition(":")[2])
        assert secret.key not in base64.b64decode(sealed.partition(":")[2])

    def test_each_sealing_has_its_own_nonce(self) -> None:
        ring = KeyRing([key_entry("k1")], os.urandom)
        secret = new_secret(os.urandom)

        assert ring.seal(WEBHOOK, secret) != ring.seal(WEBHOOK, secret)

    def test_the_first_key_seals_and_every_key_opens(self) -> None:
        secret = new_secret(os.urandom)
        old = KeyRing([key_entry("old", b"o")], os.urandom).seal(WEBHOOK, secret)

        ring = KeyRing([key_entry("new", b"n"), key_entry("old", b"o")], os.urandom)

        assert key_id_of(ring.seal(WEBHOOK, secret)) == "new"
        assert ring.open(WEBHOOK, old) == secret
        assert not ring.is_active(old)
        assert ring.is_active(ring.seal(WEBHOOK, secret))

    def test_a_key_that_is_not_there_is_a_missing_key_with_its_id(self) -> None:
        sealed = KeyRing([key_entry("gone")], os.urandom).seal(WEBHOOK, new_secret(os.urandom))

        with pytest.raises(MissingKey) as missing:
            KeyRing([key_entry("k1")], os.urandom).open(WEBHOOK, sealed)

        assert missing.value.key_id == "gone"
        assert missing.value.code == "encryption_key_missing"

    def test_without_keys_nothing_is_sealed(self) -> None:
        ring = KeyRing([], os.urandom)

        assert ring.active_key_id is None
        with pytest.raises(MissingKey, match="WEBHOOKS__ENCRYPTION_KEYS"):
            ring.seal(WEBHOOK, new_secret(os.urandom))

    def test_a_sealed_secret_does_not_open_for_another_webhook(self) -> None:
        ring = KeyRing([key_entry("k1")], os.urandom)
        sealed = ring.seal(WEBHOOK, new_secret(os.urandom))

        with pytest.raises(UnreadableSecret):
            ring.open("wh_bbbbbbbbbbbbbbbbbbbbbbbbbb", sealed)

    @pytest.mark.parametrize("damaged", ["", "k1", "k1:", "k1:!", "k1:AAAA"])
    def test_what_is_not_of_the_stored_form_is_unreadable(self, damaged: str) -> None:
        with pytest.raises(UnreadableSecret):
            KeyRing([key_entry("k1")], os.urandom).open(WEBHOOK, damaged)

    def test_a_damaged_secret_is_unreadable(self) -> None:
        ring = KeyRing([key_entry("k1")], os.urandom)
        sealed = ring.seal(WEBHOOK, new_secret(os.urandom))

        for damaged in (sealed[:-8], sealed[:-8] + "AAAAAAAA"):
            with pytest.raises(UnreadableSecret):
                ring.open(WEBHOOK, damaged)

    @pytest.mark.parametrize(
        ("entry", "complaint"),
        [
            ("k1", "must hold 32 bytes, holds 0"),
            (":AAAA", "write it as <key id>:<base64>"),
            ("a b:AAAA", "write it as <key id>:<base64>"),
            ("k1:c2hvcnQ=", "must hold 32 bytes, holds 5"),
            ("k1:***", "not base64"),
        ],
    )
    def test_a_malformed_entry_is_refused_by_its_place(self, entry: str, complaint: str) -> None:
        with pytest.raises(ValueError, match=f"encryption key 2.*{complaint}") as refused:
            KeyRing([key_entry("k0"), entry], os.urandom)

        assert "c2hvcnQ" not in str(refused.value)

    def test_a_key_id_that_is_there_twice_is_refused(self) -> None:
        with pytest.raises(ValueError, match="'k1' is there twice"):
            KeyRing([key_entry("k1"), key_entry("k1", b"x")], os.urandom)

    def test_the_repr_shows_key_ids_only(self) -> None:
        assert repr(KeyRing([key_entry("k1")], os.urandom)) == "KeyRing(key_ids=['k1'])"
