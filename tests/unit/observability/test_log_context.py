"""A line says what it was logged for: the request with its trace and its caller, or the trace of the event at work."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any, Final

import pytest

from app.observability.logging import REQUEST_ID, SPAN_ID, TRACE_ID, USER_ID, configure_logging
from app.observability.trace_ids import exemplar_of, ids_of
from app.webhooks.sender import AttemptOutcome, OutgoingRequest
from tests.support.log_restored import logging_restored
from tests.support.serving import TOKENS, VIEWER, serving
from tests.support.webhooks import Desk, webhook_row

TRACE_ID_OF_IT: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN_ID_OF_IT: Final = "00f067aa0ba902b7"
TRACE: Final = f"00-{TRACE_ID_OF_IT}-{SPAN_ID_OF_IT}-01"


@pytest.fixture
def shown() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    with logging_restored():
        configure_logging("json", "info", "stdout", stream=stream)
        yield stream


def lines(stream: io.StringIO, message: str) -> list[dict[str, Any]]:
    for handler in logging.getLogger().handlers:
        handler.flush()
    return [entry for line in stream.getvalue().splitlines() if (entry := json.loads(line))["message"] == message]


async def test_the_line_of_a_request_has_every_field_of_the_contract(shown: io.StringIO) -> None:
    async with serving(TOKENS) as api:
        await api.call("GET", "/v1/things", headers={**VIEWER, "traceparent": TRACE, "X-Request-Id": "r-1"})
        await api.call("GET", "/v1/things", headers=VIEWER)
    first, second = lines(shown, "request")
    assert (first["request_id"], first["trace_id"], first["span_id"]) == ("r-1", TRACE_ID_OF_IT, SPAN_ID_OF_IT)
    assert first["user_id"] == second["user_id"] == "viewer"
    assert first.keys() >= {"timestamp", "level", "message", "target", "thread", "file", "line", "method", "path"}
    assert not second.keys() & {"trace_id", "span_id"}, "the next request of a connection has none of the one before"
    assert second["request_id"] != "r-1"
    assert {variable.get() for variable in (REQUEST_ID, TRACE_ID, SPAN_ID, USER_ID)} == {None}


async def test_an_attempt_has_the_trace_of_its_event_and_no_other_has(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = await Desk().open(webhook_row())
    seen: list[str | None] = []
    post = desk.receiver.post

    async def watched(request: OutgoingRequest) -> AttemptOutcome:
        seen.append(TRACE_ID.get())
        return await post(request)

    monkeypatch.setattr(desk.receiver, "post", watched)
    await desk.deliver(desk.intent("e1", traceparent=TRACE), desk.intent("e2"))
    assert seen == [TRACE_ID_OF_IT, None]
    await desk.context.close(desk.processor)


@pytest.mark.parametrize(
    "given",
    [
        None, "", "00", TRACE + "0", TRACE.upper(), TRACE.replace("00-", "ff-"), f"00-{'0' * 32}-{SPAN_ID_OF_IT}-01",
        f"00-{TRACE_ID_OF_IT}-{'0' * 16}-01", f" {TRACE}", f"{TRACE}\n",
    ],
)  # fmt: skip
def test_what_is_no_trace_context_gives_no_ids(given: str | None) -> None:
    assert ids_of(given) is None
    assert exemplar_of(given) is None


def test_only_a_trace_that_is_kept_is_an_exemplar() -> None:
    assert exemplar_of(TRACE) == {"trace_id": TRACE_ID_OF_IT, "span_id": SPAN_ID_OF_IT}
    assert exemplar_of(TRACE[:-2] + "02") is None
    assert exemplar_of(TRACE[:-2] + "03") is not None
