"""Every number that docs/receiving-webhooks.md promises is the one that the code has, where nobody sets another one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.settings.model import WebhookSettings
from app.web.webhook_changes import DEFAULT_OVERLAP_S, MAX_OVERLAP_S
from app.webhooks.delivery import _REJECTING, REJECTIONS_LIMIT
from app.webhooks.health import DISABLE_FAILURES
from app.webhooks.http.answers import MAX_BODY_BYTES, MAX_HEAD_BYTES
from app.webhooks.http.pool import KEEP_ALIVE_S
from app.webhooks.pace import FIRST_GAP_S
from app.webhooks.schedule import DEFAULT_STEPS_S, MAX_UNASKED_HOLD_S
from app.webhooks.sender import CONNECT_TIMEOUT_S, MAX_KEPT_BYTES

TEXT = " ".join((Path(__file__).parents[2] / "docs" / "receiving-webhooks.md").read_text().split())
SETTINGS = WebhookSettings()
KIB, HOUR_S, DAY_S = 1024, 3600, 86_400
ORDINALS = {3: "third"}


def test_the_settings_have_the_schedule_of_the_page() -> None:
    assert SETTINGS.retry_schedule_s == DEFAULT_STEPS_S


@pytest.mark.parametrize(
    ("sentence", "numbers"),
    [
        ("at most {} s. Answer within", (MAX_UNASKED_HOLD_S,)),
        ("Answer within {} s, with connecting ({} s)", (SETTINGS.timeout_s, CONNECT_TIMEOUT_S)),
        ("We read at most {} KiB of an answer", (MAX_BODY_BYTES / KIB,)),
        ("keep the first {} KiB of one that is not 2xx", (MAX_KEPT_BYTES / KIB,)),
        ("one whose header is over {} KiB (`too_large`)", (MAX_HEAD_BYTES / KIB,)),
        ("A connection is kept for {} s after an answer", (KEEP_ALIVE_S,)),
        ("Nothing older than {} days", (SETTINGS.max_age_s / DAY_S,)),
        ("After {} failures in a row over at least {} s", (SETTINGS.pace_after_failures, SETTINGS.pace_after_s)),
        ("one request at a time, with gaps that grow from {} to {} s", (FIRST_GAP_S, SETTINGS.pace_max_gap_s)),
        (
            "After {} days without a success, and at least {} failures, a webhook is disabled",
            (SETTINGS.disable_after_s / DAY_S, DISABLE_FAILURES),
        ),
        # What is delivered last is as old as a delivery can be.
        ("Keep the `webhook-id`s that you have processed for {} days", (SETTINGS.max_age_s / DAY_S,)),
        ("up to {} requests to one webhook", (SETTINGS.max_in_flight,)),
        ("({} h by default, 0 to {} days)", (DEFAULT_OVERLAP_S / HOUR_S, MAX_OVERLAP_S / DAY_S)),
    ],
)
def test_a_number_of_the_page_is_the_one_of_the_code(sentence: str, numbers: tuple[float, ...]) -> None:
    expected = sentence.format(*(f"{number:g}" for number in numbers))

    assert expected in TEXT


def test_the_rejections_are_those_of_the_page_and_are_given_up_when_it_says() -> None:
    (statuses, given_up_at) = re.findall(
        r"\| ([0-9, ]+) \| a rejection: tried again, and given up at the (\w+) such answer \|", TEXT
    )[0]

    assert set(map(int, statuses.split(", "))) == _REJECTING
    assert given_up_at == ORDINALS[REJECTIONS_LIMIT]
