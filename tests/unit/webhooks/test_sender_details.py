"""A sender's TLS, its reading of Retry-After, and the custom headers that it takes."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from app.webhooks.errors import InvalidHeader
from app.webhooks.sender import parse_retry_after, validate_headers
from tests.support.certificates import certificate_for
from tests.support.sending import (
    NOW_S,
    answering,
    outgoing,
    receiver,
    sender,
)


class TestTls:
    @pytest.fixture
    def certificate(self, tmp_path: Path) -> Path:
        return certificate_for("localhost", tmp_path)

    @pytest.fixture
    def server_tls(self, certificate: Path) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        return context

    async def test_an_unknown_certificate_is_tls(self, server_tls: ssl.SSLContext) -> None:
        async with receiver(answering(), server_tls) as url, sender() as one:
            outcome = await one.post(outgoing(url.replace("127.0.0.1", "localhost")))

        assert outcome.error == "tls"

    async def test_an_extra_root_makes_it_known(self, server_tls: ssl.SSLContext, certificate: Path) -> None:
        async with receiver(answering(), server_tls) as url, sender(extra_ca_file=certificate) as one:
            outcome = await one.post(outgoing(url.replace("127.0.0.1", "localhost")))

        assert outcome.delivered

    async def test_a_certificate_for_another_name_is_tls(self, server_tls: ssl.SSLContext, certificate: Path) -> None:
        async with receiver(answering(), server_tls) as url, sender(extra_ca_file=certificate) as one:
            outcome = await one.post(outgoing(url))

        assert outcome.error == "tls"

    async def test_a_receiver_that_does_not_speak_tls_is_tls(self) -> None:
        async with receiver(answering()) as url, sender() as one:
            outcome = await one.post(outgoing(url.replace("http:", "https:")))

        assert outcome.error == "tls"


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("value", "asked_s"),
        [
            (None, None),
            ("0", 0),
            ("120", 120),
            (" 120 ", 120),
            ("1.2", 2),
            ("Tue, 14 Nov 2023 22:14:20 GMT", 60),
            ("Tuesday, 14-Nov-23 22:14:20 GMT", 60),
            ("Tue Nov 14 22:14:20 2023", 60),
            ("Tue, 14 Nov 2023 22:13:00 GMT", 0),
            ("", None),
            ("-5", None),
            ("soon", None),
            ("1e9", None),
            ("9" * 5000, None),
            ("nan", None),
            ("Tue, 99 Nov 2023 22:14:20 GMT", None),
            ("Mon, 01 Jan 0001 00:00:00 +2359", 0),
        ],
    )
    def test_seconds_and_dates_are_understood_and_junk_is_ignored(self, value: str | None, asked_s: int | None) -> None:
        assert parse_retry_after(value, NOW_S) == asked_s


class TestCustomHeaders:
    def test_tokens_with_any_text_pass(self) -> None:
        validate_headers(
            {"Authorization": "Bearer x", "X-Team": "größe\t1", "x_odd!#$%&'*+-.^_`|~": "", "Accept": "*/*"}
        )

    @pytest.mark.parametrize(
        "name",
        ["Host", "Content-Type", "content-length", "Transfer-Encoding", "Connection", "TE", "Trailer", "Upgrade",
         "Expect", "Keep-Alive", "Proxy-Authorization", "Cookie", "Webhook-Signature", "X-Webhook-Id", "X-Event-Id",
         "X-Delivery-Attempt", "Ce-Id", "Traceparent", "tracestate", "User-Agent"],
    )  # fmt: skip
    def test_the_reserved_ones_are_refused_in_any_case(self, name: str) -> None:
        for written in (name, name.upper(), name.lower()):
            with pytest.raises(InvalidHeader, match="reserved") as refused:
                validate_headers({written: "x"})
            assert refused.value.field == f"/headers/{written}"

    @pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\n", "ü", "a/b"])
    def test_a_name_must_be_a_token(self, name: str) -> None:
        with pytest.raises(InvalidHeader, match="must be a token"):
            validate_headers({name: "x"})

    @pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\rb", "a\0b", "a\x7f"])
    def test_a_value_must_not_break_the_line_and_is_not_shown(self, value: str) -> None:
        with pytest.raises(InvalidHeader, match="no line break") as refused:
            validate_headers({"X-Team": value})

        assert value not in str(refused.value)

    def test_a_name_twice_in_two_cases_is_refused(self) -> None:
        with pytest.raises(InvalidHeader, match="twice"):
            validate_headers({"X-Team": "a", "x-team": "b"})

    def test_32_headers_of_4096_characters_are_the_most(self) -> None:
        validate_headers({f"X-{n}": "v" * 4096 for n in range(32)})
        with pytest.raises(InvalidHeader, match="at most 32"):
            validate_headers({f"X-{n}": "v" for n in range(33)})
        with pytest.raises(InvalidHeader, match="at most 4096 characters"):
            validate_headers({"X-Team": "v" * 4097})
