"""Two owners of the same webhooks over the same random histories: one puts those that rest away, at random moments.

Nobody can tell which is which: they post the same requests at the same times, write the same rows, send the same
records and tell the API the same, whatever comes, fails, is limited, held or changed in between. An hour without
attempts is left out of it, so that the rest of the rule is tried at moments when it matters; it has tests of its own.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant

from agents.webhooks.holdings import Holdings
from app.engine import Record
from app.webhooks.backlog import Backlog
from app.webhooks.commands import Op, WebhookPatch
from app.webhooks.health import Heart
from app.webhooks.intents import IntentReason
from app.webhooks.model import Ordering, SealedSecret
from app.webhooks.owned import DeliveryOptions, OwnedWebhook
from app.webhooks.pace import GlobalSlots, Pace, PaceRules
from app.webhooks.receiver_state import Receiver
from app.webhooks.recent import Recent
from app.webhooks.schedule import RetrySchedule
from app.webhooks.scheduler import Scheduler
from app.webhooks.secrets import KeyRing, new_secret
from app.webhooks.sender import AttemptOutcome
from tests.support.machines import Machine, action, caught, play
from tests.support.memory_unit import FakeClock, MemoryRows
from tests.support.webhooks import KEYS, TIMEOUT, Desk, answer, webhook_row

RULES = PaceRules(after_failures=3, after_s=1.0, max_gap_s=8.0)
OPTIONS = DeliveryOptions(
    schedule=RetrySchedule((0, 2, 6)), max_in_flight=6, max_age_s=300.0, disable_after_s=60.0, pace=RULES
)
SLOW = AttemptOutcome(duration_ms=1500, error=None, status=200)
ANSWERS = [answer(500), answer(400), answer(410), answer(429, retry_after_s=5), answer(503), TIMEOUT, SLOW]
ELSEWHERE = KeyRing(["k9:" + "A" * 43 + "="], bytes)
HOOKS = ("wh_plain", "wh_limited", "wh_strict", "wh_sick", "wh_keyless")
ROWS = (
    webhook_row("wh_plain"),
    webhook_row("wh_limited", rate_limit_per_s=0.5),
    webhook_row("wh_strict", ordering=Ordering.STRICT, max_in_flight=2),
    webhook_row("wh_sick", max_in_flight=5),
    webhook_row("wh_keyless", secrets=(SealedSecret(sealed=ELSEWHERE.seal("wh_keyless", new_secret(bytes))),)),
)
PATCHES = [
    WebhookPatch(rate_limit_per_s=0.2),
    WebhookPatch(rate_limit_per_s=None),
    WebhookPatch(max_in_flight=1),
    WebhookPatch(max_in_flight=6),
    WebhookPatch(ordering=Ordering.STRICT),
    WebhookPatch(ordering=Ordering.BEST_EFFORT),
    WebhookPatch(url="https://elsewhere.example.com/hook"),
    WebhookPatch(description="x"),
]


class Twins(Machine):
    """`put_away` counts how often a webhook was, over all histories."""

    put_away = 0

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.clock = FakeClock()
        self.events = 0
        self.commands = 0
        # The first is like any worker's: its monotonic clock has run for a while.
        self.clock.advance(1000)
        self.holding, self.resting = (self.loop.run(self._open(MemoryRows(), *ROWS)) for _ in range(2))
        self._settle()

    @property
    def both(self) -> tuple[Desk, Desk]:
        return self.holding, self.resting

    async def _open(self, rows: MemoryRows, *webhooks: Any) -> Desk:
        return await Desk(rows=rows, clock=self.clock, options=OPTIONS, slots=GlobalSlots(16)).open(*webhooks)

    def _settle(self) -> None:
        # Only where a history says so.
        self.holding.processor._resting._may_go = lambda *_: False  # type: ignore[method-assign]
        self.resting.processor._resting.look_at_s = self.holding.processor._resting.look_at_s = 1e12

    def run(self, work: Callable[[Desk], Coroutine[Any, Any, Any]]) -> None:
        for desk in self.both:
            self.loop.run(work(desk))

    def deliver(self, *records: Record) -> None:
        self.run(lambda desk: desk.deliver(*records))

    def _record(self, hook: str, subject: str | None) -> Record:
        self.events += 1
        return self.holding.intent(f"e{self.events}", hook, **({} if subject is None else {"subject": subject}))

    # -- what the world does

    @action(6)
    def events_come(self, data: st.DataObject) -> None:
        some = st.lists(st.tuples(st.sampled_from(HOOKS), st.sampled_from(["a", "b", None])), min_size=1, max_size=4)
        self.deliver(*[self._record(hook, subject) for hook, subject in data.draw(some)])

    @action(2)
    def many_come_for_one(self, data: st.DataObject) -> None:
        self.many_come(data.draw(st.sampled_from(HOOKS)))

    @action(2)
    def the_next_of_them_will_be_answered_otherwise(self, data: st.DataObject) -> None:
        event = f"e{self.events + data.draw(st.integers(1, 3))}"
        outcomes = data.draw(st.lists(st.sampled_from(ANSWERS), min_size=1, max_size=3))
        for desk in self.both:
            desk.receiver.will_answer(*outcomes, event_id=event)

    @action(1)
    def the_receivers_answer_like_this_from_now_on(self, data: st.DataObject) -> None:
        self.all_answer(data.draw(st.sampled_from([answer(200), answer(200), answer(500), TIMEOUT, SLOW])))

    @action(1)
    def the_receivers_hang(self, data: st.DataObject) -> None:
        self.hang()

    @action(3)
    def the_receivers_answer(self, data: st.DataObject) -> None:
        for desk in self.both:
            desk.receiver.release()
        self.run(Desk.settle)

    @action(5)
    def time_passes(self, data: st.DataObject) -> None:
        self.pass_time(data.draw(st.sampled_from([0.1, 0.3, 0.6, 1.1, 3.0, 9.0, 70.0, 400.0])))

    @action(1)
    def the_time_of_day_is_set(self, data: st.DataObject) -> None:
        self.clock.advance_wall(data.draw(st.sampled_from([-90.0, -3.0, 3.0])))

    @action(3)
    def a_webhook_is_changed(self, data: st.DataObject) -> None:
        self.commands += 1
        hook = data.draw(st.sampled_from(HOOKS))
        op = data.draw(st.sampled_from([Op.UPDATE, Op.UPDATE, Op.ENABLE, Op.ENABLE, Op.DISABLE, Op.HOLD, Op.ROTATE]))
        more: dict[str, Any] = {}
        if op is Op.UPDATE:
            more["patch"] = data.draw(st.sampled_from(PATCHES))
        if op is Op.HOLD:
            until_ms = data.draw(st.sampled_from([None, self.clock.now_ms() + 5000]))
            more["patch"] = WebhookPatch(hold_until_ms=until_ms)
        if op is Op.ROTATE:
            fresh = new_secret(lambda n: bytes([self.commands % 256]) * n)
            more["secrets"] = (SealedSecret(sealed=KEYS.seal(hook, fresh)),)
        self.deliver(self.holding.command(op, hook, command_id=f"c{self.commands}", **more))

    @action(1)
    def a_webhook_is_deleted_and_made_again(self, data: st.DataObject) -> None:
        self.commands += 1
        hook = data.draw(st.sampled_from(HOOKS))
        self.deliver(self.holding.command(Op.DELETE, hook, command_id=f"c{self.commands}"))
        patch = WebhookPatch(url="https://again.example.com/hook", events=("*",), rate_limit_per_s=0.5)
        secrets = (SealedSecret(sealed=KEYS.seal(hook, new_secret(bytes))),)
        again = self.holding.command(Op.CREATE, hook, patch=patch, secrets=secrets, command_id=f"d{self.commands}")
        self.deliver(again)

    @action(2, when=lambda self: self.events)
    def an_event_is_sent_again(self, data: st.DataObject) -> None:
        event, hook = f"e{data.draw(st.integers(1, self.events))}", data.draw(st.sampled_from(HOOKS))
        request_id = f"r{data.draw(st.integers(0, 3))}"
        self.deliver(self.holding.intent(event, hook, reason=IntentReason.RESEND, request_id=request_id))

    @action(1)
    def the_number_is_opened_again(self, data: st.DataObject) -> None:
        undone, offsets = self.holding.context.unfinished, self.holding._offsets
        self.run(lambda desk: desk.context.close(desk.processor))
        self.holding, self.resting = (self.loop.run(self._open(desk.context.rows)) for desk in self.both)
        self.holding._offsets = offsets
        self._settle()
        if undone:
            self.deliver(*undone)

    @action(8)
    def what_rests_is_put_away(self, data: st.DataObject) -> None:
        self.rest()

    # -- the same, without chance

    def many_come(self, hook: str) -> None:
        self.deliver(*[self._record(hook, None) for _ in range(7)])

    def all_answer(self, outcome: AttemptOutcome) -> None:
        for desk in self.both:
            desk.receiver.always(outcome)

    def hang(self) -> None:
        for desk in self.both:
            desk.receiver.hold()

    def pass_time(self, seconds: float) -> None:
        end_s = self.clock.monotonic_s() + seconds
        self.run(Desk.settle)
        while ticks := [at for desk in self.both if (at := desk.context.next_tick_s) is not None and at <= end_s]:
            self.clock.advance(max(min(ticks) - self.clock.monotonic_s(), 0.001))
            self.run(Desk.settle)
        self.clock.advance(max(0.0, end_s - self.clock.monotonic_s()))
        self.run(Desk.settle)

    def rest(self) -> None:
        self.loop.run(self.holding.context.tick(self.holding.processor))
        resting, holdings = self.resting.processor._resting, self.resting.processor._holdings
        before = len(holdings.webhooks)
        for webhook in holdings.webhooks.values():
            webhook.needed = False
        resting.look_at_s = 0.0
        self.loop.run(self.resting.context.tick(self.resting.processor))
        resting.look_at_s = 1e12
        Twins.put_away += before - len(holdings.webhooks)
        self.run(Desk.settle)

    # -- what must hold

    @invariant()
    def nobody_can_tell_them_apart(self) -> None:
        holding, resting = self.both
        assert resting.receiver.requests == holding.receiver.requests
        assert resting.context.rows.of == holding.context.rows.of
        assert resting.context.sent == holding.context.sent
        assert resting.context.unfinished == holding.context.unfinished
        assert self._told(resting) == self._told(holding)

    def _told(self, desk: Desk) -> list[Any]:
        holdings: Holdings = desk.processor._holdings
        activities = [dataclasses.replace(holdings.activity(hook, self.clock.now_ms()), buckets=[]) for hook in HOOKS]
        census = holdings.census
        return [activities, census._waiting, census._health, census._in_flight, census._keyless, desk.slots.free]

    def teardown(self) -> None:
        for desk in self.both:
            desk.receiver.release()
            self.loop.run(desk.context.close(desk.processor))
        self.loop.close()


@pytest.fixture
def _at_any_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Recent, "over", lambda *_: True)


@pytest.mark.usefixtures("_at_any_moment")
@pytest.mark.parametrize(
    "histories", [pytest.param(40, id="short"), pytest.param(3_000, id="full", marks=pytest.mark.prove)]
)
def test_nobody_can_tell_whether_a_webhook_was_put_away(histories: int) -> None:
    before = Twins.put_away
    play(Twins, histories, 40, "Model: webhooks that rest")
    assert Twins.put_away - before > histories


def without(kind: type, rule: str, field: str, value: Callable[[Any], Any]) -> Callable[[pytest.MonkeyPatch], None]:
    """A rule that does not look at one of its fields: it sees another value."""
    original = getattr(kind, rule)

    def blind(self: Any, now: Any) -> bool:
        kept = getattr(self, field)
        setattr(self, field, value(self))
        try:
            return bool(original(self, now))
        finally:
            setattr(self, field, kept)

    return lambda monkeypatch: monkeypatch.setattr(kind, rule, blind)


def _what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.webhooks.brief_waits.BriefWaits.concern", lambda *_: False)
    without(Receiver, "spare", "backlog", lambda _: Backlog(strict=False))(monkeypatch)


def _failures(monkeypatch: pytest.MonkeyPatch) -> None:
    # They are counted twice: for its pace, and for its health.
    without(Receiver, "spare", "pace", lambda _: Pace(RULES))(monkeypatch)
    without(OwnedWebhook, "rests", "heart", lambda webhook: Heart.of(webhook.row))(monkeypatch)


def _a_limited_one(twins: Twins) -> None:
    twins.deliver(twins.holding.intent("first", "wh_limited"))
    twins.pass_time(0.6)
    twins.rest()
    twins.deliver(twins.holding.intent("second", "wh_limited"))


def _one_that_failed(twins: Twins) -> None:
    twins.all_answer(answer(500))
    twins.deliver(twins.holding.intent("first", "wh_plain"), twins.holding.intent("second", "wh_plain"))
    twins.pass_time(120)
    twins.rest()
    twins.deliver(twins.holding.intent("next", "wh_plain"))


def _one_on_hold(twins: Twins) -> None:
    patch = WebhookPatch(hold_until_ms=twins.clock.now_ms() + 5000)
    twins.deliver(twins.holding.command(Op.HOLD, "wh_plain", patch=patch))
    twins.pass_time(0.6)
    twins.rest()


def _one_that_has_shown_what_it_takes(twins: Twins) -> None:
    twins.many_come("wh_plain")
    twins.pass_time(1.1)
    twins.rest()
    twins.hang()
    twins.many_come("wh_plain")


def _one_that_is_slow(twins: Twins) -> None:
    twins.all_answer(SLOW)
    twins.deliver(twins.holding.intent("first", "wh_plain"), twins.holding.intent("first", "wh_sick"))
    twins.pass_time(1.1)
    twins.rest()
    twins.hang()
    for hook in ("wh_plain", "wh_sick"):
        twins.many_come(hook)


History = Callable[[Twins], None]
FORGOTTEN: dict[str, tuple[History, Callable[[pytest.MonkeyPatch], None]]] = {
    "a rate limit": (_a_limited_one, without(Receiver, "spare", "bucket", lambda _: None)),
    "failures": (_one_that_failed, _failures),
    "a hold": (_one_on_hold, without(Receiver, "spare", "hold_until_ms", lambda _: 0)),
    "slots": (
        _one_that_has_shown_what_it_takes,
        lambda monkeypatch: monkeypatch.setattr(Scheduler, "put_away", Scheduler.remove),
    ),
    "trouble": (_one_that_is_slow, lambda monkeypatch: monkeypatch.setattr(GlobalSlots, "troubled", lambda *_: False)),
}


def tell_apart(history: History) -> None:
    twins = Twins()
    try:
        history(twins)
        twins.nobody_can_tell_them_apart()
    finally:
        twins.teardown()


@pytest.mark.usefixtures("_at_any_moment")
@pytest.mark.parametrize("kept", FORGOTTEN)
def test_nobody_can_tell_by(kept: str) -> None:
    tell_apart(FORGOTTEN[kept][0])


@pytest.mark.usefixtures("_at_any_moment")
def test_nobody_can_tell_by_what_waited_before_the_time_of_day_was_set_back() -> None:
    def history(twins: Twins) -> None:
        twins.many_come("wh_limited")
        twins.pass_time(20)
        twins.rest()
        assert "wh_limited" not in twins.resting.processor._holdings.webhooks
        twins.clock.advance_wall(-70.0)
        twins.many_come("wh_limited")
        twins.pass_time(1.1)

    tell_apart(history)


@pytest.mark.usefixtures("_at_any_moment")
@pytest.mark.parametrize("forgotten", FORGOTTEN)
def test_forgetting_tells_them_apart(forgotten: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The counterproof: a webhook is put away with what only memory has of it."""
    history, forget = FORGOTTEN[forgotten]
    forget(monkeypatch)

    with pytest.raises(AssertionError):
        tell_apart(history)


@pytest.mark.usefixtures("_at_any_moment")
@pytest.mark.parametrize(
    "forget",
    [
        pytest.param(FORGOTTEN["a rate limit"][1], id="a rate limit"),
        pytest.param(FORGOTTEN["a hold"][1], id="a hold"),
        pytest.param(_what_waits, id="what waits"),
    ],
)
def test_forgetting_is_caught_by_chance(
    forget: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The counterproof of the random histories."""
    forget(monkeypatch)

    assert caught(Twins, 120, 40) is not None
