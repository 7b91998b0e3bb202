"""`asyncapi.yaml` says what is on the topics: it is what the code makes, and what the code writes is what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from app.asyncapi import asyncapi_document
from app.asyncapi.__main__ import asyncapi_yaml
from app.asyncapi.examples import DATA, example_event
from app.events import VaultEventType, check_type, decode_payload, decode_structured, derived_event, record_key
from app.integrations.audit import audit_event
from app.integrations.policy import violation_report
from app.topics import Topics
from app.webhooks.derived import Publisher
from app.webhooks.model import Attempt, AttemptResult, DeliveryRow, Reason, Status

FILE = Path(__file__).parents[2] / "asyncapi.yaml"
INTERNAL = {"webhook.commands", "policy.invalidations", "registry.datasets"}
AT_MS = 1_750_000_000_000
DOCUMENT: dict[str, Any] = json.loads(json.dumps(asyncapi_document()))


def valid(message: str, event: Any) -> None:
    """The event is as the document says."""
    schema = {**DOCUMENT["components"]["messages"][message]["payload"], "components": DOCUMENT["components"]}
    jsonschema.Draft202012Validator(schema).validate(event)


def test_the_file_is_what_the_code_makes() -> None:
    assert FILE.read_text() == asyncapi_yaml(), "run `make asyncapi`"
    assert yaml.safe_load(FILE.read_text()) == DOCUMENT


def test_every_topic_that_others_may_use_is_described() -> None:
    topics = Topics("{prefix}", "app")
    derived = {getattr(topics, name) for name in Topics.__slots__ if name not in ("vault", "prefix", "app_id")}
    derived -= {f"{{prefix}}.{name}" for name in INTERNAL}
    described = {channel["address"] for channel in DOCUMENT["channels"].values()}
    assert described == {*topics.vault, *derived}


@pytest.mark.parametrize("message", sorted(DOCUMENT["components"]["messages"]))
def test_every_example_is_as_its_schema_says(message: str) -> None:
    for example in DOCUMENT["components"]["messages"][message].get("examples", []):
        valid(message, example["payload"])


@pytest.mark.parametrize("type_", VaultEventType)
def test_the_example_of_each_vault_event_is_taken_by_the_reader(type_: VaultEventType) -> None:
    event = decode_structured(json.dumps(example_event(type_)).encode())
    check_type(event)
    decode_payload(event)
    assert record_key(event)
    assert DATA.keys() == set(VaultEventType)


@pytest.mark.parametrize("type_", VaultEventType)
def test_the_schema_refuses_what_the_reader_refuses(type_: VaultEventType) -> None:
    name = "".join(part.capitalize() for part in type_.removeprefix("llm.data-vault.").split("."))
    for missing in ("data", "id", "type"):
        event = {key: value for key, value in example_event(type_).items() if key != missing}
        with pytest.raises(jsonschema.ValidationError):
            valid(name, event)
    with pytest.raises(jsonschema.ValidationError):
        valid(name, {**example_event(type_), "data": {}})
    with pytest.raises(jsonschema.ValidationError):
        valid(name, {**example_event(type_), "type": "llm.data-vault.other"})


def test_what_is_written_to_the_audit_topic_is_as_it_says() -> None:
    for type_ in VaultEventType:
        event = decode_structured(json.dumps(example_event(type_)).encode())
        written = derived_event(
            "audit.recorded",
            id_=event.id,
            source=event.source,
            subject="x",
            time="2026-01-31T23:59:59.123Z",
            data=audit_event(event, AT_MS),
            cause=event,
        )
        valid("AuditRecorded", json.loads(written))


def test_a_violation_is_raised_as_it_says() -> None:
    event = decode_structured(json.dumps(example_event(VaultEventType.POLICY_VIOLATION)).encode())
    raised = derived_event(
        "violation.raised",
        id_=event.id,
        source=event.source,
        subject="ds-7",
        time="2026-01-31T23:59:59.123Z",
        data=violation_report(event, AT_MS),
    )
    valid("ViolationRaised", json.loads(raised))


def test_attempts_and_dead_letters_are_as_it_says() -> None:
    row = DeliveryRow(
        delivery_id="dlv_" + "a" * 26,
        webhook_id="wh_" + "a" * 26,
        event_id="e-1",
        event_source="/vault",
        event_type="llm.data-vault.dataset.created",
        subject="ds-7",
        correlation_id="c",
        traceparent=None,
        origin="vault.events/0/7",
        sequence=7,
        request_id=None,
        status=Status.PENDING,
        created_at_ms=AT_MS,
        waiting_since_ms=AT_MS,
        next_at_ms=None,
        expires_at_ms=AT_MS,
        event_time_ms=None,
        event_expires_ms=None,
        body=b"{}",
    )
    publisher = Publisher("/vault-stream/test", "worker-1")
    for attempt in (
        Attempt(attempt=1, started_ms=AT_MS, duration_ms=3, result=AttemptResult.DELIVERED, status_code=200),
        Attempt(attempt=2, started_ms=AT_MS, duration_ms=3, result=AttemptResult.RETRY, error="dns", next_at_ms=AT_MS),
    ):
        valid("WebhookAttempted", json.loads(publisher.attempted(row, attempt)))
    event = json.dumps(example_event(VaultEventType.DATASET_CREATED)).encode()
    valid("WebhookGivenUp", json.loads(publisher.given_up(row, Reason.EXPIRED, event, AT_MS)))
