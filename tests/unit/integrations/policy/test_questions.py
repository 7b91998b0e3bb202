"""Questions of access, in both dialects."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.integrations.policy import BadQuestion, authzen_question, vault_question
from tests.support.policy import authzen, in_authzen, question

ASKED = {"principal_id": "alice", "action": "read", "resource_id": "ds-1", "context": {"ip": "10.0.0.1"}}
NAMES = st.text(min_size=1, max_size=8)


def test_all_four_fields_are_read_and_context_may_be_left_out() -> None:
    found = vault_question(ASKED)
    assert (found.principal_id, found.action, found.resource_id) == ("alice", "read", "ds-1")
    assert found.context == {"ip": "10.0.0.1"}
    without = vault_question({name: ASKED[name] for name in ("principal_id", "action", "resource_id")})
    assert without.key == vault_question({**ASKED, "context": {}}).key


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (None, ""),
        ([], ""),
        ({}, "/principal_id"),
        ({**ASKED, "principal_id": ""}, "/principal_id"),
        ({**ASKED, "principal_id": 7}, "/principal_id"),
        ({**ASKED, "principal_id": "x" * 1025}, "/principal_id"),
        ({**ASKED, "action": None}, "/action"),
        ({**ASKED, "resource_id": ["ds-1"]}, "/resource_id"),
        ({**ASKED, "context": []}, "/context"),
        ({**ASKED, "context": None}, "/context"),
        ({**ASKED, "context": {"subject_properties": "x"}}, "/context/subject_properties"),
        ({**ASKED, "context": {"subject_properties": None}}, "/context/subject_properties"),
        ({**ASKED, "resource/id~": "ds-1"}, "/resource~1id~0"),
    ],
)
def test_what_is_no_question_is_refused_and_named(asked: Any, field: str) -> None:
    with pytest.raises(BadQuestion) as refused:
        vault_question(asked)
    assert refused.value.field == field


def test_the_key_does_not_depend_on_the_order_of_fields() -> None:
    assert vault_question(dict(reversed(ASKED.items()))).key == vault_question(ASKED).key


def test_b16_what_a_colon_would_join_stays_apart() -> None:
    assert question("a:b", "c").key != question("a", "b:c").key


@given(st.tuples(NAMES, NAMES, NAMES, st.dictionaries(NAMES, NAMES, max_size=2)), st.data())
def test_two_questions_have_one_key_only_if_they_are_the_same(one: tuple[Any, ...], data: st.DataObject) -> None:
    other = data.draw(st.one_of(st.just(one), st.permutations(one[:3]).map(lambda names: (*names, one[3]))))
    first, second = (question(*asked[:3], **asked[3]) for asked in (one, other))
    assert (first.key == second.key) == (tuple(one) == tuple(other))


def test_context_counts() -> None:
    assert question(purpose="audit").key != question(purpose="training").key
    assert question(purpose="audit").context_hash != question().context_hash


def test_authzen_is_read_by_its_ids_and_its_key_is_of_the_whole_request() -> None:
    found = in_authzen(context={"ip": "10.0.0.1"})
    assert (found.principal_id, found.action, found.resource_id) == ("alice", "read", "ds-1")
    assert found.context == {"ip": "10.0.0.1"}
    others = [
        authzen(),
        authzen(context={"ip": "10.0.0.2"}),
        {**authzen(), "subject": {"type": "robot", "id": "alice"}},
        {**authzen(), "action": {"name": "read", "properties": {"method": "GET"}}},
        {**authzen(), "resource": {"type": "dataset", "id": "ds-1", "properties": {"pii": True}}},
    ]
    keys = {authzen_question(asked).key for asked in others} | {found.key, question(ip="10.0.0.1").key}
    assert len(keys) == len(others) + 2


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ([], ""),
        ({}, "/subject"),
        (authzen() | {"subject": {"id": "alice"}}, "/subject/type"),
        (authzen() | {"subject": {"type": "user"}}, "/subject/id"),
        (authzen() | {"subject": "alice"}, "/subject"),
        (authzen() | {"subject": {"type": "user", "id": "alice", "properties": []}}, "/subject/properties"),
        (authzen() | {"action": {"name": ""}}, "/action/name"),
        (authzen() | {"action": {"name": True}}, "/action/name"),
        (authzen() | {"resource": {"type": "dataset", "id": 1}}, "/resource/id"),
        (authzen() | {"context": "x"}, "/context"),
        (authzen(context={"authzen": {"subject": {"type": "admin"}}}), "/context/authzen"),
    ],
)
def test_what_is_no_request_of_authzen_is_refused_and_named(asked: Any, field: str) -> None:
    with pytest.raises(BadQuestion) as refused:
        authzen_question(asked)
    assert refused.value.field == field


def test_authzen_members_that_are_not_known_are_passed_over() -> None:
    assert authzen_question({**authzen(), "tracing": {"id": 1}}).principal_id == "alice"


def test_a_question_shows_no_context() -> None:
    assert "hunter2" not in repr(question(password="hunter2"))


@pytest.mark.parametrize("value", [float("nan"), object(), {1: 2}, "\ud800"])
def test_a_context_that_is_no_json_is_refused(value: Any) -> None:
    with pytest.raises(BadQuestion):
        question(x=value)


def test_nobody_says_in_the_vault_dialect_what_only_authzen_can_say() -> None:
    asked = {"principal_id": "u-1", "action": "read", "resource_id": "ds-1", "context": {"authzen": {"subject": {}}}}
    with pytest.raises(BadQuestion) as refused:
        vault_question(asked)
    assert (refused.value.field, refused.value.code) == ("/context/authzen", "reserved")
