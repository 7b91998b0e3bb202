"""Each attempt whose trace is kept is a span, and what its receiver gets is that span."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from app.webhooks.secrets import Secret
from app.webhooks.sender import AttemptOutcome, OutgoingRequest
from app.webhooks.signing import sign_headers
from app.webhooks.traced_sender import TracedSender
from tests.support.spans import PARENT, PARENT_ID, UNSAMPLED, Spans, attributes, parent_id, traceparent_of_span

BODY = b'{"ssn":"123-45-6789"}'


class Receiver:
    """Takes attempts, and answers with one outcome."""

    def __init__(self, outcome: AttemptOutcome | None = None) -> None:
        self.outcome = outcome
        self.requests: list[OutgoingRequest] = []

    async def post(self, request: OutgoingRequest) -> AttemptOutcome:
        self.requests.append(request)
        if self.outcome is None:
            await asyncio.Event().wait()
            raise AssertionError
        return self.outcome


def attempt(traceparent: str | None, number: int = 1) -> OutgoingRequest:
    headers = sign_headers(
        BODY,
        webhook_id="wh_a",
        delivery_id="dlv_a",
        event_id="e-1",
        event_type="llm.data-vault.dataset.created",
        attempt=number,
        timestamp_s=1_750_000_000,
        secrets=[Secret("whsec_" + "MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDA")],
        traceparent=traceparent,
    )
    return OutgoingRequest(
        "https://hooks.example/services/T0/hush?key=hush", BODY, headers, custom_headers={"Authorization": "hush"}
    )


def sent_header(receiver: Receiver, name: str) -> str | None:
    (request,) = receiver.requests
    return dict(request.protected_headers).get(name)


async def test_an_attempt_is_a_client_span_under_the_intent_and_over_the_receiver() -> None:
    spans, receiver = Spans(), Receiver(AttemptOutcome(3, None, 204))
    outcome = await TracedSender(receiver, spans.tracer).post(attempt(PARENT))
    assert outcome is receiver.outcome
    span = spans.named("POST")
    assert (span.kind, parent_id(span), span.status.status_code) == (SpanKind.CLIENT, PARENT_ID, StatusCode.UNSET)
    assert attributes(span) == {
        "http.request.method": "POST",
        "url.full": "https://hooks.example/REDACTED",
        "server.address": "hooks.example",
        "server.port": 443,
        "http.response.status_code": 204,
        "vault_stream.delivery.id": "dlv_a",
        "vault_stream.webhook.id": "wh_a",
        "cloudevents.event_id": "e-1",
        "cloudevents.event_type": "llm.data-vault.dataset.created",
    }
    assert sent_header(receiver, "traceparent") == traceparent_of_span(span)


async def test_everything_else_goes_out_as_it_was_signed() -> None:
    spans, receiver, asked = Spans(), Receiver(AttemptOutcome(3, None, 204)), attempt(PARENT)
    await TracedSender(receiver, spans.tracer).post(asked)
    (request,) = receiver.requests
    assert (request.url, request.body, request.custom_headers, request.timeout_s) == (
        asked.url,
        asked.body,
        asked.custom_headers,
        asked.timeout_s,
    )
    assert [pair for pair in request.protected_headers if pair[0] != "traceparent"] == [
        pair for pair in asked.protected_headers if pair[0] != "traceparent"
    ]


async def test_only_a_repeated_attempt_says_how_often_it_was_sent_before() -> None:
    spans = Spans()
    for number in (1, 2, 7):
        await TracedSender(Receiver(AttemptOutcome(3, None, 200)), spans.tracer).post(attempt(PARENT, number))
    assert [attributes(span).get("http.request.resend_count") for span in spans.ended] == [None, 1, 6]


@pytest.mark.parametrize(
    ("outcome", "error", "status"),
    [
        (AttemptOutcome(3, "timeout"), "timeout", None),
        (AttemptOutcome(3, "dns"), "dns", None),
        (AttemptOutcome(3, "status_500", 500), "500", 500),
        (AttemptOutcome(3, "status_302", 302), "302", 302),
        (AttemptOutcome(3, "status_410", 410), "410", 410),
    ],
)
async def test_a_failed_attempt_says_how(outcome: AttemptOutcome, error: str, status: int | None) -> None:
    spans = Spans()
    await TracedSender(Receiver(outcome), spans.tracer).post(attempt(PARENT))
    span = spans.named("POST")
    assert span.status.status_code is StatusCode.ERROR
    assert (attributes(span)["error.type"], attributes(span).get("http.response.status_code")) == (error, status)


async def test_an_attempt_that_is_abandoned_is_one_whose_outcome_nobody_knows() -> None:
    spans, receiver = Spans(), Receiver()
    task = asyncio.create_task(TracedSender(receiver, spans.tracer).post(attempt(PARENT)))
    while not receiver.requests:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert attributes(spans.named("POST"))["error.type"] == "outcome_unknown"


@pytest.mark.parametrize("make", [Spans, lambda: Spans(0.0)])
@pytest.mark.parametrize("traceparent", [None, UNSAMPLED])
async def test_what_is_not_kept_goes_out_as_it_came(make: Callable[[], Spans], traceparent: str | None) -> None:
    spans, receiver, asked = make(), Receiver(AttemptOutcome(3, None, 200)), attempt(traceparent)
    await TracedSender(receiver, spans.tracer).post(asked)
    assert receiver.requests == [asked]
    assert receiver.requests[0] is asked
    assert spans.ended == []


async def test_nothing_that_may_be_secret_is_in_a_span() -> None:
    spans = Spans()
    await TracedSender(Receiver(AttemptOutcome(3, "status_500", 500, "hush")), spans.tracer).post(attempt(PARENT))
    shown = repr([attributes(span) for span in spans.ended])
    assert "hush" not in shown
    assert "123-45" not in shown
    assert "v1," not in shown
