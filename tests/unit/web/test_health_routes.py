"""`/health` and `/health/ready` for people and for probes; that they answer at all is with the listener's tests."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from app.observability.health import CheckOutcome, HealthRegistry, HealthStatus, LoopWatch
from app.web.operations import operations_routes
from tests.support.listening import Caller, listening

HEALTHY, DEGRADED, UNHEALTHY = HealthStatus.HEALTHY, HealthStatus.DEGRADED, HealthStatus.UNHEALTHY


def answers(status: HealthStatus, message: str | None = None) -> Callable[[], Awaitable[CheckOutcome]]:
    async def check() -> CheckOutcome:
        return CheckOutcome(status, message, {"numbers": 3})

    return check


@asynccontextmanager
async def serving(health: HealthRegistry | None = None) -> AsyncIterator[Caller]:
    if health is None:
        health = HealthRegistry(("store",))
        health.add("kafka", answers(UNHEALTHY, "not connected to 10.1.2.3:9092 yet"))
        health.add("policy", answers(DEGRADED, "answered 503"), required=False)
        health.add("store", answers(HEALTHY))
    async with listening(operations_routes(health, LoopWatch(), {})) as caller:
        yield caller


@pytest.mark.parametrize("path", ["/health", "/health/ready"])
async def test_json_is_what_is_answered_unless_asked_otherwise_with_every_check_and_its_details(path: str) -> None:
    async with serving() as api:
        answer = await api.get(path)
    assert (answer.status, answer.headers["Content-Type"]) == (503, "application/json")
    assert [check["name"] for check in answer.document["checks"]] == ["kafka", "policy", "store"]
    assert all(check["details"] == {"numbers": 3} for check in answer.document["checks"])
    assert "10.1.2.3" not in answer.text


@pytest.mark.parametrize("query", ["verbose", "verbose=", "verbose=1", "verbose=true&exclude=kafka", "x=y&verbose"])
@pytest.mark.parametrize("path", ["/health", "/health/ready"])
async def test_verbose_is_one_line_a_check_and_one_of_the_whole(path: str, query: str) -> None:
    async with serving() as api, api.session.get(f"{api.url}{path}?{query}") as answer:
        *lines, whole = (await answer.text()).splitlines()
        assert answer.content_type == "text/plain"
    signs = [line.partition(", ")[0] for line in lines]
    without = "exclude" in query
    assert signs == ["[-] kafka unhealthy", "[!] policy degraded", "[+] store healthy"][without:]
    assert lines[-2].endswith(" ms: answered 503")
    words = {"/health": ("unhealthy", "degraded"), "/health/ready": ("not_ready", "ready")}
    assert (whole, answer.status) == (words[path][without], 200 if without else 503)


@pytest.mark.parametrize("path", ["/health", "/health/ready"])
async def test_what_is_excluded_is_neither_shown_nor_counted(path: str) -> None:
    async with serving() as api:
        one = await api.get(f"{path}?exclude=kafka")
        both = await api.get(f"{path}?exclude=kafka&exclude=policy&exclude=policy")
        required = await api.get(f"{path}?exclude=store")
    assert [answer.status for answer in (one, both, required)] == [200, 200, 503]
    assert [check["name"] for check in one.document["checks"]] == ["policy", "store"]
    assert [check["name"] for check in both.document["checks"]] == ["store"]
    if path == "/health":
        assert [answer.document["status"] for answer in (one, both, required)] == ["degraded", "healthy", "unhealthy"]


@pytest.mark.parametrize("path", ["/health", "/health/ready"])
@pytest.mark.parametrize("query", ["exclude=kafca", "exclude=", "exclude=policy&exclude=Policy", "verbose&exclude=x"])
async def test_to_exclude_what_is_no_check_is_refused_and_names_those_that_are(path: str, query: str) -> None:
    async with serving() as api:
        answer = await api.get(f"{path}?{query}")
    assert (answer.code, answer.fields) == ((422, "invalid_query"), ["exclude"])
    assert answer.document["errors"][0]["message"] == "one of kafka, policy, store"


async def test_a_check_that_is_only_expected_can_be_excluded() -> None:
    health = HealthRegistry(("store",))
    health.add("kafka", answers(HEALTHY))
    async with serving(health) as api:
        assert (await api.get("/health/ready")).status == 503
        assert (await api.get("/health/ready?exclude=store")).status == 200


async def test_a_process_that_ends_is_not_ready_whatever_is_excluded() -> None:
    health = HealthRegistry()
    health.add("kafka", answers(HEALTHY))
    health.drain()
    async with serving(health) as api:
        assert (await api.get("/health/ready?exclude=kafka")).status == 503
        assert (await api.get("/health?exclude=kafka")).status == 200


async def test_live_says_only_that_the_loop_turns() -> None:
    async with serving() as api:
        assert (await api.get("/health/live?exclude=kafca&verbose")).document == {"status": "live"}
