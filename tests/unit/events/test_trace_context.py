import pytest

from app.events import traceparent_of

HOP = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
START = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"


def test_the_header_is_the_last_hop_and_wins_over_where_the_trace_began() -> None:
    headers = [("content-type", b"application/json"), ("traceparent", HOP.encode())]
    assert traceparent_of(headers, {"traceparent": START}) == HOP


def test_without_a_header_the_extension_counts() -> None:
    assert traceparent_of([("ce_traceparent", HOP.encode())], {"traceparent": START}) == START


@pytest.mark.parametrize("header", [b"", None, b"junk", HOP.encode() + b"\xff", HOP.upper().encode()])
def test_a_malformed_header_counts_as_missing(header: bytes | None) -> None:
    assert traceparent_of([("traceparent", header)], {"traceparent": START}) == START


@pytest.mark.parametrize("extension", ["junk", 7, True, HOP + "\n"])
def test_a_malformed_extension_is_none(extension: object) -> None:
    assert traceparent_of((), {"traceparent": extension}) is None
