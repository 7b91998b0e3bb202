"""What docs/webhooks.md says of the options of a webhook is what the API, the command line and the settings take."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.cli.webhooks import create, update
from app.settings.model import WebhookSettings
from app.web.openapi import AREAS, openapi_document
from app.web.requests import MAX_KEY_CHARS
from app.webhooks.credentials import _NAME_PARTS, _VALUE_STARTS
from app.webhooks.errors import InvalidField
from app.webhooks.health import FAILING_ATTEMPT, FAILING_FAILURES
from app.webhooks.matching import MAX_FILTER_PATHS, MAX_FILTER_VALUES
from app.webhooks.model import WebhookRow
from app.webhooks.pace import FAILING_PER_S, FIRST_GAP_S, LATENESS_S, STEADY_AFTER_S, Slots
from app.webhooks.registration import Limits, read_registration
from app.webhooks.schedule import DEFAULT_STEPS_S, RetrySchedule
from app.webhooks.secrets import MAX_SECRET_BYTES, MIN_SECRET_BYTES, SECRET_BYTES, SECRET_PREFIX
from app.webhooks.sender import _RESERVED, _RESERVED_PREFIXES

DOCUMENT = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
TEXT = " ".join(DOCUMENT.split())
SETTINGS = WebhookSettings()
ROW = WebhookRow(webhook_id="wh_a", version=1, url="", events=(), created_at_ms=0, updated_at_ms=0)
SCHEMAS: dict[str, Any] = openapi_document(AREAS)["components"]["schemas"]
FIELDS: dict[str, Any] = SCHEMAS["WebhookCreate"]["properties"]
WORDS: dict[float, str] = {1: "a", 4: "four", 10: "ten"}
STEP: dict[str, Any] = FIELDS["retry_schedule_s"]["items"]
DAY_S = 86_400


def section(title: str) -> str:
    return re.split(r"^##+ ", DOCUMENT.partition(f"# {title}\n")[2], flags=re.MULTILINE)[0]


def options() -> dict[str, tuple[str, str, str]]:
    """By field: the command line, range and default, what it does."""
    found = {}
    for line in section("Its options").splitlines():
        if line.startswith("| `"):
            field, *others = (cell.strip() for cell in line.strip("|").split(" | "))
            command_line, range_and_default, does = others
            found[field.strip("` ")] = (command_line, range_and_default, does)
    return found


OPTIONS = options()


def between(schema: dict[str, Any], of: str = "imum") -> str:
    least, most = (schema[name] for name in (("minimum", "maximum") if of == "imum" else (f"min{of}", f"max{of}")))
    return f"{least:g} to {most:,}"


def many_headers(count: int) -> dict[str, str]:
    return {f"X-{number}": "x" for number in range(count)}


def test_the_fields_are_those_of_the_api_and_the_required_ones_are_named() -> None:
    assert OPTIONS.keys() == FIELDS.keys()
    needed = {field for field, (_, range_, _) in OPTIONS.items() if range_.endswith("must be given")}
    assert needed == set(SCHEMAS["WebhookCreate"]["required"])
    assert FIELDS.keys() - SCHEMAS["WebhookPatch"]["properties"].keys() == {"secret"}


@pytest.mark.parametrize(
    ("field", "range_and_default", "values"),
    [
        ("url", "up to {:,} characters; must be given", (FIELDS["url"]["maxLength"],)),
        ("events", "{}; must be given", (between(FIELDS["events"], "Items"),)),
        ("description", "{} characters; none", (between(FIELDS["description"], "Length"),)),
        (
            "retry_schedule_s",
            "{} steps, each {} ({:g} days); `WEBHOOKS__RETRY_SCHEDULE_S`",
            (between(FIELDS["retry_schedule_s"], "Items"), between(STEP), STEP["maximum"] / DAY_S),
        ),
        ("timeout_s", "{}; `WEBHOOKS__TIMEOUT_S`, {:g}", (between(FIELDS["timeout_s"]), SETTINGS.timeout_s)),
        ("rate_limit_per_s", "{}; no limit", (between(FIELDS["rate_limit_per_s"]),)),
        (
            "max_in_flight",
            "{} to `WEBHOOKS__MAX_IN_FLIGHT`, {}; as many",
            (FIELDS["max_in_flight"]["minimum"], SETTINGS.max_in_flight),
        ),
        (
            "headers",
            "up to {}, values up to {:,} characters; none",
            (FIELDS["headers"]["maxProperties"], FIELDS["headers"]["additionalProperties"]["maxLength"]),
        ),
        ("ordering", "`{}`, `{}`; `{}`", (*FIELDS["ordering"]["enum"], ROW.ordering.value)),
        ("signatures", "`{}`, with or without `{}`; `{}`", (*FIELDS["signatures"]["items"]["enum"], *ROW.signatures)),
        ("handshake", "true, false; {}", (str(ROW.handshake).lower(),)),
        ("enabled", "true, false; {}", (str(ROW.enabled).lower(),)),
        (
            "secret",
            "`{}` and base64 of {} to {} bytes; {} random bytes",
            (SECRET_PREFIX, MIN_SECRET_BYTES, MAX_SECRET_BYTES, SECRET_BYTES),
        ),
    ],
)
def test_range_and_default_are_those_of_the_api(field: str, range_and_default: str, values: tuple[Any, ...]) -> None:
    assert OPTIONS[field][1] == range_and_default.format(*values)


@pytest.mark.parametrize(
    ("field", "taken", "refused"),
    [
        ("events", ["*"] * FIELDS["events"]["maxItems"], ["*"] * (FIELDS["events"]["maxItems"] + 1)),
        ("description", "x" * FIELDS["description"]["maxLength"], "x" * (FIELDS["description"]["maxLength"] + 1)),
        ("retry_schedule_s", [STEP["maximum"]] * FIELDS["retry_schedule_s"]["maxItems"], [STEP["maximum"] + 1]),
        ("retry_schedule_s", [STEP["minimum"]], [0] * (FIELDS["retry_schedule_s"]["maxItems"] + 1)),
        ("timeout_s", FIELDS["timeout_s"]["minimum"], FIELDS["timeout_s"]["minimum"] * 0.99),
        ("timeout_s", FIELDS["timeout_s"]["maximum"], FIELDS["timeout_s"]["maximum"] * 1.01),
        ("rate_limit_per_s", FIELDS["rate_limit_per_s"]["minimum"], FIELDS["rate_limit_per_s"]["minimum"] * 0.99),
        ("rate_limit_per_s", FIELDS["rate_limit_per_s"]["maximum"], FIELDS["rate_limit_per_s"]["maximum"] * 1.01),
        ("max_in_flight", SETTINGS.max_in_flight, SETTINGS.max_in_flight + 1),
        (
            "headers",
            many_headers(FIELDS["headers"]["maxProperties"]),
            many_headers(FIELDS["headers"]["maxProperties"] + 1),
        ),
    ],
)
def test_the_ends_of_a_range_are_taken_and_no_more(field: str, taken: object, refused: object) -> None:
    limits = Limits(max_in_flight=SETTINGS.max_in_flight, signing_key=False)
    body = {"url": "https://example.com", "events": ["*"]}

    read_registration({**body, field: taken}, limits)
    with pytest.raises(InvalidField) as refusal:
        read_registration({**body, field: refused}, limits)
    assert refusal.value.field.startswith(f"/{field}")


def test_a_webhook_that_sets_nothing_has_the_settings_schedule_and_limits_and_no_rate_limit() -> None:
    optional = ("retry_schedule_s", "timeout_s", "max_in_flight", "rate_limit_per_s", "description", "filter")

    assert [getattr(ROW, name) for name in optional] == [None] * len(optional)
    assert msgspec.to_builtins(ROW).get("headers", {}) == {}


def test_the_options_of_the_command_line_are_all_there() -> None:
    named = {option for command_line, _, _ in OPTIONS.values() for option in re.findall(r"--[a-z0-9-]+", command_line)}
    taken = {
        command.name: {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
        for command in (create, update)
    }

    assert named == taken["create"] - {"--json", "--idempotency-key"}
    assert taken["update"] - {"webhook_id", "--json", "--if-version"} <= named


def test_a_schedule_has_as_many_attempts_as_steps() -> None:
    assert "`[0, 5, 300]` is three attempts" in OPTIONS["retry_schedule_s"][2]
    assert RetrySchedule.of([0, 5, 300]).attempts == 3


def test_a_receiver_that_asks_for_more_than_the_longest_step_does_not_get_it() -> None:
    assert "a `Retry-After` is cut to the longest of them" in OPTIONS["retry_schedule_s"][2]
    schedule = RetrySchedule.of([0, 300, 5])
    assert schedule.hold_s(1, 301) == 300
    assert schedule.next_wait_s(2, lambda: 0.0, 301) == 300


def test_slots_grow_and_shrink_as_the_page_says() -> None:
    assert "4 at first, twice as many after each success, half after a timeout" in OPTIONS["max_in_flight"][2]
    slots = Slots(100)
    seen = [slots.cap]
    for change in (slots.grow, slots.grow, slots.shrink):
        change()
        seen.append(slots.cap)

    assert seen == [4, 8, 16, 8]


@pytest.mark.parametrize(
    ("sentence", "numbers"),
    [
        ("At most {} paths, {} values each.", (MAX_FILTER_PATHS, MAX_FILTER_VALUES)),
        ("(1 to {} printable ASCII characters; `webhooks create --idempotency-key`)", (MAX_KEY_CHARS,)),
        ("at most 1 + rate x (t + {:g}) attempts begin, in even steps; the {:g} s", (LATENESS_S, LATENESS_S)),
        (
            "({} failed attempts in a row, or {} of one delivery)",
            (WORDS[FAILING_FAILURES], WORDS[FAILING_ATTEMPT]),
        ),
        (
            "after {} failures in a row over {} seconds by one attempt at a time",
            (WORDS[SETTINGS.pace_after_failures], WORDS[SETTINGS.pace_after_s]),
        ),
        ("with pauses of {:g} s that double up to {:g} s", (FIRST_GAP_S, SETTINGS.pace_max_gap_s)),
        ("(reason `pace`) after its pause of up to {:g} s", (SETTINGS.pace_max_gap_s,)),
        (
            "after {} second of failures, all webhooks of a worker that fail share {} attempts a second",
            (WORDS[STEADY_AFTER_S], FAILING_PER_S),
        ),
    ],
)
def test_a_number_of_the_page_is_the_one_of_the_code(sentence: str, numbers: tuple[Any, ...]) -> None:
    assert sentence.format(*numbers) in TEXT


def test_a_strict_subject_may_wait_for_more_than_three_days_and_not_for_four() -> None:
    assert "with the default schedule after more than three days" in TEXT
    assert 3 * DAY_S < sum(DEFAULT_STEPS_S) < 4 * DAY_S


def test_the_reserved_names_and_what_looks_like_a_credential_are_those_of_the_code() -> None:
    rules = section("Rate, order and headers").partition("Reserved are")[2]
    reserved, _, credentials = rules.partition("Values that look like credentials")
    whole, _, beginnings = reserved.partition("all that begin with")
    starts, _, parts = credentials.partition("those whose name has")

    def named(text: str) -> set[str]:
        return {name.lower() for name in re.findall(r"`([^`]+)`", text)}

    assert named(whole) == _RESERVED
    assert named(beginnings) == set(_RESERVED_PREFIXES)
    assert {start + " " for start in named(starts)} == set(_VALUE_STARTS)
    assert named(parts) == set(_NAME_PARTS)
