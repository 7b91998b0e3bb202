"""How long a decision is kept, and what the log says of it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from app.events import decode_derived
from app.integrations.policy import (
    Decision,
    Lifetimes,
    Obligation,
    UnreadableDecision,
    Verdict,
    decision_record,
    error_record,
    read_decision,
)
from app.integrations.policy.verdicts import authzen_verdict
from tests.support.memory_unit import START_MS
from tests.support.policy import ALLOW, DENY, decision, question

RICH = Verdict(
    allowed=True,
    reason="owner",
    matched_policies=("p-1",),
    obligations=(Obligation(action="mask", parameters={"fields": ["ssn"]}),),
)
"""All that a record says."""


def written(made: Decision, from_: str = "engine") -> bytes:
    return decision_record(made, id_="d-1", source="/vault-stream/test", from_=from_, at_ms=made.decided_ms)


class TestLifetimes:
    @pytest.mark.parametrize(
        ("verdict", "seconds"),
        [
            (ALLOW, 300),
            (DENY, 30),
            (msgspec.structs.replace(ALLOW, ttl_s=7.5), 7.5),
            (msgspec.structs.replace(ALLOW, ttl_s=9999.0), 300),
            (msgspec.structs.replace(DENY, ttl_s=9999.0), 30),
        ],
    )
    def test_an_allow_a_deny_and_what_the_engine_says_less(self, verdict: Verdict, seconds: float) -> None:
        made = decision(verdict=verdict)
        assert made.expires_ms == START_MS + seconds * 1000

    def test_no_time_at_all_is_not_kept(self) -> None:
        assert decision(verdict=msgspec.structs.replace(ALLOW, ttl_s=0.0)).expires_ms is None
        assert Lifetimes(allow_s=0).decided(question(), ALLOW, START_MS, START_MS).expires_ms is None


class TestRecords:
    def test_say_what_was_asked_and_decided_to_the_letter(self) -> None:
        made = decision(question(ip="10.0.0.1"), RICH)
        event = decode_derived(written(made))
        assert (event.id, event.source, event.type) == (
            "d-1",
            "/vault-stream/test",
            "llm.vault-stream.decision.made",
        )
        assert event.subject == "alice"
        assert event.data == {
            "principal_id": "alice",
            "action": "read",
            "resource_id": "ds-1",
            "context_hash": made.context_hash,
            "cache_key": made.key,
            "allowed": True,
            "reason": "owner",
            "matched_policies": ["p-1"],
            "obligations": [{"action": "mask", "parameters": {"fields": ["ssn"]}}],
            "source": "engine",
            "began_at": "2025-06-15T15:06:40.000Z",
            "expires_at": "2025-06-15T15:11:40.000Z",
        }

    def test_do_not_show_the_context(self) -> None:
        assert b"10.0.0.1" not in written(decision(question(ip="10.0.0.1")))

    def test_do_not_show_what_the_engine_told_of_persons_or_secrets(self) -> None:
        told = authzen_verdict(
            b'{"decision":true,"context":{"reason":"jane@example.com may","input":{"password":"hunter2"},'
            b'"obligations":[{"action":"notify","parameters":{"to":"jane@example.com","api_key":"k-1"}}]}}'
        )
        value = written(decision(verdict=told))
        for hidden in (b"jane@example.com", b"hunter2", b"k-1"):
            assert hidden not in value
        assert json.loads(value)["data"]["reason"] == "[redacted:email] may"

    @pytest.mark.parametrize(
        "binding",
        [
            {"extra": {"step_up": "mfa"}},
            {"obligations": (Obligation(action="notify", parameters={"to": "jane@example.com"}),)},
        ],
    )
    def test_that_leave_out_what_binds_the_caller_make_no_row(self, binding: dict[str, Any]) -> None:
        made = decision(verdict=msgspec.structs.replace(ALLOW, **binding))
        assert made.expires_ms is not None
        assert read_decision(written(made)) is None

    def test_that_leave_out_a_name_in_the_reason_make_one(self) -> None:
        made = decision(verdict=msgspec.structs.replace(DENY, reason="jane@example.com may not"))
        row = read_decision(written(made))
        assert row is not None
        assert (row.verdict.allowed, row.verdict.reason) == (False, "[redacted:email] may not")

    @pytest.mark.parametrize("verdict", [ALLOW, DENY, RICH])
    def test_of_the_engine_give_the_same_decision_again(self, verdict: Verdict) -> None:
        made = decision(verdict=verdict)
        assert read_decision(written(made)) == made

    def test_of_what_was_kept_or_must_not_be_make_no_row(self) -> None:
        made = decision()
        assert read_decision(written(made, "cache")) is None
        assert read_decision(written(msgspec.structs.replace(made, expires_ms=None))) is None

    def test_of_a_question_without_a_decision_make_no_row_and_no_allow(self) -> None:
        value = error_record(
            question(), id_="d-1", source="/s", why="no answer: connect", began_ms=START_MS, at_ms=START_MS
        )
        assert read_decision(value) is None
        data = json.loads(value)["data"]
        assert (data["allowed"], data["source"], data["reason"]) == (False, "error", "no answer: connect")

    @pytest.mark.parametrize(
        "value",
        [
            *(None, b"", b"{", b"[]", b"{}"),
            written(decision()).replace(b"decision.made", b"decision.mode"),
            written(decision()).replace(b'"allowed":true', b'"allowed":1'),
            written(decision()).replace(b"T15:11:40.000Z", b"T35:11:40.000Z"),
        ],
    )
    def test_that_are_none_are_refused(self, value: bytes | None) -> None:
        with pytest.raises(UnreadableDecision):
            read_decision(value)
