from __future__ import annotations

import base64
import hashlib
import hmac
import time

import pytest
import standardwebhooks
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from app.webhooks.http import Target, head_of, head_with
from app.webhooks.secrets import Secret
from app.webhooks.signing import SignedHeaders, SigningKey, sign_headers, sign_seed, sign_v1, sign_v1a

# The golden vectors of contracts 2.
MESSAGE_ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIMESTAMP_S = 1614265330
BODY = b'{"test": 2432232314}'
SECRET = Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
OLDER_SECRET = Secret("whsec_" + base64.b64encode(b"o" * 32).decode())
TARGET = Target.of(URL("https://receiver.example/hook"))
V1 = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
KEY_BASE64 = "6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
KEY = SigningKey("key-1:whsk_" + KEY_BASE64)
V1A = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="


def signed(body: bytes = BODY, **changes: object) -> dict[str, str]:
    values: dict[str, object] = {
        "webhook_id": "wh_1",
        "delivery_id": "dlv_1",
        "event_id": "event-1",
        "event_type": "llm.data-vault.dataset.created",
        "attempt": 3,
        "timestamp_s": TIMESTAMP_S,
        "secrets": [SECRET],
    }
    return dict(sign_headers(body, **(values | changes)))  # type: ignore[arg-type]


class TestGoldenVectors:
    def test_v1_is_the_one_of_the_contract(self) -> None:
        assert sign_v1(SECRET, MESSAGE_ID, TIMESTAMP_S, BODY) == V1

    def test_v1a_is_the_one_of_the_contract(self) -> None:
        assert sign_v1a(KEY, MESSAGE_ID, TIMESTAMP_S, BODY) == V1A

    def test_the_seeds_signature_is_keyed_with_the_text_whsec_included(self) -> None:
        expected = hmac.new(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", BODY, hashlib.sha256).hexdigest()

        assert sign_seed(SECRET, BODY) == f"sha256={expected}"

    def test_no_signature_leaves_anything_behind_for_the_next_one(self) -> None:
        secret = Secret(SECRET.text)
        for body in (b"first", BODY):
            seed, v1 = sign_seed(secret, body), sign_v1(secret, MESSAGE_ID, TIMESTAMP_S, body)

        assert (seed, v1) == (sign_seed(SECRET, BODY), V1)


class TestHeaders:
    def test_they_are_those_of_the_contract_in_this_order(self) -> None:
        headers = signed(traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")

        assert list(headers) == [
            "Content-Type",
            "User-Agent",
            "X-Webhook-Signature",
            "X-Webhook-Id",
            "X-Event-Id",
            "X-Event-Type",
            "X-Delivery-Id",
            "X-Delivery-Attempt",
            "webhook-id",
            "webhook-timestamp",
            "webhook-signature",
            "traceparent",
        ]
        assert headers["Content-Type"] == "application/cloudevents+json; charset=utf-8"
        assert headers["X-Webhook-Signature"] == sign_seed(SECRET, BODY)
        assert headers["X-Webhook-Id"] == "wh_1"
        assert headers["X-Event-Id"] == "event-1"
        assert headers["X-Event-Type"] == "llm.data-vault.dataset.created"
        assert headers["X-Delivery-Id"] == headers["webhook-id"] == "dlv_1"
        assert headers["X-Delivery-Attempt"] == "3"
        assert headers["webhook-timestamp"] == "1614265330"
        assert headers["traceparent"] == "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

    @pytest.mark.parametrize("traceparent", [None, "", "junk", "00-x\r\nX-Evil: 1"])
    def test_a_missing_or_malformed_traceparent_is_left_out(self, traceparent: str | None) -> None:
        assert "traceparent" not in signed(traceparent=traceparent)

    @pytest.mark.parametrize(
        ("event_id", "sent"),
        [
            ("a1-b2:c3/d4", "a1-b2:c3/d4"),
            ("a\r\nX-Evil: 1", "a%0D%0AX-Evil:%201"),
            ("größe", "gr%C3%B6%C3%9Fe"),
            ('100%"', "100%25%22"),
        ],
    )
    def test_an_event_id_that_a_header_cannot_hold_is_percent_encoded(self, event_id: str, sent: str) -> None:
        assert signed(event_id=event_id)["X-Event-Id"] == sent

    def test_without_a_secret_nothing_is_signed(self) -> None:
        with pytest.raises(ValueError, match="at least one valid secret"):
            signed(secrets=[])

    def test_a_delivery_id_with_a_dot_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no dot"):
            signed(delivery_id="dlv.1")


class TestWritten:
    @given(
        st.text(max_size=9),
        st.text(max_size=9),
        st.none() | st.text(max_size=9),
        st.none() | st.text(max_size=9),
        st.integers(0),
    )
    def test_the_lines_are_those_of_the_names_and_values(
        self, webhook_id: str, delivery_id: str, traceparent: str | None, origin: str | None, number: int
    ) -> None:
        headers = SignedHeaders("s", webhook_id, "e", "t", delivery_id, number, number, "v1,x", traceparent, origin)
        written = headers.written()
        if written is None:
            assert set("\r\n\0") & set(f"{webhook_id}{delivery_id}{traceparent}{origin}")
        else:
            expected = head_of("POST", TARGET, tuple(headers), {}, body_bytes=number)
            assert head_with("POST", TARGET, written, body_bytes=number) == expected

    @pytest.mark.parametrize("name", ["webhook_id", "delivery_id", "event_id", "event_type", "traceparent", "origin"])
    @pytest.mark.parametrize("evil", ["a\r\nX-Evil: 1", "a\n", "\ra", "a\0b"])
    def test_none_is_where_a_line_could_end_early(self, name: str, evil: str) -> None:
        ids = {"webhook_id": "wh_1", "delivery_id": "dlv_1", "event_id": "e", "event_type": "t", "traceparent": None}
        headers = SignedHeaders("s", attempt=1, timestamp_s=7, signatures="v1,x", **(ids | {name: evil}))

        assert headers.written() is None


class TestRotation:
    def test_there_is_one_v1_signature_per_valid_secret_newest_first(self) -> None:
        signatures = signed(secrets=[SECRET, OLDER_SECRET])["webhook-signature"].split(" ")

        assert signatures == [
            sign_v1(SECRET, "dlv_1", TIMESTAMP_S, BODY),
            sign_v1(OLDER_SECRET, "dlv_1", TIMESTAMP_S, BODY),
        ]

    def test_the_seeds_header_keeps_to_the_oldest_secret_still_valid(self) -> None:
        assert signed(secrets=[SECRET, OLDER_SECRET])["X-Webhook-Signature"] == sign_seed(OLDER_SECRET, BODY)

    def test_v1a_stands_after_the_v1_signatures(self) -> None:
        signatures = signed(secrets=[SECRET, OLDER_SECRET], signing_key=KEY)["webhook-signature"].split(" ")

        assert [one.partition(",")[0] for one in signatures] == ["v1", "v1", "v1a"]


class TestForeignVerifier:
    @pytest.mark.parametrize("secret", [SECRET, OLDER_SECRET])
    def test_a_standard_webhooks_library_accepts_either_secret_beside_a_v1a_signature(self, secret: Secret) -> None:
        body = '{"name": "größe"}'.encode()
        headers = signed(body, secrets=[SECRET, OLDER_SECRET], signing_key=KEY, timestamp_s=int(time.time()))

        assert standardwebhooks.Webhook(secret.text).verify(body, headers) == {"name": "größe"}

    def test_it_refuses_another_body(self) -> None:
        headers = signed(timestamp_s=int(time.time()))

        with pytest.raises(standardwebhooks.WebhookVerificationError):
            standardwebhooks.Webhook(SECRET.text).verify(BODY + b" ", headers)


class TestSigningKey:
    def test_the_published_half_verifies_v1a(self) -> None:
        jwk = KEY.public_jwk()
        public = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(jwk["x"] + "="))
        signature = base64.b64decode(sign_v1a(KEY, "dlv_1", 7, BODY).removeprefix("v1a,"))

        public.verify(signature, b"dlv_1.7." + BODY)
        with pytest.raises(InvalidSignature):
            public.verify(signature, b"dlv_1.8." + BODY)
        assert (jwk["kty"], jwk["crv"], jwk["alg"], jwk["use"], jwk["kid"]) == (
            "OKP",
            "Ed25519",
            "EdDSA",
            "sig",
            "key-1",
        )

    def test_a_seed_alone_is_the_same_key(self) -> None:
        seed = base64.b64encode(base64.b64decode(KEY_BASE64)[:32]).decode()

        assert SigningKey(f"key-1:whsk_{seed}").public_jwk() == KEY.public_jwk()

    @pytest.mark.parametrize(
        ("entry", "complaint"),
        [
            (KEY_BASE64, "must be <key id>:whsk_<base64>"),
            (f"key-1:{KEY_BASE64}", "must be <key id>:whsk_<base64>"),
            ("key-1:whsk_***", "not base64"),
            ("key-1:whsk_" + base64.b64encode(bytes(33)).decode(), "must hold 32 bytes"),
            ("key-1:whsk_" + base64.b64encode(bytes(64)).decode(), "does not belong to its seed"),
        ],
    )
    def test_a_malformed_key_is_refused_without_being_shown(self, entry: str, complaint: str) -> None:
        with pytest.raises(ValueError, match=complaint) as refused:
            SigningKey(entry)

        assert KEY_BASE64 not in str(refused.value)

    def test_its_repr_shows_the_key_id_only(self) -> None:
        assert repr(KEY) == "SigningKey('key-1')"
