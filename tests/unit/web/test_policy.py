"""Questions of access over HTTP: both dialects, batches, invalidations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from app.engine import OutputFailed
from app.integrations.policy import (
    Dialect,
    Evaluator,
    Lifetimes,
    PolicyEngine,
    PolicyUnavailable,
    Question,
    Verdict,
)
from app.web.policy import PolicyApi, policy_routes
from app.web.policy_owners import BEGAN_HEADER
from tests.support.listening import ADMIN, TOKENS, VIEWER, Caller, listening
from tests.support.memory_unit import START_MS, FakeClock
from tests.support.policy import (
    ASKED,
    RICH,
    Engine,
    Invalidated,
    Log,
    authzen,
    by_action,
    is_unavailable,
    policy_api,
)
from tests.support.scripted_upstream import ScriptedUpstream


def but_not_x(question: Question) -> Verdict:
    if question.action == "x":
        raise PolicyUnavailable("gone")
    return RICH


@dataclass
class Service:
    """The routes, with an engine that a test plays."""

    engine: Engine = field(default_factory=lambda: Engine(by_action))
    log: Log = field(default_factory=Log)
    invalidated: Invalidated = field(default_factory=Invalidated)

    @asynccontextmanager
    async def calls(self, tokens: Any = None) -> AsyncIterator[Caller]:
        api = policy_api(self.invalidated, self.engine, log=self.log)
        async with listening(policy_routes(api), tokens) as caller:
            yield caller


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
async def api(service: Service) -> AsyncIterator[Caller]:
    async with service.calls() as caller:
        yield caller


class TestEvaluate:
    async def test_answers_to_the_letter(self, api: Caller) -> None:
        answer = await api.call("POST", "/v1/policy/evaluate", ASKED)
        assert answer.status == 200
        assert answer.document.pop("decision_id")
        assert answer.document == {
            "allowed": True,
            "reason": "owner",
            "matched_policies": ["p-1"],
            "obligations": [{"action": "mask", "parameters": {"fields": ["ssn"]}}],
            "source": "engine",
            "decided_at": "2025-06-15T15:06:40.000Z",
            # Nothing is kept here.
            "expires_at": "2025-06-15T15:06:40.000Z",
        }
        assert answer.headers[BEGAN_HEADER] == str(START_MS)

    async def test_a_deny_is_200(self, api: Caller) -> None:
        answer = await api.call("POST", "/v1/policy/evaluate", ASKED | {"action": "delete"})
        assert (answer.status, answer.document["allowed"]) == (200, False)

    async def test_without_the_engine_it_is_503_and_written_down(self, service: Service, api: Caller) -> None:
        service.engine.down = True
        answer = await api.call("POST", "/v1/policy/evaluate", ASKED)
        assert is_unavailable(answer)
        assert "setting" not in answer.document
        assert service.log.failed_ == ["no answer: connect"]

    async def test_without_an_endpoint_it_is_503_and_says_what_to_set(self) -> None:
        off = PolicyApi(None, None, Invalidated(), Invalidated.topic, "http://w")
        async with listening(policy_routes(off)) as caller:
            for method, path, body in (
                ("POST", "/v1/policy/evaluate", ASKED),
                ("POST", "/v1/policy/evaluate/batch", {"requests": [ASKED]}),
                ("GET", "/v1/policy/applicable?resource=ds-1", None),
                ("POST", "/access/v1/evaluation", authzen()),
            ):
                answer = await caller.call(method, path, body)
                assert is_unavailable(answer)
                assert ("access is denied" in answer.document["detail"]) is (method == "POST")
                assert answer.document["setting"] == "VAULT_STREAM_POLICY__ENDPOINT"
                assert "set VAULT_STREAM_POLICY__ENDPOINT" in answer.document["detail"]
                assert "try again" not in answer.document["detail"]

    @pytest.mark.parametrize(
        ("body", "fields"),
        [
            ({}, ["/principal_id"]),
            (ASKED | {"action": 1}, ["/action"]),
            (ASKED | {"colour": "red"}, ["/colour"]),
            ([], [""]),
        ],
    )
    async def test_a_bad_question_is_422_and_asks_nobody(
        self, service: Service, api: Caller, body: Any, fields: list[str]
    ) -> None:
        answer = await api.call("POST", "/v1/policy/evaluate", body)
        assert (answer.code, answer.fields) == ((422, "invalid_field"), fields)
        assert service.engine.asked == []

    async def test_a_batch_is_answered_in_order(self, api: Caller) -> None:
        requests = [ASKED | {"action": action} for action in ("read", "delete", "read")]
        answer = await api.call("POST", "/v1/policy/evaluate/batch", {"requests": requests})
        assert [item["allowed"] for item in answer.document["items"]] == [True, False, True]

    async def test_a_batch_without_one_of_its_decisions_has_none(self, service: Service, api: Caller) -> None:
        service.engine.judge = but_not_x
        requests = [ASKED, ASKED | {"action": "x"}]
        assert is_unavailable(await api.call("POST", "/v1/policy/evaluate/batch", {"requests": requests}))

    @pytest.mark.parametrize(
        ("body", "fields"),
        [
            ({}, ["/requests"]),
            ({"requests": []}, ["/requests"]),
            ({"requests": [ASKED] * 101}, ["/requests"]),
            ({"requests": [ASKED, {**ASKED, "action": ""}]}, ["/requests/1/action"]),
            ({"requests": [ASKED], "x": 1}, ["/x"]),
        ],
    )
    async def test_a_bad_batch_is_422_and_names_the_place(self, api: Caller, body: Any, fields: list[str]) -> None:
        answer = await api.call("POST", "/v1/policy/evaluate/batch", body)
        assert (answer.code, answer.fields) == ((422, "invalid_field"), fields)

    async def test_the_policies_of_a_resource_are_listed(self, api: Caller) -> None:
        answer = await api.get("/v1/policy/applicable?resource=ds-1")
        assert answer.document == {"items": [{"id": "p-1"}], "next_cursor": None}
        for query in ("", "?resource=", "?resource=..", "?resource=.", f"?resource={'x' * 1025}"):
            assert (await api.get(f"/v1/policy/applicable{query}")).code == (422, "invalid_query")


class TestInvalidate:
    @pytest.mark.parametrize(
        ("body", "scope"),
        [({"principal_id": "alice"}, "p:alice"), ({"resource_id": "ds-1"}, "r:ds-1"), ({"all": True}, "*")],
    )
    async def test_a_principal_a_resource_or_everything(
        self, service: Service, api: Caller, body: Any, scope: str
    ) -> None:
        answer = await api.call("POST", "/v1/policy/invalidate", body)
        assert (answer.status, answer.document) == (200, {"scope": scope})
        assert service.invalidated.scopes == [scope]

    @pytest.mark.parametrize(
        "body",
        [
            *({}, [], {"all": False}, {"all": 1}, {"principal_id": ""}, {"principal_id": 1}, {"x": 1}),
            {"principal_id": "alice", "resource_id": "ds-1"},
            {"resource_id": "x" * 1025},
        ],
    )
    async def test_anything_else_is_422(self, service: Service, api: Caller, body: Any) -> None:
        assert (await api.call("POST", "/v1/policy/invalidate", body)).code == (422, "invalid_field")
        assert service.invalidated.scopes == []

    async def test_what_the_broker_does_not_take_is_503(self, service: Service, api: Caller) -> None:
        service.invalidated.failure = OutputFailed("away")
        answer = await api.call("POST", "/v1/policy/invalidate", {"all": True})
        assert answer.code == (503, "broker_unavailable")


class TestAuthzen:
    async def test_an_evaluation_is_answered_with_what_the_engine_said(self, api: Caller) -> None:
        answer = await api.call("POST", "/access/v1/evaluation", authzen(), headers={"X-Request-ID": "r-1"})
        assert (answer.status, answer.document["decision"]) == (200, True)
        context = answer.document["context"]
        assert (context["reason"], context["step_up"], context["matched_policies"]) == ("owner", "mfa", ["p-1"])
        assert answer.headers["X-Request-ID"] == "r-1"

    @pytest.mark.parametrize("body", [[], {}, authzen() | {"subject": {"id": "alice"}}, authzen() | {"action": {}}])
    async def test_a_bad_request_is_400(self, api: Caller, body: Any) -> None:
        assert (await api.call("POST", "/access/v1/evaluation", body)).code == (400, "invalid_field")

    async def test_without_the_engine_it_is_503(self, service: Service, api: Caller) -> None:
        service.engine.down = True
        assert is_unavailable(await api.call("POST", "/access/v1/evaluation", authzen()))

    async def test_several_take_what_they_have_not_from_the_whole(self, service: Service, api: Caller) -> None:
        body = {
            **authzen(),
            "evaluations": [{}, {"action": {"name": "delete"}}, {"resource": {"type": "d", "id": "x"}}],
        }
        answer = await api.call("POST", "/access/v1/evaluations", body)
        assert [item["decision"] for item in answer.document["evaluations"]] == [True, False, True]
        assert {question.resource_id for question in service.engine.asked} == {"ds-1", "x"}

    @pytest.mark.parametrize(
        ("semantic", "actions", "decisions"),
        [
            ("execute_all", "read delete read", [True, False, True]),
            ("deny_on_first_deny", "read delete read", [True, False]),
            ("permit_on_first_permit", "delete read read", [False, True]),
        ],
    )
    async def test_as_many_are_asked_as_the_semantic_says(
        self, service: Service, api: Caller, semantic: str, actions: str, decisions: list[bool]
    ) -> None:
        items = [{"action": {"name": action}, "context": {"n": n}} for n, action in enumerate(actions.split())]
        body = {**authzen(), "evaluations": items, "options": {"evaluations_semantic": semantic}}
        answer = await api.call("POST", "/access/v1/evaluations", body)
        assert [item["decision"] for item in answer.document["evaluations"]] == decisions
        assert len(service.engine.asked) == len(decisions)

    async def test_what_goes_wrong_with_one_denies_that_one(self, service: Service, api: Caller) -> None:
        service.engine.judge = but_not_x
        body = {**authzen(), "evaluations": [{}, {"action": {"name": "x"}}, {"action": {}}, 7]}
        found = (await api.call("POST", "/access/v1/evaluations", body)).document["evaluations"]
        assert [item["decision"] for item in found] == [True, False, False, False]
        assert [item["context"]["error"]["status"] for item in found[1:]] == [503, 400, 400]

    async def test_without_any_it_is_one_evaluation(self, api: Caller) -> None:
        for body in (authzen(), authzen(evaluations=[])):
            assert (await api.call("POST", "/access/v1/evaluations", body)).document["decision"] is True

    @pytest.mark.parametrize(
        "more",
        [
            *({"evaluations": value} for value in (None, {}, {"a": 1}, "", "x", 0, 1, False, [{}] * 101)),
            {"evaluations": [{}], "subject": "alice"},
            {"evaluations": [{}], "options": None},
            {"evaluations": [{}], "options": {"evaluations_semantic": "any"}},
            {"evaluations": [{}], "options": []},
        ],
    )
    async def test_what_is_no_batch_is_400(self, api: Caller, more: Any) -> None:
        answer = await api.call("POST", "/access/v1/evaluations", authzen() | more)
        assert answer.code == (400, "invalid_field")

    async def test_it_can_be_discovered(self, api: Caller) -> None:
        assert (await api.get("/.well-known/authzen-configuration")).document == {
            "policy_decision_point": "http://worker-1",
            "access_evaluation_endpoint": "http://worker-1/access/v1/evaluation",
            "access_evaluations_endpoint": "http://worker-1/access/v1/evaluations",
        }


async def test_a_viewer_may_ask_and_only_an_admin_invalidate(service: Service) -> None:
    async with service.calls(TOKENS) as api:
        assert (await api.call("POST", "/v1/policy/evaluate", ASKED, headers=VIEWER)).status == 200
        assert (await api.call("POST", "/access/v1/evaluation", authzen(), headers=VIEWER)).status == 200
        assert (await api.call("POST", "/v1/policy/invalidate", {"all": True}, headers=VIEWER)).status == 403
        assert (await api.call("POST", "/v1/policy/invalidate", {"all": True}, headers=ADMIN)).status == 200
        assert (await api.get("/.well-known/authzen-configuration")).status == 200


async def test_a_question_carries_the_trace_of_whoever_asks_and_of_nobody_else() -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    upstream = ScriptedUpstream(body=lambda _: b'{"allowed":true,"reason":"","matched_policies":[],"obligations":[]}')
    engine = PolicyEngine(upstream, Dialect())
    evaluator = Evaluator(engine, Lifetimes(), FakeClock(), records=Log())
    api = PolicyApi(evaluator, engine, Invalidated(), Invalidated.topic, "http://worker-1")
    async with listening(policy_routes(api)) as caller:
        for number, headers in enumerate(({"traceparent": trace}, {}, {"traceparent": "junk"})):
            asked = {**ASKED, "context": {"number": number}}
            assert (await caller.call("POST", "/v1/policy/evaluate", asked, headers=headers)).status == 200

    assert [call.headers.get("traceparent") for call in upstream.calls] == [trace, None, None]
