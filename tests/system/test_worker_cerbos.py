"""A real worker in front of a real policy engine of another maker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from tests.support.cerbos import (
    Cerbos,
    in_authzen,
    in_its_own_api,
    install_cerbos,
    question,
    questions,
    running_cerbos,
)
from tests.support.workers import Deployment

pytestmark = [pytest.mark.kafka, pytest.mark.foreign]

COUNT = 40


@pytest.fixture
def cerbos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cerbos]:
    folder = tmp_path_factory.mktemp("cerbos")
    with running_cerbos(install_cerbos(folder), folder) as running:
        yield running


async def test_the_engine_decides_for_the_worker_and_without_it_nothing_is_allowed(
    deployment: Deployment, cerbos: Cerbos
) -> None:
    deployment.settings |= {
        "PARTITIONS": "1",
        "POLICY__ENDPOINT": cerbos.url,
        "POLICY__DIALECT": "authzen",
        "POLICY__TIMEOUT_S": "30",
    }
    (worker,) = await deployment.start("w1")
    asked = questions(COUNT)
    straight = [in_its_own_api(cerbos, one) for one in asked]
    async with aiohttp.ClientSession(worker.url, timeout=aiohttp.ClientTimeout(total=60)) as session:

        async def ask(path: str, body: Any) -> tuple[int, Any]:
            async with session.post(path, json=body) as answer:
                return answer.status, await answer.json(content_type=None)

        vault = [(await ask("/v1/policy/evaluate", one))[1]["allowed"] for one in asked]
        authzen = [(await ask("/access/v1/evaluation", in_authzen(one)))[1]["decision"] for one in asked]
        assert (vault, authzen) == (straight, straight)
        assert 0 < sum(straight) < COUNT

        cerbos.kill()
        for resource in ("ds-red-never-asked", "ds-blue-never-asked"):
            new = question("root", "read", resource)
            for path, body in (("/v1/policy/evaluate", new), ("/access/v1/evaluation", in_authzen(new))):
                status, told = await ask(path, body)
                assert (status, told["code"]) == (503, "policy_unavailable")
                assert not told.keys() & {"allowed", "decision"}
    assert await worker.stop() == 0
