"""Workers that join, leave and die one after another under load: nothing lost, nothing counted twice."""

import time
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from random import Random

import pytest

from app.devstack.kafka import KafkaServer
from tests.support.feeding import Feed
from tests.support.fold import folded, until
from tests.support.nemesis import Nemesis, seed_of_run
from tests.support.report import report
from tests.support.storm import Storm, StormGroup

pytestmark = pytest.mark.kafka

SESSION_S = 6.0
PER_S = 50.0
DEADLINE_S = 90.0
REBALANCE_S = 8.0
EVENTS, EVERY_S = 12, 10.0
DEEDS = ("kill -9 and restart", "join", "leave", "restart", "join", "kill -9")
CHANGE = {"join": 1, "leave": -1, "kill -9": -1}
STARTED, MOST = 3, 5


@pytest.fixture
def group(kafka: KafkaServer, unique: Callable[[str], str], tmp_path: Path) -> Iterator[StormGroup]:
    group = StormGroup(kafka.bootstrap, unique("storm"), tmp_path, numbers=8)
    yield group
    group.close()


def settle(group: StormGroup, total: int, deadline_s: float = DEADLINE_S) -> None:
    """Everything is counted once, and sent and called for at least once."""
    wanted = folded(total, 2)
    until(lambda: group.counted().total() >= wanted.total(), deadline_s, "everything counted")
    assert group.counted() == wanted
    everything = {b"v-%d" % i for i in range(total)}
    until(lambda: set(group.relayed()) >= everything, deadline_s, "everything relayed")
    until(lambda: len(group.called()) >= total, deadline_s, "every call has ended")
    assert set(group.relayed()) == everything
    assert {value.encode() for _, value in group.calls()} == everything


def assert_repeats_are_known(storm: Storm) -> dict[str, object]:
    """Nothing was sent or called for again but what was in flight: at a kill, or abandoned and counted."""
    outputs, outputs_at_kills = storm.repeated_outputs()
    calls, calls_at_kills = storm.repeated_calls()
    abandoned = sum(worker.abandoned for worker in storm.group.workers.values())
    if not storm.unclean:
        assert outputs == 0
        assert calls <= abandoned
    return {
        "outputs sent again": outputs + outputs_at_kills,
        "of them in flight at a kill": outputs_at_kills,
        "calls made again": calls + calls_at_kills,
        "of them in flight at a kill; calls abandoned at a revoke, by the metric": f"{calls_at_kills}; {abandoned}",
        "workers that had to close a number without a checkpoint": ", ".join(storm.unclean) or "none",
    }


def course(random: Random, events: int) -> list[str]:
    """Every deed as often as the others, in any order that leaves two to five workers."""
    while True:
        deeds = [DEEDS[at % len(DEEDS)] for at in range(events)]
        random.shuffle(deeds)
        there = list(accumulate((CHANGE.get(deed, 0) for deed in deeds), initial=STARTED))
        if min(there) >= 2 and max(there) <= MOST:
            return deeds


def test_nothing_is_lost_while_workers_join_die_and_leave(group: StormGroup) -> None:
    group.start("w1", "w2")
    storm = Storm(group, Nemesis(group, seed_of_run(), session_s=SESSION_S))
    with Feed(group.brokers, group.topics, PER_S) as feed:
        until(group.settled, DEADLINE_S, "settled")
        for deed in ("join", "kill -9 and restart", "leave"):
            storm.play(deed)
        total = feed.stop()

    settle(group, total)
    assert_repeats_are_known(storm)


@pytest.mark.prove
def test_nothing_is_lost_in_two_minutes_of_joins_and_leaves_and_each_rebalance_is_short(group: StormGroup) -> None:
    group.start("w1", "w2", "w3")
    nemesis = Nemesis(group, seed := seed_of_run(), session_s=SESSION_S)
    storm = Storm(group, nemesis)
    with Feed(group.brokers, group.topics, PER_S) as feed:
        until(group.settled, DEADLINE_S, "settled")
        for deed in course(nemesis.random, EVENTS):
            began = time.monotonic()
            storm.play(deed)
            time.sleep(max(0.0, EVERY_S - (time.monotonic() - began)))
        total = feed.stop()

    settle(group, total)
    repeats = assert_repeats_are_known(storm)
    took = storm.rebalances()
    report(
        "A storm of rebalances",
        {
            "seed": seed,
            "records folded, relayed and called for": total * 4,
            "lost; counted twice": "0; 0",
            **{
                f"{event.deed} of {event.worker}": f"rebalance {rebalance_s:.1f} s; settled after {settled_s:.1f} s"
                for event, rebalance_s, settled_s in zip(storm.events, took, storm.seconds, strict=True)
            },
            "longest rebalance": f"{max(took):.1f} s",
            "longest pause of a number": f"{max(storm.pauses().values()):.1f} s",
            **repeats,
        },
    )
    assert max(took) < REBALANCE_S


@pytest.mark.prove
def test_the_proof_fails_without_a_checkpoint_at_a_revoke(group: StormGroup) -> None:
    group.start("w1", "w2", BROKEN="careless_revoke")
    storm = Storm(group, Nemesis(group, seed_of_run(), session_s=SESSION_S))
    with Feed(group.brokers, group.topics, PER_S * 4) as feed:
        until(group.settled, DEADLINE_S, "settled")
        for _ in range(3):
            storm.play("restart")
        total = feed.stop()
    settle(group, total)

    with pytest.raises(AssertionError):
        assert_repeats_are_known(storm)


@pytest.mark.prove
def test_the_proof_fails_when_a_partition_is_not_put_where_its_number_stands(group: StormGroup) -> None:
    group.start("w1", "w2", BROKEN="no_seek")
    storm = Storm(group, Nemesis(group, seed_of_run(), session_s=SESSION_S))
    with Feed(group.brokers, group.topics, PER_S * 4) as feed:
        until(group.settled, DEADLINE_S, "settled")
        for counted in (1_000, 2_000):
            until(lambda counted=counted: group.counted().total() >= counted, DEADLINE_S, "some are counted")
            storm.play("kill -9 and restart")
        total = feed.stop()

    with pytest.raises(AssertionError):
        settle(group, total, 20.0)
