"""A webhook that asks for v1a gets it with each request, or none: its receiver may verify nothing else."""

from __future__ import annotations

import logging

import pytest

from app.webhooks.census import webhooks_without_key
from app.webhooks.commands import Op, WebhookPatch
from app.webhooks.model import Reason, Status
from app.webhooks.owned import KeySetting
from tests.support.signed_requests import new_signing_key
from tests.support.webhooks import Desk, header, webhook_row

BOTH = ("v1", "v1a")
KEY = new_signing_key("2026")


def versions(desk: Desk) -> list[list[str]]:
    """Of the signatures of each request."""
    signatures = [header(request, "webhook-signature").split(" ") for request in desk.receiver.requests]
    return [[one.partition(",")[0] for one in those] for those in signatures]


async def closed(desk: Desk) -> None:
    await desk.context.close(desk.processor)


async def test_with_its_key_gone_nothing_is_sent_until_the_worker_is_started_with_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    desk = await Desk().open(webhook_row(signatures=BOTH), webhook_row("wh_b"))
    with caplog.at_level(logging.ERROR):
        await desk.deliver(desk.intent("e1"), desk.intent("e2"), desk.intent("of-another", "wh_b"))
    assert [(one.getMessage(), vars(one)["webhook_id"]) for one in caplog.records] == [
        ("the events of a webhook wait: a key of WEBHOOKS__SIGNING_KEYS is missing", "wh_a")
    ]
    await desk.pass_time(120)
    row = desk.row("e1")
    assert row is not None
    assert (row.status, row.reason, row.attempts) == (Status.PENDING, Reason.NO_KEY, 0)
    assert desk.receiver.events() == ["of-another"]
    assert webhooks_without_key() == {KeySetting.SIGNING: 1}
    await closed(desk)

    desk = await Desk(signing_key=KEY, rows=desk.context.rows, clock=desk.clock).open()
    await desk.deliver(desk.intent("e3"))

    assert desk.receiver.events() == ["e1", "e2", "e3"]
    assert versions(desk) == [["v1", "v1a"]] * 3
    assert webhooks_without_key() == {}
    await closed(desk)


async def test_one_that_asks_for_v1_alone_from_now_on_is_sent_what_waited() -> None:
    desk = await Desk().open(webhook_row(signatures=BOTH))
    await desk.deliver(desk.intent("e1"))
    await desk.deliver(desk.command(Op.UPDATE, patch=WebhookPatch(signatures=("v1",))))
    await desk.pass_time(60)

    assert versions(desk) == [["v1"]]
    await closed(desk)


async def test_one_that_asks_for_v1a_from_now_on_is_sent_nothing_without_it() -> None:
    desk = await Desk().open(webhook_row())
    await desk.deliver(desk.intent("e1"))
    await desk.deliver(desk.command(Op.UPDATE, patch=WebhookPatch(signatures=BOTH)))
    await desk.deliver(desk.intent("e2"))
    await desk.pass_time(60)

    assert versions(desk) == [["v1"]]
    await closed(desk)
