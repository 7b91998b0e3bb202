"""The policy engine's stand-in: its rules, and the two dialects that it speaks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from app.devstack.standins import Observations, PolicyEngine, Rule


@pytest.fixture
async def engine() -> AsyncIterator[PolicyEngine]:
    engine = PolicyEngine(Observations())
    await engine.start()
    yield engine
    await engine.stop()


async def call(engine: PolicyEngine, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    options = {} if body is None else {"json": body}
    async with (
        aiohttp.ClientSession(engine.url) as session,
        session.request(method, path, headers=headers, **options) as response,
    ):
        return response.status, await response.json() if response.content_type == "application/json" else None


def question(principal: str, action: str = "read", resource: str = "ds-1", **context: Any) -> dict[str, Any]:
    return {"principal_id": principal, "action": action, "resource_id": resource, "context": context}


def authzen(principal: str, action: str = "read", resource: str = "ds-1", **context: Any) -> dict[str, Any]:
    return {
        "subject": {"type": "principal", "id": principal},
        "action": {"name": action},
        "resource": {"type": "resource", "id": resource},
        "context": context,
    }


async def evaluate(engine: PolicyEngine, *parts: str, **context: Any) -> dict[str, Any]:
    status, answer = await call(engine, "POST", "/api/v1/evaluate/access", question(*parts, **context))
    assert status == 200
    return dict(answer)


async def test_the_first_rule_that_fits_decides(engine: PolicyEngine) -> None:
    engine.rules = [
        Rule(False, principal_id="bob", resource_id="ds-secret*"),
        Rule(True, principal_id="bob", action="read", context={"purpose": "audit"}, ttl_s=5.0),
    ]
    assert (await evaluate(engine, "bob", "read", "ds-secret-1", purpose="audit"))["allowed"] is False
    assert (await evaluate(engine, "bob", "read", "ds-1", purpose="audit"))["ttl_s"] == 5.0
    assert (await evaluate(engine, "bob", "read", "ds-1", purpose="curiosity"))["allowed"] is False
    assert (await evaluate(engine, "bob", "write", "ds-1", purpose="audit"))["reason"] == "no rule fits"


async def test_rules_are_set_from_outside_and_what_is_none_is_refused(engine: PolicyEngine) -> None:
    rules = [{"allowed": True, "principal_id": "eve", "obligations": [{"action": "mask", "parameters": {}}]}]
    assert await call(engine, "PUT", "/rules", rules) == (204, None)
    answer = await evaluate(engine, "eve", "write")
    assert (answer["allowed"], answer["obligations"]) == (True, [{"action": "mask", "parameters": {}}])
    for wrong in ({}, [{}], [{"allowed": "true"}], [{"allowed": True, "user": "x"}], [1]):
        status, told = await call(engine, "PUT", "/rules", wrong)
        assert (status, bool(told["error"])) == (422, True)
    status, shown = await call(engine, "GET", "/rules")
    assert (status, [rule["principal_id"] for rule in shown]) == (200, ["eve"])


async def test_applicable_policies_are_those_of_rules_for_the_resource(engine: PolicyEngine) -> None:
    engine.rules = [
        Rule(True, resource_id="ds/*", matched_policies=("p1",)),
        Rule(False, resource_id="x", matched_policies=("p2",)),
    ]
    status, policies = await call(engine, "GET", "/api/v1/policies/applicable/ds%2F1")
    assert (status, [policy["id"] for policy in policies]) == (200, ["p1"])


@pytest.mark.parametrize("missing", ["principal_id", "action", "resource_id"])
async def test_an_incomplete_question_is_refused_and_named(engine: PolicyEngine, missing: str) -> None:
    asked = question("bob")
    del asked[missing]
    status, told = await call(engine, "POST", "/api/v1/evaluate/access", asked)
    assert status == 422
    assert missing in told["error"]
    assert engine.evaluations == 0


async def test_both_dialects_decide_alike(engine: PolicyEngine) -> None:
    for parts in (("bob", "read"), ("bob", "write"), ("admin-1", "write")):
        plain = await evaluate(engine, *parts)
        status, answer = await call(engine, "POST", "/access/v1/evaluation", authzen(*parts))
        assert (status, answer["decision"]) == (200, plain.pop("allowed"))
        assert answer["context"] == plain


async def test_authzen_echoes_the_id_of_a_request(engine: PolicyEngine) -> None:
    async with (
        aiohttp.ClientSession(engine.url) as session,
        session.post("/access/v1/evaluation", json=authzen("bob"), headers={"X-Request-ID": "r-1"}) as response,
    ):
        assert response.headers["X-Request-ID"] == "r-1"


@pytest.mark.parametrize("missing", ["subject", "action", "resource"])
async def test_an_incomplete_authzen_question_is_400(engine: PolicyEngine, missing: str) -> None:
    asked = authzen("bob")
    del asked[missing]
    status, told = await call(engine, "POST", "/access/v1/evaluation", asked)
    assert status == 400
    assert missing in told["error"]


async def test_a_batch_takes_what_its_questions_have_in_common_and_closes_on_a_broken_one(engine: PolicyEngine) -> None:
    asked = {
        **authzen("bob"),
        "evaluations": [
            {},
            {"action": {"name": "write"}},
            {"subject": {"type": "principal"}},
            {"action": {"name": "read"}},
        ],
    }
    status, answer = await call(engine, "POST", "/access/v1/evaluations", asked)
    assert status == 200
    assert [one["decision"] for one in answer["evaluations"]] == [True, False, False, True]
    assert answer["evaluations"][2]["context"]["error"]["status"] == 400


@pytest.mark.parametrize(
    ("semantic", "decisions"),
    [
        ("execute_all", [True, False, True]),
        ("deny_on_first_deny", [True, False]),
        ("permit_on_first_permit", [True]),
    ],
)
async def test_a_batch_ends_as_its_semantic_says(engine: PolicyEngine, semantic: str, decisions: list[bool]) -> None:
    items = [{"action": {"name": name}} for name in ("read", "write", "read")]
    asked = {**authzen("bob"), "evaluations": items, "options": {"evaluations_semantic": semantic}}
    _, answer = await call(engine, "POST", "/access/v1/evaluations", asked)
    assert [one["decision"] for one in answer["evaluations"]] == decisions


async def test_a_batch_without_a_list_is_one_question(engine: PolicyEngine) -> None:
    _, answer = await call(engine, "POST", "/access/v1/evaluations", authzen("bob"))
    assert answer["decision"] is True


async def test_the_configuration_says_where_to_ask(engine: PolicyEngine) -> None:
    _, told = await call(engine, "GET", "/.well-known/authzen-configuration")
    assert told["policy_decision_point"] == engine.url
    assert told["access_evaluation_endpoint"] == f"{engine.url}/access/v1/evaluation"
