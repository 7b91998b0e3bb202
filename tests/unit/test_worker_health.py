"""Who tells of the health of upstreams, and what becomes of it where the broker or the owner is away."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import orjson
import pytest

from app.engine import Ownership
from app.engine.errors import OutputFailed
from app.engine.ownership import Owner
from app.integrations.upstream import HttpUpstream, Unavailable, UpstreamConfig
from app.integrations.upstream_health import HealthRules
from app.worker_health import HealthNews
from tests.support.number import until

TOPIC = "vault.events"
ME, OTHER = Owner("w-1", "http://127.0.0.1:1"), Owner("w-2", "http://127.0.0.1:2")


@dataclass
class Log:
    """Takes what is sent, unless it is away; then nobody knows whether it did."""

    taken: list[tuple[str, bytes, bytes]] = field(default_factory=list)
    away: bool = False
    deaf: bool = False

    async def send(self, topic: str, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]]) -> tuple[int, int]:
        if not self.deaf:
            self.taken.append((topic, key, value))
        if self.away:
            raise OutputFailed("not acknowledged")
        return 0, len(self.taken)

    @property
    def told(self) -> list[str]:
        return [orjson.loads(value)["type"].removeprefix("llm.data-vault.health.") for _, _, value in self.taken]


class World:
    """A worker with two upstreams, and a clock that the test turns."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.ready = self.lease = True
        self.log = Log()
        self.ownership = Ownership(4, lambda _: self.ready)
        self.ownership.update(dict.fromkeys(range(4), ME))
        clock = SimpleNamespace(
            monotonic_s=lambda: self.now_s, now_ms=lambda: 1_700_000_000_000 + int(self.now_s * 1000)
        )
        engine = SimpleNamespace(
            clock=clock,
            instance=ME.name,
            ownership=self.ownership,
            outputs=self.log,
            config=SimpleNamespace(app_id="app"),
            lease_valid=lambda: self.lease,
        )
        self.governance, self.policy = (SimpleNamespace(on_result=lambda _: None) for _ in range(2))
        upstreams = {"governance": self.governance, "policy": self.policy, "registry": None}
        self.news = HealthNews(engine, upstreams, HealthRules(), TOPIC)

    async def wait(self, seconds: int, problem: str | None) -> None:
        for _ in range(seconds):
            self.now_s += 1
            self.governance.on_result(problem)
            self.policy.on_result(None)
            await self.news.look()


@pytest.fixture
def world() -> World:
    return World()


async def test_the_owner_of_number_0_tells_in_the_log_that_auditors_read(world: World) -> None:
    await world.wait(40, "no answer: connect")
    await world.wait(40, None)
    assert world.log.told == ["degraded", "restored"]
    topic, key, value = world.log.taken[0]
    assert (topic, key) == (TOPIC, b"governance")
    told = orjson.loads(value)
    assert (told["source"], told["subject"], told["data"]["component"]) == (
        "/vault-stream/app",
        "governance",
        "governance",
    )


async def test_another_worker_says_nothing_and_goes_on_from_there_when_it_takes_over(world: World) -> None:
    world.ownership.update({0: OTHER, 1: ME})
    await world.wait(100, "no answer: connect")
    assert world.log.told == []
    world.ownership.update({0: ME, 1: ME})
    await world.wait(100, "no answer: connect")
    assert world.log.told == ["degraded"]
    await world.wait(60, None)
    assert world.log.told == ["degraded", "restored"]


async def test_a_recovery_that_another_worker_told_of_is_not_told_again(world: World) -> None:
    await world.wait(40, "no answer: connect")
    world.ownership.update({0: OTHER})
    await world.wait(40, None)
    world.ownership.update({0: ME})
    await world.wait(40, None)
    assert world.log.told == ["degraded"]


@pytest.mark.parametrize("away", ["ready", "lease"])
async def test_while_nobody_can_know_who_tells_nothing_is_sent_and_nothing_forgotten(world: World, away: str) -> None:
    setattr(world, away, False)
    await world.wait(100, "no answer: connect")
    assert world.log.told == []
    setattr(world, away, True)
    await world.wait(1, "no answer: connect")
    assert world.log.told == ["degraded"]


async def test_before_the_first_assignment_nothing_is_sent(world: World) -> None:
    world.ownership.update({})
    await world.wait(100, "no answer: connect")
    assert world.log.told == []


@pytest.mark.parametrize("deaf", [True, False])
async def test_what_the_broker_did_not_take_is_sent_again_to_the_byte_and_nothing_is_left_out(
    world: World, deaf: bool
) -> None:
    world.log.away, world.log.deaf = True, deaf
    await world.wait(60, "no answer: connect")
    await world.wait(60, None)
    world.log.away = world.log.deaf = False
    await world.wait(3, None)
    assert [*dict.fromkeys(world.log.told)] == ["degraded", "restored"]
    assert len(set(world.log.taken)) == 2
    assert world.log.told[-1] == "restored"


async def test_a_failure_of_ours_does_not_end_the_news(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []

    async def look() -> None:
        looked.append(1)
        raise RuntimeError("a bug")

    monkeypatch.setattr("app.worker_health.LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(world.news, "look", look)
    world.news.start()
    await until(lambda: len(looked) > 2)
    await world.news.stop()
    await world.news.stop()


async def test_a_client_says_of_each_call_how_it_ended() -> None:
    heard: list[str | None] = []
    client = HttpUpstream(UpstreamConfig(endpoint="http://127.0.0.1:1", timeout_s=5, connect_timeout_s=5))
    client.on_result = heard.append
    with pytest.raises(Unavailable):
        await client.send("GET", "/")
    await client.close()
    assert heard == ["no answer: connect"] == [client.last_problem]
