"""What webhooks hear of each other: never of themselves, and never without end."""

from __future__ import annotations

from collections import Counter

import orjson
import pytest

from app.events import decode_record
from app.webhooks.matching import MatchIndex
from app.webhooks.model import Health, Status
from app.webhooks.owned import DeliveryOptions
from app.webhooks.schedule import RetrySchedule
from tests.support.webhooks import OK, TOPICS, Desk, answer, webhook_row

EAGER = DeliveryOptions(schedule=RetrySchedule((0, 1, 1, 1, 1, 1)))
HOOKS = ("wh_a", "wh_b")


class Circle:
    """Webhooks that ask for `webhook.*`, whose events come back to them as the router would send them."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.index = MatchIndex()
        for webhook in HOOKS:
            self.index.set(webhook, ("webhook.*",))
        self.told: Counter[str] = Counter()
        self._read = 0

    async def turn(self) -> None:
        """What was announced since the last turn reaches those that it is for."""
        sent = self.desk.context.sent_to(TOPICS.events)
        for record in sent[self._read :]:
            event = decode_record(record.value, record.headers)
            for webhook in self.index.match(event):
                assert event.data["webhook_id"] != webhook
                self.told[webhook] += 1
                fields = {"type": event.type, "data": event.data}
                await self.desk.deliver(self.desk.intent(event.id, webhook, **fields))
        self._read = len(sent)

    async def hours(self, hours: float) -> None:
        for _ in range(round(hours * 60)):
            await self.desk.pass_time(60)
            await self.turn()


@pytest.fixture
async def circle() -> Circle:
    rows = [webhook_row(webhook, events=("webhook.*", "dataset.*")) for webhook in HOOKS]
    return Circle(await Desk(options=EAGER).open(*rows))


async def test_two_that_fail_four_attempts_of_everything_do_not_tell_each_other_for_ever(circle: Circle) -> None:
    fails = [answer(500)] * 4
    for webhook in HOOKS:
        circle.desk.receiver.will_answer(*fails, OK, event_id=f"first-{webhook}")
        await circle.desk.deliver(circle.desk.intent(f"first-{webhook}", webhook))
    circle.desk.receiver.fails_first(4)
    await circle.hours(2)

    announced = circle.desk.sent(TOPICS.events)
    assert circle.told == {"wh_a": 2, "wh_b": 2}
    assert len(announced) < 20
    assert {event["data"]["webhook_id"] for event in announced} == set(HOOKS)
    await circle.desk.context.close(circle.desk.processor)


async def test_a_receiver_that_is_gone_is_told_to_the_other_one_and_what_it_misses_is_recorded(circle: Circle) -> None:
    circle.desk.receiver.will_answer(answer(410), event_id="e1")
    await circle.desk.deliver(circle.desk.intent("e1", "wh_a"))
    await circle.hours(0.1)
    await circle.desk.deliver(circle.desk.intent("e2", "wh_a"))

    webhook, missed = circle.desk.webhook("wh_a"), circle.desk.row("e2", "wh_a")
    assert webhook is not None
    assert missed is not None
    assert (webhook.health, missed.status) == (Health.DISABLED, Status.MISSED)
    assert circle.told == {"wh_b": 1}
    (request,) = circle.desk.receiver.requests[1:]
    assert orjson.loads(request.body)["type"] == "llm.data-vault.webhook.disabled"
    await circle.desk.context.close(circle.desk.processor)


async def test_five_days_without_a_success_disable_and_what_still_waits_is_missed() -> None:
    desk = await Desk(options=DeliveryOptions(disable_after_s=5 * 86_400)).open(webhook_row())
    desk.receiver.always(answer(500))
    for day in range(4):
        await desk.deliver(*(desk.intent(f"e{day}-{n}") for n in range(4)))
        await desk.pass_time(86_400)
    webhook = desk.webhook()
    assert webhook is not None
    assert webhook.health is Health.FAILING
    await desk.pass_time(2 * 86_400)

    webhook = desk.webhook()
    assert webhook is not None
    assert (webhook.health, webhook.disabled_reason) == (Health.DISABLED, "no_success")
    assert webhook.disabled_at_ms is not None
    assert webhook.failing_since_ms is not None
    assert webhook.disabled_at_ms - webhook.failing_since_ms >= 5 * 86_400_000
    assert desk.sent(TOPICS.events)[-1]["type"] == "llm.data-vault.webhook.disabled"
    rows = [desk.row(f"e3-{n}") for n in range(4)]
    assert Status.MISSED in {row.status for row in rows if row is not None}
    await desk.context.close(desk.processor)
