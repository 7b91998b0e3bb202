"""Health of a webhook: what changes it, and when."""

from __future__ import annotations

import msgspec

from app.webhooks.health import HealthChange, Heart, after_attempt, first_news
from app.webhooks.model import Health, WebhookRow
from tests.support.webhooks import webhook_row

NOW = 1_750_000_000_000
DAY_MS = 86_400_000
DISABLE_AFTER_MS = 5 * DAY_MS


def fail(
    heart: Heart, *, attempt: int = 1, at_ms: int = NOW, gone: bool = False, echo: bool = False
) -> tuple[Heart, HealthChange | None]:
    return after_attempt(
        heart, ok=False, gone=gone, attempt=attempt, now_ms=at_ms, disable_after_ms=DISABLE_AFTER_MS, echo=echo
    )


def succeed(heart: Heart) -> tuple[Heart, HealthChange | None]:
    return after_attempt(heart, ok=True, gone=False, attempt=1, now_ms=NOW, disable_after_ms=DISABLE_AFTER_MS)


def failed_times(count: int, *, since_ms: int = NOW) -> Heart:
    heart = Heart()
    for _ in range(count):
        heart, _change = fail(heart, at_ms=since_ms)
    return heart


def test_ten_failures_in_a_row_are_failing_and_nine_are_not() -> None:
    nine = failed_times(9)
    assert nine.health is Health.OK

    ten, change = fail(nine)

    assert ten.health is Health.FAILING
    assert change == HealthChange(Health.FAILING, "failures", NOW)


def test_a_success_in_between_starts_the_count_again() -> None:
    heart, change = succeed(failed_times(9))
    assert change is None

    heart, change = fail(heart)
    assert (heart.failures, change) == (1, None)


def test_the_fourth_attempt_of_one_delivery_is_failing() -> None:
    _, third = fail(Heart(), attempt=3)
    _, fourth = fail(Heart(), attempt=4)

    assert third is None
    assert fourth == HealthChange(Health.FAILING, "attempts", NOW)


def test_failing_is_announced_once() -> None:
    _, change = fail(failed_times(10), attempt=5)

    assert change is None


def test_the_first_success_is_a_recovery() -> None:
    heart, change = succeed(failed_times(10))

    assert heart == Heart()
    assert change == HealthChange(Health.OK, "success", NOW)


def test_five_days_without_a_success_and_ten_failures_disable() -> None:
    _, early = fail(failed_times(10), at_ms=NOW + DISABLE_AFTER_MS - 1)
    heart, change = fail(failed_times(10), at_ms=NOW + DISABLE_AFTER_MS)

    assert early is None
    assert heart.health is Health.DISABLED
    assert change == HealthChange(Health.DISABLED, "no_success", NOW)


def test_five_days_with_fewer_failures_do_not_disable() -> None:
    heart, change = fail(failed_times(8), at_ms=NOW + 2 * DISABLE_AFTER_MS)

    assert (heart.health, change) == (Health.OK, None)


def test_410_disables_at_once() -> None:
    _, change = fail(Heart(), gone=True)

    assert change == HealthChange(Health.DISABLED, "gone", NOW)


def test_answers_after_it_was_disabled_change_nothing() -> None:
    disabled = Heart(Health.DISABLED)

    assert succeed(disabled) == (disabled, None)
    assert fail(disabled) == (disabled, None)


def test_who_fails_only_at_hearing_of_others_is_failing_and_no_other_hears_of_it() -> None:
    heart, change = fail(Heart(), attempt=4, echo=True)
    assert change == HealthChange(Health.FAILING, "attempts", NOW, echo=True)

    heart, change = succeed(heart)
    assert (heart, change) == (Heart(), HealthChange(Health.OK, "success", NOW, echo=True))


def test_it_is_told_once_another_event_fails_too_and_so_is_its_recovery() -> None:
    heart, _ = fail(Heart(), attempt=4, echo=True)
    heart, again = fail(heart, attempt=5, echo=True)
    heart, change = fail(heart, attempt=4)
    _, recovery = succeed(heart)

    assert again is None
    assert change == HealthChange(Health.FAILING, "attempts", NOW)
    assert recovery == HealthChange(Health.OK, "success", NOW)


def test_an_end_is_always_told() -> None:
    _, change = fail(Heart(), gone=True, echo=True)

    assert change == HealthChange(Health.DISABLED, "gone", NOW)


def noted(row: WebhookRow, *, ok: bool) -> WebhookRow | None:
    return first_news(row, ok=ok, now_ms=NOW)


def test_the_first_failure_and_the_first_success_are_worth_a_row_and_what_comes_later_is_not() -> None:
    new = webhook_row()
    failing = noted(new, ok=False)
    assert failing == msgspec.structs.replace(new, first_failure_ms=NOW)
    assert Heart.of(failing) == Heart()
    assert noted(failing, ok=False) is None

    proven = noted(failing, ok=True)
    assert proven == msgspec.structs.replace(new, first_success_ms=NOW)
    assert noted(proven, ok=True) is None
    assert noted(proven, ok=False) is None


def test_what_its_health_says_already_is_no_first_news() -> None:
    for health in (Health.FAILING, Health.DISABLED):
        for ok in (True, False):
            assert noted(webhook_row(health=health), ok=ok) is None
