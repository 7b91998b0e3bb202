"""Questions about policy feed their metrics."""

from tests.support.metric_samples import Change, value
from tests.support.number import until
from tests.support.policy_desk import Desk as PolicyDesk
from tests.unit.integrations.policy.test_journal import Broker, decision, journal


async def test_questions_about_policy_feed_their_metrics() -> None:
    change, desk = Change(), PolicyDesk()
    await desk.ask()
    await desk.ask()
    assert (change.of("cache_misses_total"), change.of("cache_hits_total")) == (1, 1)
    assert change.of("vault_stream_policy_evaluations_total", source="engine", decision="allow") == 1
    assert change.of("vault_stream_policy_evaluations_total", source="cache", decision="allow") == 1
    desk.pass_s(60)
    desk.invalidate("p:alice")
    await desk.ask()
    assert change.of("vault_stream_policy_cache_stale_total") == 1


async def test_decisions_that_are_not_written_yet_are_a_queue() -> None:
    broker = Broker()
    broker.gate.clear()
    async with journal(broker) as decisions:
        await decisions.made(decision(), "engine")
        assert value("queue_depth", queue_name="decisions_audit") == 1
        broker.gate.set()
        await until(lambda: value("queue_depth", queue_name="decisions_audit") == 0)
