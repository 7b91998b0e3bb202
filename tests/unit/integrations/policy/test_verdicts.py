"""What the engine answers: an allow is an allow only if it is one to the letter."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.integrations.policy import Obligation, PolicyUnavailable
from app.integrations.policy.verdicts import authzen_verdict, policies, vault_verdict

ANSWER: dict[str, Any] = {
    "allowed": True,
    "reason": "owner",
    "matched_policies": ["p-1"],
    "obligations": [{"action": "mask", "parameters": {"fields": ["ssn"]}}],
}


def encoded(answer: Any) -> bytes:
    return json.dumps(answer).encode()


def test_a_whole_answer_is_read() -> None:
    found = vault_verdict(encoded({**ANSWER, "ttl_s": 5, "evaluated_in_ms": 3}))
    assert (found.allowed, found.reason, found.matched_policies, found.ttl_s) == (True, "owner", ("p-1",), 5)
    assert found.obligations == (Obligation(action="mask", parameters={"fields": ["ssn"]}),)


MALFORMED = [
    *(b"", b"null", b"true", b"[]", b"{}", b"<html>", b'{"allowed":true', b"\xff"),
    *(encoded({name: ANSWER[name] for name in ANSWER if name != gone}) for gone in ANSWER),
    *(encoded({**ANSWER, "allowed": value}) for value in ("true", 1, None, [], {}, "allow")),
    *(encoded({**ANSWER, "reason": value}) for value in (None, 1, [])),
    *(encoded({**ANSWER, "matched_policies": value}) for value in (None, "p-1", [1], {})),
    *(encoded({**ANSWER, "obligations": value}) for value in (None, {}, ["mask"], [{"action": "mask"}])),
    *(encoded({**ANSWER, "obligations": [{"action": 1, "parameters": {}}]}),),
    *(encoded({**ANSWER, "obligations": [{"action": "mask", "parameters": []}]}),),
    *(encoded({**ANSWER, "ttl_s": value}) for value in (-1, "5", True)),
    encoded(ANSWER).replace(b'"allowed": true', b'"allowed": false, "allowed": true'),
    encoded({**ANSWER, "reason": "x" * 300_000}),
]


@pytest.mark.parametrize("body", MALFORMED, ids=lambda body: body[:60].decode(errors="replace"))
def test_anything_else_is_no_decision(body: bytes) -> None:
    with pytest.raises(PolicyUnavailable):
        vault_verdict(body)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_no_value_but_true_is_an_allow(value: Any) -> None:
    if value is True:
        return
    for read, answer in (
        (vault_verdict, {**ANSWER, "allowed": value}),
        (authzen_verdict, {"decision": value}),
    ):
        try:
            assert not read(encoded(answer)).allowed
        except PolicyUnavailable:
            assert value is not False


def test_an_error_shows_no_value() -> None:
    with pytest.raises(PolicyUnavailable) as refused:
        vault_verdict(encoded({**ANSWER, "allowed": "hunter2"}))
    assert "hunter2" not in str(refused.value)


class TestAuthzen:
    def test_a_bare_decision_is_one(self) -> None:
        found = authzen_verdict(b'{"decision":true}')
        assert (found.allowed, found.reason, found.obligations, found.ttl_s) == (True, "", (), None)

    def test_reason_policies_and_obligations_are_in_its_context(self) -> None:
        context = {name: ANSWER[name] for name in ("reason", "matched_policies", "obligations")}
        found = authzen_verdict(encoded({"decision": False, "context": {**context, "ttl_s": 1.5, "step_up": "mfa"}}))
        assert (found.allowed, found.reason, found.matched_policies, found.ttl_s) == (False, "owner", ("p-1",), 1.5)
        assert found.obligations[0].action == "mask"
        assert found.extra == {"step_up": "mfa"}

    def test_a_reason_by_language_is_one(self) -> None:
        context = {"reason_admin": {"403": "C076E82F"}, "reason_user": {"en-403": "Ask an admin"}}
        assert authzen_verdict(encoded({"decision": False, "context": context})).reason == "Ask an admin"

    @pytest.mark.parametrize(
        "answer",
        [
            *({}, {"context": {}}, {"allowed": True}, {"decision": "true"}, {"decision": 1}, {"decision": None}),
            {"decision": True, "context": []},
            {"decision": True, "context": {"error": {"status": 500, "message": "no"}}},
            {"decision": True, "context": {"obligations": ["mask"]}},
            {"decision": True, "context": {"matched_policies": "p-1"}},
            {"decision": True, "context": {"ttl_s": -1}},
            {"result": True},
        ],
    )
    def test_anything_else_is_no_decision(self, answer: Any) -> None:
        with pytest.raises(PolicyUnavailable):
            authzen_verdict(encoded(answer))


def test_a_list_of_policies_is_read_and_nothing_else() -> None:
    assert policies(b'[{"id":"p-1"}]') == [{"id": "p-1"}]
    for body in (b"{}", b'["p-1"]', b"null", b"[", b'{"items":[]}'):
        with pytest.raises(PolicyUnavailable):
            policies(body)
