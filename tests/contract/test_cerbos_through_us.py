"""A real policy engine of another maker, asked through us: the same answers, and without it none at all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.integrations.policy import (
    Dialect,
    Evaluator,
    Lifetimes,
    PolicyEngine,
    PolicyEngineClient,
    PolicyUnavailable,
)
from app.integrations.upstream import HttpUpstream, UpstreamConfig
from app.web.policy import PolicyApi, policy_routes
from tests.support.cerbos import (
    Cerbos,
    in_authzen,
    in_its_own_api,
    install_cerbos,
    question,
    questions,
    running_cerbos,
)
from tests.support.listening import Caller, listening
from tests.support.memory_unit import FakeClock
from tests.support.policy import Invalidated, Log

pytestmark = pytest.mark.foreign

COUNT = 200
AUTHZEN = Dialect(name="authzen")


@dataclass
class Us:
    """What a worker and a vault service ask with.

    Attributes:
        caller: Of the worker's API.
        client: The imported one.
    """

    caller: Caller
    client: PolicyEngineClient

    async def in_vault(self, asked: dict[str, Any]) -> Any:
        answer = await self.caller.call("POST", "/v1/policy/evaluate", asked)
        return answer.document["allowed"] if answer.status == 200 else answer.code

    async def in_authzen(self, asked: dict[str, Any]) -> Any:
        answer = await self.caller.call("POST", "/access/v1/evaluation", in_authzen(asked))
        return answer.document["decision"] if answer.status == 200 else answer.code

    async def imported(self, asked: dict[str, Any]) -> Any:
        try:
            answered = await self.client.evaluate_access(**asked)
        except PolicyUnavailable as error:
            return type(error)
        return answered.decision.verdict.allowed


WAYS = {"in the vault's dialect": Us.in_vault, "in AuthZEN": Us.in_authzen, "imported": Us.imported}
UNAVAILABLE: dict[str, Any] = {
    "in the vault's dialect": (503, "policy_unavailable"),
    "in AuthZEN": (503, "policy_unavailable"),
    "imported": PolicyUnavailable,
}


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_cerbos(tmp_path_factory.mktemp("cerbos"))


@pytest.fixture
def cerbos(binary: Path, tmp_path: Path) -> Iterator[Cerbos]:
    with running_cerbos(binary, tmp_path) as running:
        yield running


@pytest.fixture
async def us(cerbos: Cerbos) -> AsyncIterator[Us]:
    config = UpstreamConfig(cerbos.url, timeout_s=30.0, connect_timeout_s=30.0)
    upstream = HttpUpstream(config)
    engine = PolicyEngine(upstream, AUTHZEN)
    evaluator = Evaluator(engine, Lifetimes(), FakeClock(), records=Log())
    api = PolicyApi(evaluator, engine, Invalidated(), Invalidated.topic, "http://worker-1")
    async with listening(policy_routes(api)) as caller, PolicyEngineClient(config, dialect=AUTHZEN) as client:
        yield Us(caller, client)
    await evaluator.close()
    await upstream.close()


@pytest.mark.parametrize("way", WAYS)
async def test_the_answers_through_us_are_those_of_the_engine(cerbos: Cerbos, us: Us, way: str) -> None:
    asked = questions(COUNT)
    straight = [in_its_own_api(cerbos, one) for one in asked]

    through_us = [await WAYS[way](us, one) for one in asked]

    assert through_us == straight
    assert COUNT // 5 < sum(straight) < COUNT * 4 // 5


async def test_a_batch_mixes_nothing_up(us: Us) -> None:
    # The engine's own batch would allow the second one.
    known = question("ann", "read", "ds-red-1")
    bare = {**known, "context": {}}

    answer = await us.caller.call("POST", "/v1/policy/evaluate/batch", {"requests": [known, bare]})

    assert [item["allowed"] for item in answer.document["items"]] == [True, False]


@pytest.mark.parametrize("way", WAYS)
async def test_without_the_engine_nothing_is_allowed(cerbos: Cerbos, us: Us, way: str) -> None:
    assert await WAYS[way](us, question("root", "read", "ds-red-1")) is True
    cerbos.kill()

    answers = [await WAYS[way](us, question("root", "read", resource)) for resource in ("ds-red-2", "ds-blue-1", "x")]

    assert answers == [UNAVAILABLE[way]] * 3
