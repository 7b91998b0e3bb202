"""Events over HTTP: every mode of the binding, each event answered for itself, and only for what the broker has."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from app.engine import Message, OutputFailed, OutputTooLarge
from app.web.events import EventsApi, event_routes
from app.web.openapi import AREAS, openapi_document
from tests.support.listening import ADMIN, TOKENS, VIEWER, Answer, Caller, listening

TYPE = "llm.data-vault.dataset.created"
TOPIC = "vault.llm-data-vault-dataset-created"
EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "e-1",
    "source": "/vault",
    "type": TYPE,
    "data": {"dataset_id": "ds-1", "name": "x"},
}
STRUCTURED = {"Content-Type": "application/cloudevents+json"}
BATCH = {"Content-Type": "application/cloudevents-batch+json; charset=utf-8"}
BINARY = {
    "Content-Type": "application/json",
    "ce-specversion": "1.0",
    "ce-id": "e-1",
    "ce-source": "/vault",
    "CE-Type": TYPE,
    "ce-tenantid": "t%C3%A9n%20ant",
}


@dataclass
class Broker:
    """Takes everything but the events that it is told to refuse."""

    refuses: dict[str, OutputFailed] = field(default_factory=dict)
    taken: list[Message] = field(default_factory=list)

    async def send_each(self, messages: Sequence[Message]) -> list[OutputFailed | None]:
        outcomes = [self.refuses.get(json.loads(message.value or b"")["id"]) for message in messages]
        self.taken += [m for m, outcome in zip(messages, outcomes, strict=True) if outcome is None]
        return outcomes


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
async def api(broker: Broker) -> AsyncIterator[Caller]:
    async with listening(event_routes(EventsApi(broker, "vault", "per_type")), TOKENS) as caller:
        yield caller


async def post(api: Caller, body: Any, headers: dict[str, str], who: dict[str, str] = ADMIN) -> Answer:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await api.call("POST", "/v1/events", data=raw, headers={**who, **headers})


def numbered(count: int, **changes: Any) -> list[dict[str, Any]]:
    return [{**EVENT, "id": f"e-{number}", "subject": "ds-1", **changes} for number in range(count)]


@pytest.mark.parametrize("headers", [STRUCTURED, {"Content-Type": "application/json"}], ids=["structured", "json"])
async def test_a_structured_event_goes_to_the_topic_of_its_type_under_the_key_of_its_subject(
    api: Caller, broker: Broker, headers: dict[str, str]
) -> None:
    body = json.dumps({**EVENT, "subject": "ds-9"}).encode() + b" "
    answer = await post(api, body, headers)

    assert (answer.status, answer.document) == (202, {"accepted": 1, "errors": []})
    (sent,) = broker.taken
    assert (sent.topic, sent.key, sent.value) == (TOPIC, b"ds-9", body)
    assert list(sent.headers) == [("content-type", b"application/cloudevents+json; charset=utf-8")]


async def test_a_binary_event_is_its_headers_and_its_body(api: Caller, broker: Broker) -> None:
    answer = await post(api, EVENT["data"], BINARY)

    assert answer.status == 202
    published = json.loads(broker.taken[0].value or b"")
    assert published["tenantid"] == "tén ant"
    assert published["data"] == EVENT["data"]
    assert (published["id"], published["type"], published["datacontenttype"]) == ("e-1", TYPE, "application/json")


async def test_the_trace_of_the_request_is_the_last_hop_of_each_event_and_changes_none(
    api: Caller, broker: Broker
) -> None:
    start, hop = (f"00-0af7651916cd43dd8448eb211c80319c-{span}-01" for span in ("00f067aa0ba902b7", "b7ad6b7169203331"))
    await post(api, numbered(2, traceparent=start), {**BATCH, "traceparent": hop})
    await post(api, numbered(1), {**BATCH, "traceparent": "junk"})

    assert [dict(sent.headers).get("traceparent") for sent in broker.taken] == [hop.encode(), hop.encode(), None]
    assert [json.loads(sent.value or b"").get("traceparent") for sent in broker.taken] == [start, start, None]


async def test_an_event_without_a_subject_gets_that_of_its_data_as_from_a_publisher(
    api: Caller, broker: Broker
) -> None:
    await post(api, EVENT, STRUCTURED)
    assert broker.taken[0].key == b"ds-1"
    assert json.loads(broker.taken[0].value or b"")["subject"] == "ds-1"


@pytest.mark.parametrize("headers", [BATCH, {"Content-Type": "application/json"}], ids=["batch", "json"])
async def test_a_batch_keeps_its_order_and_each_event_is_answered_for_itself(
    api: Caller, broker: Broker, headers: dict[str, str]
) -> None:
    events = numbered(5)
    events[1]["type"] = "llm.data-vault.dataset.exploded"
    events[3] = {**events[3], "data": {"name": "x"}}
    broker.refuses["e-4"] = OutputFailed("no")
    answer = await post(api, events, headers)

    assert answer.status == 202
    assert answer.document["accepted"] == 2
    assert [(e["index"], e["id"], e["code"]) for e in answer.document["errors"]] == [
        (1, "e-1", "unknown_type"),
        (3, "e-3", "invalid_data"),
        (4, "e-4", "not_acknowledged"),
    ]
    assert [json.loads(m.value or b"")["id"] for m in broker.taken] == ["e-0", "e-2"]


async def test_what_the_broker_has_not_acknowledged_is_never_202(api: Caller, broker: Broker) -> None:
    broker.refuses["e-1"] = OutputFailed("no")
    answer = await post(api, EVENT, STRUCTURED)

    assert answer.code == (503, "broker_unavailable")
    assert answer.headers["Retry-After"]
    assert answer.fields == [""]


async def test_a_refused_event_is_the_same_object_whatever_the_status(api: Caller, broker: Broker) -> None:
    wrong = {**EVENT, "id": "e-9", "data": {"name": "x"}}
    unread = {**EVENT, "id": "e-8"}
    broker.refuses["e-8"] = OutputFailed("no")
    some = await post(api, [EVENT, wrong, unread], BATCH)
    none = await post(api, [42, wrong], BATCH)
    unacknowledged = await post(api, [unread, wrong], BATCH)
    alone = await post(api, wrong, STRUCTURED)

    assert [answer.status for answer in (some, none, unacknowledged, alone)] == [202, 422, 503, 422]
    assert [error["id"] for error in none.document["errors"]] == [None, "e-9"]
    told = [next(e for e in a.document["errors"] if e["id"] == "e-9") for a in (some, none, unacknowledged, alone)]
    assert [(error["index"], error["field"]) for error in told] == [(1, "/1"), (1, "/1"), (1, "/1"), (0, "")]
    assert all({**error, "index": 1, "field": "/1"} == told[0] for error in told)
    described = openapi_document(AREAS)
    assert set(told[0]) == set(described["components"]["schemas"]["RefusedEvent"]["required"])
    for answer in (some, none, unacknowledged, alone):
        (content,) = described["paths"]["/v1/events"]["post"]["responses"][str(answer.status)]["content"].values()
        Draft202012Validator({**content["schema"], "components": described["components"]}).validate(answer.document)


async def test_a_parameter_that_is_not_known_is_no_event_that_was_refused(api: Caller, broker: Broker) -> None:
    answer = await api.call("POST", "/v1/events?x=1", data=json.dumps([EVENT]).encode(), headers={**ADMIN, **BATCH})
    assert (answer.code, answer.fields) == ((422, "invalid_query"), ["x"])
    assert set(answer.document["errors"][0]) == {"field", "code", "message"}
    assert broker.taken == []


async def test_an_event_that_its_topic_does_not_take_says_so(api: Caller, broker: Broker) -> None:
    broker.refuses["e-1"] = OutputTooLarge(TOPIC, 0)
    assert (await post(api, EVENT, STRUCTURED)).code == (422, "too_large")


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"id": ""}, "invalid_envelope", "/id"),
        ({"type": "llm.data-vault.dataset.exploded"}, "unknown_type", "/type"),
        # What vault-stream says itself, nobody says in its place.
        ({"type": "llm.data-vault.webhook.disabled", "data": {"webhook_id": "wh_a"}}, "unknown_type", "/type"),
        ({"data": {"name": "x"}}, "invalid_data", ""),
        ({"data": {"dataset_id": "ds-1", "name": "x" * 300_000}}, "too_large", ""),
    ],
)
async def test_what_the_router_would_quarantine_is_refused_with_its_reason(
    api: Caller, broker: Broker, changes: dict[str, Any], code: str, field: str
) -> None:
    one = await post(api, {**EVENT, **changes}, STRUCTURED)
    assert one.code == (422, code)
    assert one.fields == [field]

    several = await post(api, [{**EVENT, **changes}], BATCH)
    assert several.code == (422, code)
    assert several.fields == [f"/0{field}"]
    assert broker.taken == []


async def test_of_a_binary_event_no_attribute_is_looked_for_in_the_body(api: Caller) -> None:
    refused = await post(api, EVENT["data"], {**BINARY, "ce-id": ""})
    assert (refused.code, refused.fields) == ((422, "invalid_envelope"), [""])
    unknown = await post(api, EVENT["data"], {**BINARY, "ce-type": "llm.data-vault.dataset.exploded"})
    assert (unknown.code, unknown.fields) == ((422, "unknown_type"), [""])


@pytest.mark.parametrize(
    ("body", "headers", "code"),
    [
        (b"{", BATCH, (400, "invalid_json")),
        (b"[]", BATCH, (400, "invalid_json")),
        (b"{}", BATCH, (400, "invalid_json")),
        (b'[{"id":1,"id":2}]', BATCH, (400, "invalid_json")),
        (b"", STRUCTURED, (422, "invalid_envelope")),
        (b"nonsense", STRUCTURED, (422, "invalid_envelope")),
        (b"[1, null, []]", BATCH, (422, "invalid_envelope")),
        (b"not json", BINARY, (422, "invalid_data")),
        (b"x", {"Content-Type": "text/plain", "ce-specversion": "1.0"}, (415, "unsupported_media_type")),
    ],
)
async def test_what_cannot_be_read_is_refused_whole(
    api: Caller, broker: Broker, body: bytes, headers: dict[str, str], code: tuple[int, str]
) -> None:
    assert (await post(api, body, headers)).code == code
    assert broker.taken == []


async def test_a_body_that_is_no_event_is_told_how_one_is_sent(api: Caller) -> None:
    answer = await post(api, b"{}", {"Content-Type": "text/plain"})
    for named in ("application/cloudevents+json", "application/cloudevents-batch+json", "ce-"):
        assert named in answer.document["detail"]
    assert answer.headers["Accept-Post"].split(", ")[:2] == [
        "application/cloudevents+json",
        "application/cloudevents-batch+json",
    ]


async def test_a_batch_of_more_than_a_thousand_is_refused(api: Caller, broker: Broker) -> None:
    answer = await post(api, numbered(1001), BATCH)
    assert answer.code == (413, "too_large")
    assert broker.taken == []
    assert (await post(api, numbered(1000), BATCH)).document == {"accepted": 1000, "errors": []}


async def test_a_viewer_publishes_nothing(api: Caller, broker: Broker) -> None:
    assert (await post(api, EVENT, STRUCTURED, VIEWER)).status == 403
    assert broker.taken == []


async def test_with_one_topic_for_all_types_events_go_there(broker: Broker) -> None:
    async with listening(event_routes(EventsApi(broker, "vault", "single")), TOKENS) as caller:
        await post(caller, EVENT, STRUCTURED)
    assert broker.taken[0].topic == "vault.events"
