import asyncio
import contextlib
import json
from collections.abc import Sequence

import pytest

from app.observability import metrics
from app.observability.health import CheckOutcome, HealthRegistry, HealthStatus, LoopWatch

HEALTHY, DEGRADED, UNHEALTHY = HealthStatus.HEALTHY, HealthStatus.DEGRADED, HealthStatus.UNHEALTHY


class FakeClock:
    def __init__(self) -> None:
        self.now_s = 1000.0
        self.was_read = asyncio.Event()

    def __call__(self) -> float:
        self.was_read.set()
        return self.now_s


class Check:
    """Answers `status`, and counts how often it was asked."""

    def __init__(self, status: HealthStatus = HEALTHY) -> None:
        self.status = status
        self.asked = 0

    async def __call__(self) -> CheckOutcome:
        self.asked += 1
        return CheckOutcome(self.status, "why", {"n": 1})


async def never() -> CheckOutcome:
    await asyncio.Event().wait()
    raise AssertionError


async def broken() -> CheckOutcome:
    raise OSError("connect to 10.1.2.3 failed")


@pytest.mark.parametrize(
    ("required", "optional", "whole"),
    [
        (HEALTHY, HEALTHY, HEALTHY),
        (HEALTHY, DEGRADED, DEGRADED),
        (HEALTHY, UNHEALTHY, DEGRADED),
        (DEGRADED, HEALTHY, DEGRADED),
        (UNHEALTHY, HEALTHY, UNHEALTHY),
    ],
)
async def test_only_a_required_check_makes_the_whole_unhealthy(
    required: HealthStatus, optional: HealthStatus, whole: HealthStatus
) -> None:
    registry = HealthRegistry()
    registry.add("policy", Check(optional), required=False)
    registry.add("kafka", Check(required))
    report = await registry.report()
    assert report.status is whole
    assert await registry.ready() is (whole is not UNHEALTHY)


async def test_a_result_has_the_fields_of_the_contract() -> None:
    registry = HealthRegistry()
    registry.add("kafka", Check(DEGRADED))
    document = json.loads(json.dumps((await registry.report()).to_json()))
    # However long it took on this machine.
    assert document["checks"][0].pop("latency_ms") >= 0
    assert document == {
        "status": "degraded",
        "checks": [{"name": "kafka", "status": "degraded", "message": "why", "details": {"n": 1}}],
    }


async def test_checks_run_side_by_side_each_with_its_own_limit() -> None:
    registry = HealthRegistry()
    meeting = asyncio.Barrier(2)

    async def meets() -> CheckOutcome:
        await meeting.wait()
        return CheckOutcome(HEALTHY)

    registry.add("one", meets)
    registry.add("two", meets)
    registry.add("slow", never, required=False, timeout_s=0.01)
    report = await registry.report()
    assert [check.status for check in report.checks] == [HEALTHY, HEALTHY, UNHEALTHY]
    assert report.checks[2].message == "no answer within 0.01 s"


async def test_a_check_that_does_not_heed_its_limit_holds_up_nobody_and_is_not_begun_again() -> None:
    clock, go_on = FakeClock(), asyncio.Event()
    begun = 0

    async def stubborn() -> CheckOutcome:
        nonlocal begun
        begun += 1
        while not go_on.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await go_on.wait()
        return CheckOutcome(HEALTHY)

    registry = HealthRegistry(clock=clock)
    registry.add("slow", stubborn, timeout_s=0.01)
    for _ in range(3):
        async with asyncio.timeout(5):
            report = await registry.report()
        assert report.checks[0].message == "no answer within 0.01 s"
        clock.now_s += 2
    assert begun == 1
    go_on.set()
    assert (await registry.report()).status is HEALTHY


@pytest.mark.parametrize(
    ("excluded", "whole"), [((), UNHEALTHY), (["kafka"], DEGRADED), (["kafka", "policy"], HEALTHY)]
)
async def test_what_is_excluded_does_not_count(excluded: Sequence[str], whole: HealthStatus) -> None:
    registry = HealthRegistry()
    registry.add("kafka", Check(UNHEALTHY))
    registry.add("policy", Check(DEGRADED), required=False)
    registry.add("store", Check(HEALTHY))
    report = (await registry.report()).without(excluded)
    assert report.status is whole
    assert [check.name for check in report.checks] == [n for n in ("kafka", "policy", "store") if n not in excluded]
    assert await registry.ready(excluded) is (whole is not UNHEALTHY)


async def test_what_is_not_there_yet_has_a_name_too() -> None:
    registry = HealthRegistry(("kafka", "store"))
    registry.add("policy", Check(), required=False)
    registry.add("kafka", Check())
    assert registry.names == ("policy", "kafka", "store")
    assert await registry.ready(["store"])


async def test_no_address_and_no_secret_of_a_check_is_shown() -> None:
    async def talkative() -> CheckOutcome:
        details = {"peers": ["10.1.2.3:9092"], "why": {"last": "whsec_QUJDREVG"}, "rows": 3}
        return CheckOutcome(DEGRADED, "connect to kafka-0.internal:9092 failed", details)

    registry = HealthRegistry()
    registry.add("kafka", talkative)
    (shown,) = (await registry.report()).to_json()["checks"]
    assert shown["message"] == "connect to [address] failed"
    assert shown["details"] == {"peers": ["[address]"], "why": {"last": "whsec_[redacted]"}, "rows": 3}


async def test_a_check_that_raises_is_unhealthy_and_its_text_is_not_shown() -> None:
    registry = HealthRegistry()
    registry.add("kafka", broken)
    report = await registry.report()
    assert report.status is UNHEALTHY
    assert "10.1.2.3" not in json.dumps(report.to_json())


async def test_an_answer_is_given_again_for_a_second() -> None:
    clock, check = FakeClock(), Check()
    registry = HealthRegistry(clock=clock)
    registry.add("kafka", check)
    await registry.report()
    clock.now_s += 0.9
    await registry.report()
    assert check.asked == 1
    clock.now_s += 0.2
    await registry.report()
    assert check.asked == 2


async def test_callers_at_the_same_time_share_one_run() -> None:
    registry, check = HealthRegistry(), Check()
    registry.add("kafka", check)
    await asyncio.gather(*(registry.report() for _ in range(10)))
    assert check.asked == 1


async def test_a_caller_that_hangs_up_does_not_cancel_the_run_for_others() -> None:
    registry = HealthRegistry()
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def waits() -> CheckOutcome:
        begun.set()
        await go_on.wait()
        return CheckOutcome(HEALTHY)

    registry.add("kafka", waits)
    impatient, patient = asyncio.create_task(registry.report()), asyncio.create_task(registry.report())
    await begun.wait()
    impatient.cancel()
    go_on.set()
    assert (await patient).status is HEALTHY


async def test_a_name_is_taken_once() -> None:
    registry = HealthRegistry()
    registry.add("kafka", Check())
    with pytest.raises(ValueError, match="'kafka' is there already"):
        registry.add("kafka", Check())


async def test_an_expected_check_that_nobody_added_yet_is_unhealthy() -> None:
    registry = HealthRegistry(expected=["kafka", "recovery"])
    registry.add("kafka", Check())
    report = await registry.report()
    assert not await registry.ready()
    assert (report.checks[1].name, report.checks[1].message) == ("recovery", "starting")
    registry.add("recovery", Check())
    assert await registry.ready()


async def test_a_draining_process_is_not_ready_though_healthy() -> None:
    registry = HealthRegistry()
    registry.add("kafka", Check())
    registry.drain()
    assert not await registry.ready()
    assert (await registry.report()).status is HEALTHY


async def test_live_means_that_the_loop_turned_within_ten_seconds() -> None:
    clock = FakeClock()
    watch = LoopWatch(clock)
    watch.start()
    clock.now_s += 9.9
    assert watch.live()
    clock.now_s += 0.2
    assert not watch.live()
    watch.stop()


async def test_the_heartbeat_measures_how_late_its_timer_is() -> None:
    clock = FakeClock()
    watch = LoopWatch(clock)
    watch.start()
    clock.now_s += 3.25
    clock.was_read.clear()
    async with asyncio.timeout(5):
        await clock.was_read.wait()
    watch.stop()
    assert metrics.REGISTRY.get_sample_value("vault_stream_loop_lag_seconds") == 3.0
    assert watch.live()
