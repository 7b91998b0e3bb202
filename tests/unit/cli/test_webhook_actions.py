"""`vault-stream webhooks update`, and what is done to a webhook by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.cli.webhooks import webhooks
from tests.support.scripted_api import Api, page, run

WEBHOOK: dict[str, Any] = {"id": "wh_a", "url": "https://example.com", "events": ["*"], "version": 4, "health": "ok"}


class TestUpdate:
    def test_sends_what_is_given_and_default_takes_an_option_back(self, api: Api) -> None:
        api.will_answer(WEBHOOK)
        result = run(
            webhooks,
            *("update", "wh_a", "--url", "https://example.com", "--if-version", "3", "--header", "X-Team: lake"),
            *("--timeout-s", "2.5", "--rate-limit-per-s", "default", "--retry-schedule-s", "[0, 5]"),
            *("--signature", "v1", "--signature", "v1a", "--handshake", "--filter", "default"),
        )
        assert result.exit_code == 0
        (asked,) = api.asked
        assert (asked.method, asked.path, asked.headers["If-Match"]) == ("PATCH", "/v1/webhooks/wh_a", '"3"')
        assert asked.body == {
            "url": "https://example.com",
            "headers": {"X-Team": "lake"},
            "timeout_s": 2.5,
            "rate_limit_per_s": None,
            "retry_schedule_s": [0, 5],
            "signatures": ["v1", "v1a"],
            "handshake": True,
            "filter": None,
        }

    @pytest.mark.parametrize(
        ("arguments", "word"),
        [
            ((), "nothing to change"),
            (("--timeout-s", "soon"), "--timeout-s is a number"),
            (("--max-in-flight", "true"), "--max-in-flight is a number"),
            (("--retry-schedule-s", "soon"), "--retry-schedule-s is no JSON"),
            (("--header", "hunter3"), "--header is written as"),
            (("--rate-limit-per-s", "NaN"), "--rate-limit-per-s is a number"),
        ],
    )
    def test_a_wrong_use_is_2_and_asks_nobody(self, api: Api, arguments: tuple[str, ...], word: str) -> None:
        result = run(webhooks, "update", "wh_a", *arguments)
        assert result.exit_code == 2
        assert word in result.stderr
        assert "hunter3" not in result.output
        assert api.asked == []


@pytest.mark.parametrize(
    ("arguments", "path", "body"),
    [
        (("enable", "wh_a"), "/v1/webhooks/wh_a/enable", {}),
        (("disable", "wh/a"), "/v1/webhooks/wh%2Fa/disable", {}),
        (("hold", "wh_a", "--lift"), "/v1/webhooks/wh_a/hold", {"until": None}),
        (
            ("hold", "wh_a", "--until", "2030-01-01T00:00:00Z"),
            "/v1/webhooks/wh_a/hold",
            {"until": "2030-01-01T00:00:00Z"},
        ),
        (("rotate-secret", "wh_a"), "/v1/webhooks/wh_a/rotate-secret", {}),
        (("rotate-secret", "wh_a", "--overlap-s", "5"), "/v1/webhooks/wh_a/rotate-secret", {"overlap_s": 5.0}),
        (("ping", "wh_a"), "/v1/webhooks/wh_a/ping", {}),
        (("rekey", "wh_a"), "/v1/webhooks/wh_a/rekey", {}),
    ],
)
def test_an_action_is_one_request(api: Api, arguments: tuple[str, ...], path: str, body: Any) -> None:
    api.will_answer(WEBHOOK | {"secret": "whsec_x", "hold_until": "2030-01-01T00:00:00Z", "delivery_id": "dlv_a"})
    result = run(webhooks, *arguments)
    assert result.exit_code == 0
    assert result.stdout
    (asked,) = api.asked
    assert (asked.method, asked.path, asked.body) == ("POST", path, body)


@pytest.mark.parametrize(
    "arguments",
    [
        ("update", "wh_a", "--url", "https://example.com"),
        ("delete", "wh_a", "--yes"),
        ("enable", "wh_a"),
        ("disable", "wh_a"),
        ("hold", "wh_a", "--lift"),
        ("rotate-secret", "wh_a"),
        ("rekey", "wh_a"),
    ],
)
class TestIfVersion:
    def test_makes_a_change_for_that_version_alone(self, api: Api, arguments: tuple[str, ...]) -> None:
        api.will_answer(WEBHOOK | {"secret": "whsec_x"})
        assert run(webhooks, *arguments, "--if-version", "3").exit_code == 0
        assert [asked.headers["If-Match"] for asked in api.asked] == ['"3"']

    def test_is_not_said_unless_given(self, api: Api, arguments: tuple[str, ...]) -> None:
        api.will_answer(WEBHOOK | {"secret": "whsec_x"})
        assert run(webhooks, *arguments).exit_code == 0
        assert "If-Match" not in api.asked[0].headers

    def test_that_does_not_hold_exits_with_1(self, api: Api, arguments: tuple[str, ...]) -> None:
        api.will_answer({"code": "precondition_failed", "detail": "It is at version 4 now."}, status=412)
        result = run(webhooks, *arguments, "--if-version", "3")
        assert result.exit_code == 1
        assert "412 precondition_failed" in result.stderr


@pytest.mark.parametrize("action", ["hold", "rekey"])
def test_what_leaves_the_version_says_what_its_guard_is_worth(action: str) -> None:
    assert "no other hold or rekey counts" in " ".join(run(webhooks, action, "--help").stdout.split())


def test_a_rekey_of_all_has_no_version(api: Api) -> None:
    assert run(webhooks, "rekey", "--if-version", "3").exit_code == 2
    assert api.asked == []


@pytest.mark.parametrize("arguments", [(), ("--lift", "--until", "2030-01-01T00:00:00Z")])
def test_a_hold_wants_a_time_or_its_end(api: Api, arguments: tuple[str, ...]) -> None:
    assert run(webhooks, "hold", "wh_a", *arguments).exit_code == 2
    assert api.asked == []


def test_a_new_secret_is_shown_with_the_hint_that_it_is_not_shown_again(api: Api) -> None:
    api.will_answer(WEBHOOK | {"secret": "whsec_x"})
    result = run(webhooks, "rotate-secret", "wh_a")
    assert "whsec_x" in result.stdout
    assert "not shown again" in result.stderr


def test_rekey_goes_through_all_webhooks_and_names_those_that_failed(api: Api) -> None:
    api.answers = [
        (200, page({"id": "wh_a"}, cursor="c")),
        (200, WEBHOOK),
        (200, page({"id": "wh_b"})),
        (503, {"code": "encryption_key_missing", "detail": "no key"}),
    ]
    result = run(webhooks, "rekey", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["rekeyed"] == ["wh_a"]
    assert result.stderr.startswith("wh_b: 503 encryption_key_missing")


class TestMatch:
    def test_sends_the_event_as_it_is_and_shows_who_gets_it(self, api: Api, tmp_path: Path) -> None:
        event = tmp_path / "event.json"
        event.write_text('{"id": "e-1"}')
        api.will_answer(
            {
                "items": [
                    {"webhook_id": "wh_a", "matched": True, "pattern": "*"},
                    {"webhook_id": "wh_b", "matched": False, "pattern": "*", "why_not": "disabled"},
                ]
            }
        )
        result = run(webhooks, "match", str(event))
        assert result.stdout.splitlines()[1:] == ["wh_a     yes      *", "wh_b     no       disabled"]
        (asked,) = api.asked
        assert (asked.path, asked.headers["Content-Type"]) == ("/v1/match", "application/cloudevents+json")
        assert asked.body == {"id": "e-1"}

    def test_says_that_there_are_no_webhooks(self, api: Api, tmp_path: Path) -> None:
        event = tmp_path / "event.json"
        event.write_text("{}")
        api.will_answer({"items": []})
        assert run(webhooks, "match", str(event)).stdout == "no webhooks yet\n"
