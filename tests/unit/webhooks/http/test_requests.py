"""The bytes of a request: nothing in a URL or header becomes another line."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from app.webhooks.errors import WebhookError
from app.webhooks.guard import TargetGuard
from app.webhooks.http import Origin, Proxy, Target, head_of

GUARD = TargetGuard(["0.0.0.0/0", "::/0"], allow_http=True)
HTTPS = Target.of(URL("https://receiver.example/hook?a=1"))


def seen_by_a_server(raw: bytes) -> list[h11.Request]:
    """The requests in these bytes, as a strict server reads them."""
    server = h11.Connection(our_role=h11.SERVER, max_incomplete_event_size=1 << 20)
    server.receive_data(raw)
    server.receive_data(b"")
    found = []
    while not isinstance(event := server.next_event(), h11.ConnectionClosed):
        if isinstance(event, h11.Request):
            found.append(event)
        elif isinstance(event, h11.EndOfMessage):
            server.send(h11.Response(status_code=204, headers=[]))
            server.send(h11.EndOfMessage())
            if server.their_state is h11.MUST_CLOSE:
                break
            server.start_next_cycle()
    return found


class TestTarget:
    @pytest.mark.parametrize(
        ("url", "origin", "host", "path"),
        [
            ("https://a.example", (True, "a.example", 443), "a.example", "/"),
            ("https://a.example:443/", (True, "a.example", 443), "a.example", "/"),
            ("https://a.example:80/x", (True, "a.example", 80), "a.example:80", "/x"),
            ("http://a.example:80/x", (False, "a.example", 80), "a.example", "/x"),
            ("http://A.Example.:8080/x?y=%2B&z", (False, "a.example", 8080), "a.example:8080", "/x?y=%2B&z"),
            ("https://[2606:4700::1]/x", (True, "2606:4700::1", 443), "[2606:4700::1]", "/x"),
            ("https://[2606:4700::1]:8443/x", (True, "2606:4700::1", 8443), "[2606:4700::1]:8443", "/x"),
            ("https://größe.example/ü?ö", (True, "xn--gre-6ka8i.example", 443), "xn--gre-6ka8i.example",
             "/%C3%BC?%C3%B6"),
        ],
    )  # fmt: skip
    def test_it_is_the_url_taken_apart(self, url: str, origin: tuple[bool, str, int], host: str, path: str) -> None:
        assert Target.of(URL(url)) == (origin, f" {path} HTTP/1.1\r\nHost: {host}\r\n")

    def test_a_proxy_is_asked_for_the_whole_url_of_http_and_told_who_asks(self) -> None:
        start = Target.of(URL("http://a.example/x"), through_proxy=True, proxy_authorization="Basic eA==").start

        assert start == " http://a.example/x HTTP/1.1\r\nHost: a.example\r\nProxy-Authorization: Basic eA==\r\n"

    def test_a_receiver_behind_a_tunnel_is_not(self) -> None:
        assert Target.of(URL("https://a.example/x"), through_proxy=True, proxy_authorization="Basic eA==") == Target.of(
            URL("https://a.example/x")
        )

    @given(st.text(max_size=40))
    def test_no_url_that_the_guard_lets_pass_adds_a_line_or_a_word(self, text: str) -> None:
        try:
            url = GUARD.parse("https://a.example/" + text)
        except WebhookError:
            return
        (request,) = seen_by_a_server(head_of("POST", Target.of(url), (), {}, body_bytes=0))

        assert dict(request.headers) == {b"host": b"a.example", b"accept": b"*/*", b"content-length": b"0"}
        assert request.target.startswith(b"/")


class TestProxy:
    @pytest.mark.parametrize(
        ("text", "origin", "authorization"),
        [
            ("http://proxy.example:3128", (False, "proxy.example", 3128), None),
            ("https://proxy.example/", (True, "proxy.example", 443), None),
            ("http://us%40er:p%3Aw@10.0.0.1", (False, "10.0.0.1", 80), "Basic dXNAZXI6cDp3"),
        ],
    )
    def test_its_credentials_are_a_header_that_no_repr_shows(
        self, text: str, origin: tuple[bool, str, int], authorization: str | None
    ) -> None:
        proxy = Proxy.of(text)

        assert (proxy.origin, proxy.authorization) == (Origin(*origin), authorization)
        assert "Basic" not in repr(proxy)


class TestHead:
    def test_it_has_the_fixed_fields_then_the_custom_ones(self) -> None:
        custom = {"X-Team": "größe", "user-AGENT": "custom", "Accept": "text/plain"}

        assert (
            head_of("POST", HTTPS, [("User-Agent", "vault-stream"), ("webhook-id", "1")], custom, body_bytes=7)
            == (
                "POST /hook?a=1 HTTP/1.1\r\nHost: receiver.example\r\nUser-Agent: vault-stream\r\nwebhook-id: 1\r\n"
                "X-Team: größe\r\nAccept: text/plain\r\nContent-Length: 7\r\n\r\n"
            ).encode()
        )

    def test_without_a_body_there_is_no_word_about_one(self) -> None:
        assert b"Content-Length" not in head_of("OPTIONS", HTTPS, [], {}, body_bytes=None)

    @pytest.mark.parametrize("evil", ["a\r\nX-Evil: 1", "a\n", "\ra", "a\0b", "a\r\n\r\nGET / HTTP/1.1"])
    def test_a_line_break_anywhere_is_refused(self, evil: str) -> None:
        for fixed, custom in (([("X-A", evil)], {}), ([(evil, "a")], {}), ([], {"X-A": evil}), ([], {evil: "a"})):
            with pytest.raises(ValueError, match="line break"):
                head_of("POST", HTTPS, fixed, custom, body_bytes=0)

    @given(
        st.lists(st.tuples(st.sampled_from(["X-A", "webhook-id"]), st.text(max_size=20)), max_size=3),
        st.dictionaries(st.sampled_from(["X-B", "x-c", "WEBHOOK-ID"]), st.text(max_size=20), max_size=3),
    )
    def test_a_server_sees_one_request_with_no_other_fields(
        self, fixed: list[tuple[str, str]], custom: dict[str, str]
    ) -> None:
        try:
            head = head_of("POST", HTTPS, fixed, custom, body_bytes=0)
        except ValueError:
            return
        taken = {name.lower() for name, _ in fixed}
        expected = [b"host", *(name.lower().encode() for name, _ in fixed)]
        expected += [name.lower().encode() for name in custom if name.lower() not in taken]
        lines = head.split(b"\r\n")

        assert [line.partition(b":")[0].lower() for line in lines[1:-2]] == [*expected, b"accept", b"content-length"]
        assert lines[-2:] == [b"", b""]
        assert head.count(b"\n") == head.count(b"\r\n") == len(lines) - 1
