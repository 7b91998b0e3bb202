"""A real policy engine of another maker: the AuthZEN that we speak is the one that it understands."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.integrations.upstream import HttpUpstream, Rejected, Unavailable, UpstreamConfig
from tests.support.cerbos import (
    EVALUATION,
    EVALUATIONS,
    Cerbos,
    in_authzen,
    in_its_own_api,
    install_cerbos,
    question,
    questions,
    running_cerbos,
)
from tests.support.foreign import PACKAGES, must_run

pytestmark = pytest.mark.foreign

COUNT = 200


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_cerbos(tmp_path_factory.mktemp("cerbos"))


@pytest.fixture
def cerbos(binary: Path, tmp_path: Path) -> Iterator[Cerbos]:
    with running_cerbos(binary, tmp_path) as running:
        yield running


@pytest.fixture
async def client(cerbos: Cerbos) -> AsyncIterator[HttpUpstream]:
    client = HttpUpstream(UpstreamConfig(cerbos.url, timeout_s=30.0, connect_timeout_s=30.0))
    yield client
    await client.close()


async def decision(client: HttpUpstream, asked: Any) -> Any:
    answer = await client.send("POST", EVALUATION, json.dumps(asked).encode())
    return answer.object()["decision"]


def test_the_policies_hold_together(binary: Path) -> None:
    must_run(str(binary), "compile", str(PACKAGES / "cerbos" / "policies"), cwd=binary.parent)


async def test_our_client_hears_the_decisions_that_are_made(cerbos: Cerbos, client: HttpUpstream) -> None:
    asked = questions(COUNT)
    straight = [in_its_own_api(cerbos, one) for one in asked]

    heard = [await decision(client, in_authzen(one)) for one in asked]

    assert heard == straight
    # A mapping that lost the roles would deny everything, and be right about most of it.
    assert COUNT // 5 < sum(straight) < COUNT * 4 // 5


async def test_a_question_that_is_incomplete_is_rejected_and_never_a_decision(client: HttpUpstream) -> None:
    whole = in_authzen(question("root", "read", "ds-red-1"))
    assert await decision(client, whole) is True
    for part in ("subject", "action", "resource"):
        with pytest.raises(Rejected) as caught:
            await decision(client, {name: value for name, value in whole.items() if name != part})
        assert caught.value.status == 400


async def test_a_killed_engine_is_unavailable(cerbos: Cerbos, client: HttpUpstream) -> None:
    asked = in_authzen(question("root", "read", "ds-red-1"))
    assert await decision(client, asked) is True
    cerbos.kill()
    for _ in range(3):
        with pytest.raises(Unavailable):
            await decision(client, asked)


def test_a_batch_takes_what_one_question_says_of_a_subject_for_all_others_of_it(cerbos: Cerbos) -> None:
    # Why several questions are asked one by one: in a batch the second one would be allowed.
    known = in_authzen(question("ann", "read", "ds-red-1"))
    bare = {**known, "subject": {"type": "principal", "id": "ann"}}
    assert [cerbos.ask(one)[1] for one in (known, bare)] == [{"decision": True}, {"decision": False}]

    status, answer = cerbos.ask({"evaluations": [known, bare]}, EVALUATIONS)

    assert (status, answer["evaluations"]) == (200, [{"decision": True}, {"decision": True}])
