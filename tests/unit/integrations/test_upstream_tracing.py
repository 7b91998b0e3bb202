"""The trace context of one event goes on with the call that it causes, and nothing else does."""

from __future__ import annotations

import pytest

from app.integrations.upstream import trace_headers

PARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


def test_both_headers_go_on() -> None:
    extensions = {"traceparent": PARENT, "tracestate": "vendor=1, other=2", "correlationid": "c"}
    assert trace_headers(extensions) == {"traceparent": PARENT, "tracestate": "vendor=1, other=2"}


def test_an_event_without_a_trace_has_no_headers() -> None:
    assert trace_headers({"tracestate": "vendor=1"}) == {}


@pytest.mark.parametrize("parent", ["", "00-1-2-01", PARENT + "\r\nX-Evil: 1", PARENT + "\n", PARENT.upper(), 7, True])
def test_what_is_malformed_is_left_out(parent: object) -> None:
    assert trace_headers({"traceparent": parent}) == {}


@pytest.mark.parametrize("state", ["", "a=1\r\nX-Evil: 1", "größe=1", "x" * 513, 7])
def test_a_malformed_state_is_left_out_alone(state: object) -> None:
    assert trace_headers({"traceparent": PARENT, "tracestate": state}) == {"traceparent": PARENT}
