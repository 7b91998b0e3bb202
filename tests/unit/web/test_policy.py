"""Questions of access over HTTP: both dialects, batches, and the hop to the owner of the principal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from app.engine import OutputFailed
from app.integrations.policy import (
    Decision,
    Dialect,
    Evaluator,
    Invalidations,
    Lifetimes,
    Obligation,
    PolicyEngine,
    PolicyUnavailable,
    Question,
    Verdict,
)
from app.observability import metrics
from app.web import forward
from app.web.forward import Forwarder
from app.web.policy import PolicyApi, policy_routes
from app.web.policy_owners import BEGAN_HEADER, OwnedDecisions
from tables.decisions import DecisionReaders
from tests.support.listening import ADMIN, TOKENS, VIEWER, Answer, Caller, listening
from tests.support.memory_unit import START_MS, FakeClock
from tests.support.policy import DENY, Engine, Invalidated, Log, authzen, policy_api
from tests.support.scripted_upstream import ScriptedUpstream

ASKED = {"principal_id": "alice", "action": "read", "resource_id": "ds-1", "context": {"ip": "10.0.0.1"}}
RICH = Verdict(
    allowed=True,
    reason="owner",
    matched_policies=("p-1",),
    obligations=(Obligation(action="mask", parameters={"fields": ["ssn"]}),),
    extra={"step_up": "mfa"},
)


def by_action(question: Question) -> Verdict:
    return RICH if question.action == "read" else DENY


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


def is_unavailable(answer: Answer) -> bool:
    assert answer.code == (503, "policy_unavailable")
    assert answer.headers["Retry-After"]
    return "allowed" not in answer.document and "decision" not in answer.document


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


# -- two workers


@dataclass(frozen=True)
class Peer:
    name: str
    url: str


class Assignment:
    """One number; it is that worker's."""

    def __init__(self, mine: bool, owner: Peer | None) -> None:
        self.mine, self.peer = mine, owner
        self.count = 1

    def number_of(self, key: bytes) -> int:
        return 0

    def is_mine(self, number: int) -> bool:
        return self.mine

    def owner(self, number: int) -> Peer | None:
        return self.peer


class Rows:
    """The owner's table."""

    def __init__(self) -> None:
        self.rows: dict[str, Decision] = {}

    async def read(self, principal_id: str, key: str) -> Decision | None:
        return self.rows.get(key)


class WorkerNode:
    """A worker with its own front, log, engine connection and knowledge of invalidations."""

    def __init__(self, name: str, clock: FakeClock, assignment: Assignment) -> None:
        self.engine, self.log, self.rows = Engine(by_action), Log(), Rows()
        self.times = Invalidations(2.0, 300)
        self.times.confirmed(clock.monotonic_s())
        self.assignment = assignment
        readers = DecisionReaders()
        readers.opened(0, self.rows)
        self.forwarder = Forwarder(assignment)  # type: ignore[arg-type]
        shared = OwnedDecisions(name, assignment, readers, self.forwarder)  # type: ignore[arg-type]
        self.evaluator = Evaluator(self.engine, Lifetimes(), clock, times=self.times, shared=shared, records=self.log)
        self.routes = policy_routes(PolicyApi(self.evaluator, None, Invalidated(), Invalidated.topic, "http://w"))


@dataclass
class Pair:
    asked: WorkerNode
    owner: WorkerNode
    caller: Caller
    clock: FakeClock
    owner_url: str


@asynccontextmanager
async def pair(*, owns: bool = True, tokens: Any = None) -> AsyncIterator[Pair]:
    clock = FakeClock()
    owner = WorkerNode("w2", clock, Assignment(owns, None))
    async with AsyncExitStack() as stack:
        peer = await stack.enter_async_context(listening(owner.routes, tokens))
        asked = WorkerNode("w1", clock, Assignment(mine=False, owner=Peer("w2", peer.url)))
        caller = await stack.enter_async_context(listening(asked.routes, tokens))
        stack.push_async_callback(asked.forwarder.close)
        yield Pair(asked, owner, caller, clock, peer.url)


def misses() -> float:
    return metrics.REGISTRY.get_sample_value("cache_misses_total") or 0.0


class TestOwners:
    @pytest.mark.parametrize(("path", "body"), [("/v1/policy/evaluate", ASKED), ("/access/v1/evaluation", authzen())])
    async def test_the_owner_is_asked_in_one_hop_and_keeps_and_records_it(self, path: str, body: Any) -> None:
        async with pair() as two:
            first = await two.caller.call("POST", path, body)
            second = await two.caller.call("POST", path, body)
        told = [answer.document.get("context") or answer.document for answer in (first, second)]
        assert [one["source"] for one in told] == ["engine", "cache"]
        assert told[0]["expires_at"] == told[1]["expires_at"] == "2025-06-15T15:11:40.000Z"
        assert (len(two.owner.engine.asked), len(two.asked.engine.asked)) == (1, 0)
        assert (len(two.owner.log.made_), len(two.asked.log.made_)) == (1, 1)
        assert first.headers[BEGAN_HEADER] == second.headers[BEGAN_HEADER] == str(START_MS)
        answers = [first.document, second.document]
        for answer in answers:
            (answer.get("context") or answer).pop("decision_id")
            (answer.get("context") or answer).pop("source")
        assert answers[0] == answers[1]

    async def test_a_thousand_who_ask_at_once_of_either_are_one_call(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Until all of them are there the one hop waits, too.
        monkeypatch.setattr(forward, "TIMEOUT_S", 300.0)
        async with pair() as two, aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            two.owner.engine.gate.clear()
            urls = [f"{url}/v1/policy/evaluate" for url in (two.caller.url, two.owner_url)]

            async def ask(number: int) -> tuple[bool, str]:
                async with session.post(urls[number % 2], json=ASKED) as answer:
                    document = await answer.json()
                    return document["allowed"], document["decision_id"]

            before = misses()
            asking = [asyncio.create_task(ask(number)) for number in range(1000)]
            # All of them, and the one hop.
            while misses() < before + 1001:
                await asyncio.sleep(0.01)
            two.owner.engine.gate.set()
            answers = await asyncio.gather(*asking)
        assert {allowed for allowed, _ in answers} == {True}
        assert len({decision_id for _, decision_id in answers}) >= 500
        assert (len(two.owner.engine.asked), len(two.asked.engine.asked)) == (1, 0)

    async def test_the_caller_is_who_he_is_at_the_owner_too(self) -> None:
        async with pair(tokens=TOKENS) as two:
            answer = await two.caller.call("POST", "/v1/policy/evaluate", ASKED, headers=VIEWER)
        assert (answer.status, len(two.owner.engine.asked)) == (200, 1)

    async def test_an_owner_without_its_engine_is_503_and_nobody_else_is_asked(self) -> None:
        async with pair() as two:
            two.owner.engine.down = True
            assert is_unavailable(await two.caller.call("POST", "/v1/policy/evaluate", ASKED))
        assert (len(two.asked.engine.asked), len(two.asked.log.failed_), len(two.owner.log.failed_)) == (0, 0, 1)

    @pytest.mark.parametrize("with_engine", [True, False])
    async def test_an_owner_that_stops_and_writes_nothing_down_is_done_without(self, with_engine: bool) -> None:
        async with pair() as two:
            two.owner.log.full, two.owner.engine.down = True, not with_engine
            answer = await two.caller.call("POST", "/v1/policy/evaluate", ASKED)
        assert (answer.document["source"], answer.document["allowed"]) == ("engine", True)
        assert (len(two.asked.engine.asked), len(two.asked.log.made_)) == (1, 1)

    async def test_without_an_engine_at_the_owner_and_here_it_is_written_down_once(self) -> None:
        async with pair() as two:
            two.owner.log.full = two.owner.engine.down = two.asked.engine.down = True
            assert is_unavailable(await two.caller.call("POST", "/v1/policy/evaluate", ASKED))
        assert (len(two.asked.log.failed_), len(two.owner.log.failed_)) == (1, 0)

    async def test_an_owner_without_an_endpoint_is_done_without(self) -> None:
        off = policy_routes(PolicyApi(None, None, Invalidated(), Invalidated.topic, "http://w2"))
        async with listening(off) as peer:
            asked = WorkerNode("w1", FakeClock(), Assignment(mine=False, owner=Peer("w2", peer.url)))
            async with listening(asked.routes) as caller:
                answer = await caller.call("POST", "/v1/policy/evaluate", ASKED)
            await asked.forwarder.close()
        assert (answer.document["source"], len(asked.log.made_)) == ("engine", 1)

    async def test_a_worker_that_is_not_the_owner_after_all_is_told_so_and_the_engine_is_asked_here(self) -> None:
        async with pair(owns=False) as two:
            answer = await two.caller.call("POST", "/v1/policy/evaluate", ASKED)
        assert (answer.document["source"], answer.document["allowed"]) == ("engine", True)
        assert answer.document["expires_at"] == answer.document["decided_at"]
        assert (len(two.owner.engine.asked), len(two.asked.engine.asked)) == (0, 1)

    async def test_a_hop_to_the_wrong_worker_is_503(self) -> None:
        async with pair(owns=False) as two:
            answer = await two.caller.call("POST", "/v1/policy/evaluate", ASKED, headers={"Vault-Hop": "1"})
        assert answer.code == (503, "not_owner")

    async def test_an_owner_that_cannot_be_reached_is_done_without(self) -> None:
        clock = FakeClock()
        asked = WorkerNode("w1", clock, Assignment(mine=False, owner=Peer("w2", "http://127.0.0.1:1")))
        async with listening(asked.routes) as caller:
            answer = await caller.call("POST", "/v1/policy/evaluate", ASKED)
        assert (answer.document["source"], len(asked.engine.asked)) == ("engine", 1)
        await asked.forwarder.close()

    async def test_a_row_of_the_owner_that_an_invalidation_ended_is_not_used_by_anybody(self) -> None:
        async with pair() as two:
            first = await two.caller.call("POST", "/v1/policy/evaluate", ASKED)
            assert first.document["source"] == "engine"
            two.clock.advance(60)
            two.owner.engine.judge = two.asked.engine.judge = lambda _: DENY
            for node in (two.owner, two.asked):
                node.times.confirmed(two.clock.monotonic_s())
                node.times.add("r:ds-1", two.clock.now_ms(), two.clock.monotonic_s())
            answer = await two.caller.call("POST", "/v1/policy/evaluate", ASKED)
        assert (answer.document["allowed"], answer.document["source"]) == (False, "engine")

    async def test_an_owner_that_answers_otherwise_is_not_believed(self) -> None:
        for broken, believed in (
            (_plain(), True),
            ({"allowed": True}, False),
            ({**_plain(), "allowed": "true"}, False),
            ({**_plain(), "decided_at": "yesterday"}, False),
            ({**_plain(), "source": "hearsay"}, False),
        ):

            async def handle(_: web.Request, broken: Any = broken) -> web.Response:
                return web.json_response(broken, headers={BEGAN_HEADER: str(START_MS)})

            async with listening([web.post("/v1/policy/evaluate", handle)]) as peer:
                asked = WorkerNode("w1", FakeClock(), Assignment(mine=False, owner=Peer("w2", peer.url)))
                async with listening(asked.routes) as caller:
                    answer = await caller.call("POST", "/v1/policy/evaluate", ASKED | {"action": "delete"})
                assert (answer.document["allowed"], len(asked.engine.asked)) == (believed, not believed)
                await asked.forwarder.close()


def _plain() -> dict[str, Any]:
    return {
        "decision_id": "d-1",
        "allowed": True,
        "reason": "",
        "matched_policies": [],
        "obligations": [],
        "source": "cache",
        "decided_at": "2025-06-15T15:06:40.000Z",
        "expires_at": "2025-06-15T15:11:40.000Z",
    }


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
