from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest

from app.webhooks.errors import InvalidField
from app.webhooks.model import Health, Ordering, Standing, WebhookFilter
from app.webhooks.registration import (
    Limits,
    Registration,
    new_webhook_id,
    read_registration,
    show_webhook,
    webhook_id_of,
)
from tests.support.memory_unit import START_MS
from tests.support.webhooks import webhook_row

LIMITS = Limits(max_in_flight=128, signing_key=True)
BODY: dict[str, Any] = {"url": "https://example.com/hook", "events": ["dataset.*"]}
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


def read(limits: Limits = LIMITS, **more: Any) -> Registration:
    return read_registration(BODY | more, limits)


def refusal(body: Any, limits: Limits = LIMITS) -> InvalidField:
    with pytest.raises(InvalidField) as caught:
        read_registration(body, limits)
    return caught.value


class TestReading:
    def test_url_and_events_are_enough_and_all_else_stays_at_its_default(self) -> None:
        changes = read().patch.changes()
        assert len(changes.pop("fingerprint")) == 64
        assert changes == {"url": "https://example.com/hook", "events": ("dataset.*",)}
        assert read().secret is None

    def test_every_field_is_taken_over(self) -> None:
        wanted = read(
            events=["dataset.created", "*"],
            description="for the lake",
            headers={"X-Team": "data"},
            enabled=False,
            secret=SECRET,
            filter={"tenant_id": ["t1"], "data": {"schema.name": ["x", 1, 1.0, True, None]}},
            retry_schedule_s=[0, 5, 2.5],
            timeout_s=5,
            rate_limit_per_s=0.5,
            max_in_flight=128,
            ordering="strict",
            signatures=["v1", "v1a", "v1"],
            handshake=False,
        )
        changes = wanted.patch.changes()
        del changes["fingerprint"]
        assert changes == {
            "url": "https://example.com/hook",
            "events": ("llm.data-vault.dataset.created", "*"),
            "description": "for the lake",
            "headers": {"X-Team": "data"},
            "enabled": False,
            "filter": WebhookFilter(tenant_id=("t1",), data={"schema.name": ("x", 1, 1.0, True, None)}),
            "retry_schedule_s": (0.0, 5.0, 2.5),
            "timeout_s": 5.0,
            "rate_limit_per_s": 0.5,
            "max_in_flight": 128,
            "ordering": Ordering.STRICT,
            "signatures": ("v1", "v1a"),
            "handshake": False,
        }
        assert wanted.secret is not None
        assert wanted.secret.text == SECRET

    @pytest.mark.parametrize("body", [None, [], "url", 5, True])
    def test_a_body_that_is_no_object_is_refused_as_a_whole(self, body: Any) -> None:
        assert refusal(body).field == ""

    @pytest.mark.parametrize("missing", ["url", "events"])
    def test_a_missing_field_is_named(self, missing: str) -> None:
        error = refusal({name: value for name, value in BODY.items() if name != missing})
        assert (error.field, "missing" in error.detail) == (f"/{missing}", True)

    @pytest.mark.parametrize(
        ("name", "pointer"),
        [("colour", "/colour"), ("", "/"), ("a/b~c", "/a~1b~0c"), ("URL", "/URL"), ("id", "/id"), ("état", "/état")],
    )
    def test_an_unknown_field_is_named_by_its_pointer(self, name: str, pointer: str) -> None:
        error = refusal(BODY | {name: 1})
        assert error.field == pointer
        assert "url, events" in error.detail

    @pytest.mark.parametrize(
        ("field", "value", "pointer", "code"),
        [
            ("url", 5, "/url", "invalid_url"),
            ("url", None, "/url", "invalid_url"),
            ("events", "dataset.*", "/events", "invalid_pattern"),
            ("events", [], "/events", "invalid_pattern"),
            ("events", ["*"] * 51, "/events", "invalid_pattern"),
            ("events", ["*", 5], "/events/1", "invalid_pattern"),
            ("events", ["*", "dataset.exploded"], "/events/1", "invalid_pattern"),
            ("events", ["webhook.ping"], "/events/0", "invalid_pattern"),
            ("description", "", "/description", "invalid_field"),
            ("description", "x" * 1025, "/description", "invalid_field"),
            ("description", None, "/description", "invalid_field"),
            ("headers", ["X-A"], "/headers", "invalid_header"),
            ("headers", {"X-A": 5}, "/headers/X-A", "invalid_header"),
            ("headers", {"Host": "x"}, "/headers/Host", "invalid_header"),
            ("headers", {"X-A": "a\r\nHost: b"}, "/headers/X-A", "invalid_header"),
            ("headers", {"a/b": "x"}, "/headers/a~1b", "invalid_header"),
            ("enabled", "yes", "/enabled", "invalid_field"),
            ("enabled", 1, "/enabled", "invalid_field"),
            ("secret", None, "/secret", "invalid_secret"),
            ("secret", 5, "/secret", "invalid_secret"),
            ("secret", "hunter2", "/secret", "invalid_secret"),
            ("secret", "whsec_" + base64.b64encode(bytes(23)).decode(), "/secret", "invalid_secret"),
            ("secret", "whsec_" + base64.b64encode(bytes(65)).decode(), "/secret", "invalid_secret"),
            ("secret", "whsec_é", "/secret", "invalid_secret"),
            ("filter", [], "/filter", "invalid_filter"),
            ("filter", {"region": ["eu"]}, "/filter/region", "invalid_filter"),
            ("filter", {"tenant_id": [1]}, "/filter/tenant_id", "invalid_filter"),
            ("filter", {"data": {"a.b": []}}, "/filter/data/a.b", "invalid_filter"),
            ("filter", {"data": {"a": [[1]]}}, "/filter/data/a", "invalid_filter"),
            ("filter", {"data": {f"p{n}": [1] for n in range(21)}}, "/filter/data", "invalid_filter"),
            ("filter", {"data": {"a": list(range(101))}}, "/filter/data/a", "invalid_filter"),
            ("retry_schedule_s", 5, "/retry_schedule_s", "invalid_schedule"),
            ("retry_schedule_s", [], "/retry_schedule_s", "invalid_schedule"),
            ("retry_schedule_s", [0, "5"], "/retry_schedule_s/1", "invalid_schedule"),
            ("retry_schedule_s", [0, -1], "/retry_schedule_s/1", "invalid_schedule"),
            ("retry_schedule_s", [0, True], "/retry_schedule_s/1", "invalid_schedule"),
            ("retry_schedule_s", [1e300], "/retry_schedule_s/0", "invalid_schedule"),
            ("retry_schedule_s", [float("nan")], "/retry_schedule_s/0", "invalid_schedule"),
            ("timeout_s", 0, "/timeout_s", "invalid_field"),
            ("timeout_s", 61, "/timeout_s", "invalid_field"),
            ("timeout_s", "5", "/timeout_s", "invalid_field"),
            ("timeout_s", True, "/timeout_s", "invalid_field"),
            ("timeout_s", float("nan"), "/timeout_s", "invalid_field"),
            ("timeout_s", 10**400, "/timeout_s", "invalid_field"),
            ("rate_limit_per_s", 0, "/rate_limit_per_s", "invalid_field"),
            ("rate_limit_per_s", float("inf"), "/rate_limit_per_s", "invalid_field"),
            ("max_in_flight", 0, "/max_in_flight", "invalid_field"),
            ("max_in_flight", 129, "/max_in_flight", "invalid_field"),
            ("max_in_flight", 1.0, "/max_in_flight", "invalid_field"),
            ("ordering", "fifo", "/ordering", "invalid_field"),
            ("ordering", ["strict"], "/ordering", "invalid_field"),
            ("signatures", [], "/signatures", "invalid_field"),
            ("signatures", "v1", "/signatures", "invalid_field"),
            ("signatures", ["v1", {}], "/signatures", "invalid_field"),
            ("signatures", ["v1a"], "/signatures", "invalid_field"),
            ("handshake", 1, "/handshake", "invalid_field"),
        ],
    )
    def test_a_bad_field_is_named_by_its_pointer(self, field: str, value: Any, pointer: str, code: str) -> None:
        error = refusal(BODY | {field: value})
        assert (error.field, error.code) == (pointer, code)

    def test_a_signature_that_needs_a_key_is_refused_without_one(self) -> None:
        error = refusal(BODY | {"signatures": ["v1", "v1a"]}, Limits(max_in_flight=128, signing_key=False))
        assert error.field == "/signatures"
        assert "WEBHOOKS__SIGNING_KEYS" in error.detail

    def test_no_refusal_and_no_registration_shows_a_secret(self) -> None:
        token = "Bearer hunter2hunter2"
        assert "hunter2" not in str(refusal(BODY | {"headers": {"Authorization": f"{token}\n"}}))
        assert "hunter2" not in str(refusal(BODY | {"secret": "hunter2"}))
        wanted = read(secret=SECRET, headers={"Authorization": token})
        assert SECRET not in repr(wanted)
        assert token not in repr(wanted)


class TestTheFingerprint:
    def test_is_that_of_the_value_not_of_its_bytes(self) -> None:
        other_order = json.loads('{"events": ["dataset.*"], "url": "https:\\/\\/example.com/hook"}')
        assert read_registration(other_order, LIMITS).patch.fingerprint == read().patch.fingerprint

    def test_tells_other_configurations_apart(self) -> None:
        others = [read(), read(description="x"), read(enabled=False), read(events=["*"]), read(secret=SECRET)]
        assert len({wanted.patch.fingerprint for wanted in others}) == len(others)

    def test_says_nothing_about_a_given_secret(self) -> None:
        other = "whsec_" + base64.b64encode(bytes(24)).decode()
        assert read(secret=SECRET).patch.fingerprint == read(secret=other).patch.fingerprint


class TestIds:
    def test_an_id_is_26_lower_case_base32_digits_of_16_bytes(self) -> None:
        assert webhook_id_of(bytes(16)) == "wh_" + "a" * 26
        assert re.fullmatch(r"wh_[a-z2-7]{26}", webhook_id_of(bytes(range(16))))

    def test_without_an_idempotency_key_it_is_random(self) -> None:
        asked: list[int] = []

        def random_bytes(count: int) -> bytes:
            asked.append(count)
            return bytes(count)

        assert new_webhook_id(None, "ops", random_bytes) == webhook_id_of(bytes(16))
        assert asked == [16]

    def test_with_one_it_is_a_function_of_caller_and_key(self) -> None:
        ids = [new_webhook_id(key, actor, bytes) for actor, key in (("a", "k"), ("b", "k"), ("a", "l"), ("ak", ""))]
        assert len(set(ids)) == len(ids)
        assert new_webhook_id("k", "a", bytes) == ids[0]
        assert all(re.fullmatch(r"wh_[a-z2-7]{26}", id_) for id_ in ids)


class TestShowing:
    def test_a_plain_webhook_is_shown_without_what_it_does_not_have(self) -> None:
        assert show_webhook(webhook_row("wh_a")) == {
            "id": "wh_a",
            "url": "https://wh-a.example.com/hook",
            "events": ["*"],
            "headers": {},
            "enabled": True,
            "ordering": "best_effort",
            "signatures": ["v1"],
            "handshake": False,
            "version": 1,
            "health": "ok",
            "standing": "unknown",
            "created_at": "2025-06-15T15:06:40.000Z",
            "updated_at": "2025-06-15T15:06:40.000Z",
        }

    def test_all_that_it_has_is_shown(self) -> None:
        row = webhook_row(
            description="for the lake",
            filter=WebhookFilter(dataset_id=("d1",), data={"a": (1,)}),
            retry_schedule_s=(0.0, 5.0),
            timeout_s=5.0,
            rate_limit_per_s=2.0,
            max_in_flight=3,
            enabled=False,
            health=Health.DISABLED,
            failing_since_ms=START_MS,
            disabled_at_ms=START_MS,
            disabled_reason="gone",
        )
        shown = json.loads(json.dumps(show_webhook(row)))
        assert shown["filter"] == {"dataset_id": ["d1"], "data": {"a": [1]}}
        assert (shown["retry_schedule_s"], shown["timeout_s"], shown["rate_limit_per_s"]) == ([0, 5], 5, 2)
        assert (shown["max_in_flight"], shown["description"]) == (3, "for the lake")
        assert (shown["enabled"], shown["health"], shown["disabled_reason"]) == (False, "disabled", "gone")
        assert shown["failing_since"] == shown["disabled_at"] == "2025-06-15T15:06:40.000Z"

    @pytest.mark.parametrize(
        ("known", "standing"),
        [
            ({}, "unknown"),
            ({"first_failure_ms": START_MS}, "failing_from_the_start"),
            ({"failing_since_ms": START_MS}, "failing_from_the_start"),
            ({"first_success_ms": START_MS}, "ok"),
            ({"first_success_ms": START_MS, "failing_since_ms": START_MS}, "ok"),
            ({"health": Health.FAILING, "failing_since_ms": START_MS}, "failing"),
            ({"health": Health.FAILING, "failing_since_ms": START_MS, "first_success_ms": START_MS}, "failing"),
            ({"health": Health.DISABLED}, "disabled"),
        ],
    )
    def test_it_stands_well_once_it_has_taken_something(self, known: dict[str, Any], standing: str) -> None:
        assert show_webhook(webhook_row(**known))["standing"] == standing

    def test_every_health_is_a_standing(self) -> None:
        assert {one.value for one in Health} <= {one.value for one in Standing}

    def test_a_secret_is_shown_only_where_it_is_handed_in(self) -> None:
        row = webhook_row()
        assert "secret" not in show_webhook(row)
        assert row.secrets[0].sealed not in json.dumps(show_webhook(row))
        assert show_webhook(row, SECRET)["secret"] == SECRET

    @pytest.mark.parametrize(
        ("name", "value", "masked"),
        [
            ("Authorization", "hunter2", True),
            ("X-Api-Key", "hunter2", True),
            ("x-vault-token", "hunter2", True),
            ("X-Password", "hunter2", True),
            ("X-Session-Id", "hunter2", True),
            ("X-Hub-Signature", "hunter2", True),
            ("X-Forwarded-For", "Bearer hunter2", True),
            ("X-Forwarded-For", "basic aHVudGVyMg==", True),
            ("X-Team", "data", False),
        ],
    )
    def test_the_value_of_a_header_that_looks_like_a_credential_is_masked(
        self, name: str, value: str, masked: bool
    ) -> None:
        assert show_webhook(webhook_row(headers={name: value}))["headers"] == {name: "***" if masked else value}
