"""Hours of failing receivers in virtual time, by the default schedule: nobody is starved, nobody is hammered."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest

from app.webhooks.model import Status
from app.webhooks.pace import FAILING_PER_S
from tests.support.report import report
from tests.support.simulation import (
    DAY_S,
    Behaviour,
    Hook,
    Reply,
    World,
    breaks,
    from_then_on,
    hangs,
    refuses,
    resets,
    well,
)

HOUR_S = 3600.0


def fails_first_two(attempt: int, now_s: float) -> Reply:
    return Reply(0.05, 503) if attempt <= 2 else Reply(0.05)


@dataclass(frozen=True)
class Load:
    per_s: float
    for_s: float


def fed(behaviour: Behaviour, load: Load) -> tuple[World, Hook]:
    hook = Hook("wh_a", behaviour)
    world = World([hook])
    world.feed(hook, load.per_s, load.for_s)
    return world, hook


@pytest.mark.parametrize(
    "load",
    [
        pytest.param(Load(27, 700), id="short"),
        pytest.param(Load(27, 2 * HOUR_S), id="full", marks=pytest.mark.prove),
    ],
)
def test_a_receiver_that_fails_the_first_two_attempts_of_each_delivery_is_never_starved(load: Load) -> None:
    world, hook = fed(fails_first_two, load)
    world.run_until(load.for_s)
    in_time = hook.delivered

    assert set(hook.ended) == {Status.DELIVERED}
    # What the schedule itself lets wait: 305 s and their jitter before a third attempt, and one paced gap before that.
    assert in_time >= hook.arrived - load.per_s * 420
    world.run_until(load.for_s + 700)
    assert hook.delivered == hook.arrived
    assert hook.attempts == 3 * hook.arrived
    report(
        "A receiver that fails the first two attempts of each delivery",
        {"events": hook.arrived, "delivered at the end of the load": in_time, "delivered 700 s later": hook.delivered},
    )


@pytest.mark.parametrize(
    "load",
    [
        pytest.param(Load(2, HOUR_S), id="short"),
        pytest.param(Load(5, 6 * HOUR_S), id="full", marks=pytest.mark.prove),
    ],
)
@pytest.mark.parametrize("outage", [refuses, hangs()], ids=["refuses", "hangs"])
def test_after_an_outage_everything_that_waited_is_delivered_and_new_events_are_at_once(
    load: Load, outage: Behaviour
) -> None:
    hook = Hook("wh_a", from_then_on(load.for_s, outage, well(0.05)))
    world = World([hook])
    world.feed(hook, load.per_s, load.for_s + 1200)
    world.run_until(load.for_s)
    assert hook.delivered == 0
    attempts = hook.attempts
    world.run_until(load.for_s + 600)
    waits = world.waiting(hook)
    world.run_until(load.for_s + 1200)

    # 32 at once of 0.05 s each are 640/s; only what was tried during the outage waits for its own step.
    assert waits <= attempts + load.per_s
    fresh = hook.waited_s[-round(load.per_s * 300) :]
    assert max(fresh) < 0.1
    world.run_until(load.for_s + 4 * DAY_S)
    given_up = hook.ended[Status.FAILED]
    assert hook.delivered + given_up == hook.arrived
    assert given_up <= attempts / 10
    report(
        f"An outage of {load.for_s / HOUR_S:.0f} h at {load.per_s:.0f} events/s",
        {"waited": round(load.per_s * load.for_s), "attempts meanwhile": attempts, "left after 10 min": waits},
    )


def test_a_receiver_that_works_again_is_back_at_full_rate_within_a_minute() -> None:
    away_s = 300.0
    hook = Hook("wh_a", from_then_on(away_s, hangs(), well(0.05)))
    world = World([hook])
    world.feed(hook, 100, away_s + 60)
    world.run_until(away_s + 60)
    started = [at_s for at_s in hook.started if away_s + 59 <= at_s]

    # The most that 32 at once can do.
    assert len(started) >= 0.9 * 32 / 0.05


@pytest.mark.parametrize("blip_s", [5, 15, 30])
def test_a_short_absence_costs_a_few_seconds(blip_s: float) -> None:
    hook = Hook("wh_a", lambda attempt, now_s: refuses(attempt, now_s) if 60 <= now_s < 60 + blip_s else Reply(0.01))
    world = World([hook])
    world.feed(hook, 20, 600)
    world.run_until(60 + blip_s + max(5, blip_s))

    assert world.waiting(hook) <= hook.attempts - hook.delivered
    assert hook.started[-1] > world.now.monotonic_s - 1


@pytest.mark.parametrize("dead", [0, 18, 100])
def test_a_receiver_that_fails_four_of_five_deliveries_gets_the_others_also_while_many_are_dead(dead: int) -> None:
    mixed = Hook("wh_a", well(0.02), poison=lambda number: number % 5 != 0)
    storm = [Hook(f"wh_{n:03}", refuses) for n in range(dead)]
    world = World([mixed, *storm])
    world.feed(mixed, 20, 200)
    for hook in storm:
        world.feed(hook, 576 / dead, 60)
    world.run_until(201)

    assert mixed.delivered >= 0.95 * mixed.healthy


def test_a_paced_receiver_that_fails_four_of_five_deliveries_gets_the_others() -> None:
    hook = Hook("wh_a", well(0.02), poison=lambda number: number % 5 != 0)
    world = World([hook])
    world.feed(hook, 2, 600)
    world.run_until(660)

    assert hook.delivered >= 0.95 * hook.healthy


@pytest.mark.parametrize("dead", [18, 100])
def test_receivers_that_fail_at_once_share_their_attempts_until_they_are_paced(dead: int) -> None:
    hooks = [Hook(f"wh_{n:03}", (refuses, resets, breaks)[n % 3]) for n in range(dead)]
    world = World(hooks, numbers=4)
    for hook in hooks:
        world.feed(hook, 576 / dead, 10)
    world.run_until(2.5)
    before = Counter({hook.id: hook.attempts for hook in hooks})
    world.run_until(9.5)
    later = [hook.attempts - before[hook.id] for hook in hooks]

    # 576 events a second, and each of them again after five seconds.
    assert sum(later) <= 7 * FAILING_PER_S * 1.5
    assert min(later) >= 0.5 * sum(later) / dead


def test_one_that_fails_alone_is_not_slowed_down_before_it_is_paced() -> None:
    world, hook = fed(refuses, Load(200, 10))
    world.run_until(4.9)

    assert hook.attempts >= 200 * 4.9 - 5


@pytest.mark.parametrize("behaviour", [refuses, hangs()], ids=["refuses", "hangs"])
def test_a_dead_receiver_is_asked_twice_a_minute_and_disabled_after_five_days(behaviour: Behaviour) -> None:
    world, hook = fed(behaviour, Load(0.03, 6 * DAY_S))
    world.run_until(5 * DAY_S)
    assert hook.disabled_at_s is None
    world.run_until(5 * DAY_S + 60)

    assert hook.disabled_at_s is not None
    assert hook.disabled_at_s >= 5 * DAY_S
    assert hook.attempts <= 5 * DAY_S / 30 + 500
    assert world.waiting(hook) == 0
    missed = hook.ended[Status.MISSED]
    world.run_until(5 * DAY_S + 160)
    assert hook.ended[Status.MISSED] == missed + 3


@pytest.mark.prove
def test_a_dead_receiver_at_an_event_a_second_is_disabled_after_five_days() -> None:
    world, hook = fed(refuses, Load(1, 5.1 * DAY_S))
    world.run_until(5 * DAY_S + 60)

    assert hook.disabled_at_s is not None
    assert 5 * DAY_S <= hook.disabled_at_s <= 5 * DAY_S + 45
    assert hook.ended[Status.MISSED] + hook.ended[Status.FAILED] == hook.arrived
    report(
        "A dead receiver at one event a second",
        {
            "attempts in 5 days": hook.attempts,
            "given up before": hook.ended[Status.FAILED],
            "missed": hook.ended[Status.MISSED],
            "disabled after": f"5 days and {hook.disabled_at_s - 5 * DAY_S:.0f} s",
        },
    )
