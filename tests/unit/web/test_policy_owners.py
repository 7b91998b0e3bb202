"""A question at a worker that does not own the principal: one hop to the owner, or the engine is asked here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from app.integrations.policy import (
    Decision,
    Evaluator,
    Invalidations,
    Lifetimes,
)
from app.observability import metrics
from app.web import forward
from app.web.forward import Forwarder
from app.web.policy import PolicyApi, policy_routes
from app.web.policy_owners import BEGAN_HEADER, OwnedDecisions
from tables.decisions import DecisionReaders
from tests.support.listening import TOKENS, VIEWER, Caller, listening
from tests.support.memory_unit import START_MS, FakeClock
from tests.support.policy import (
    ASKED,
    DENY,
    Engine,
    Invalidated,
    Log,
    authzen,
    by_action,
    is_unavailable,
)


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
