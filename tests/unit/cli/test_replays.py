"""`vault-stream webhooks replay` and `vault-stream replays`, against an API that a test scripts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.cli import replays as module
from app.cli.replays import replays
from app.cli.webhooks import webhooks
from tests.support import scripted_api as scripted

REPLAY = {
    "id": "w1.5f",
    "webhook_id": "wh_a",
    "state": "running",
    "scanned": 40,
    "total": 100,
    "matched": 30,
    "skipped": 6,
    "sent": 20,
    "created_at": "2026-03-01T00:00:00.000Z",
}
SINCE = ("--since", "2026-03-01T00:00:00Z")


def became(state: str, **more: Any) -> dict[str, Any]:
    return REPLAY | {"state": state} | more


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_AGAIN_S", 0.0)


class TestWebhooksReplay:
    def test_sends_what_was_asked_for(self, api: scripted.Api) -> None:
        api.will_answer(REPLAY, status=202)
        result = scripted.run(
            webhooks,
            *("replay", "wh_a", *SINCE, "--until", "2026-03-02T00:00:00Z", "--type", "dataset.*", "--type", "access.*"),
            *("--only", "failed", "--rate", "20", "--request-id", "r1", "--json"),
        )
        assert (result.exit_code, json.loads(result.stdout)) == (0, REPLAY)
        (asked,) = api.asked
        assert (asked.method, asked.path) == ("POST", "/v1/webhooks/wh_a/replay")
        assert asked.body == {
            "since": "2026-03-01T00:00:00Z",
            "until": "2026-03-02T00:00:00Z",
            "event_types": ["dataset.*", "access.*"],
            "only": "failed",
            "rate_per_s": 20.0,
            "request_id": "r1",
        }

    @pytest.mark.parametrize(
        ("options", "body"),
        [
            (("--since-disabled",), {"since_disabled": True}),
            (
                ("--from-offset", "vault.events/0=42", "--from-offset", "vault.events/1=0"),
                {"from_offset": {"vault.events/0": 42, "vault.events/1": 0}},
            ),
        ],
    )
    def test_begins_where_it_is_told_to(self, api: scripted.Api, options: tuple[str, ...], body: Any) -> None:
        api.will_answer(REPLAY, status=202)
        assert scripted.run(webhooks, "replay", "wh_a", *options).exit_code == 0
        assert api.asked[0].body == body

    @pytest.mark.parametrize(
        "options",
        [
            (),
            (*SINCE, "--since-disabled"),
            ("--from-offset", "vault.events/0"),
            ("--from-offset", "vault.events=1"),
            ("--from-offset", "vault.events/0=-1"),
            (*SINCE, "--only", "delivered"),
        ],
    )
    def test_wrongly_is_wrong_usage_and_asks_nothing(self, api: scripted.Api, options: tuple[str, ...]) -> None:
        assert scripted.run(webhooks, "replay", "wh_a", *options).exit_code == 2
        assert api.asked == []

    def test_waits_until_it_has_ended(self, api: scripted.Api) -> None:
        api.will_answer(became("queued"), became("running"), became("done", scanned=100))
        result = scripted.run(webhooks, "replay", "wh_a", *SINCE, "--wait", "--json")
        assert (result.exit_code, json.loads(result.stdout)["state"]) == (0, "done")
        assert [(asked.method, asked.path) for asked in api.asked[1:]] == [("GET", "/v1/replays/w1.5f")] * 2

    @pytest.mark.parametrize("state", ["failed", "cancelled"])
    def test_that_ended_badly_while_it_was_waited_for_exits_with_1(self, api: scripted.Api, state: str) -> None:
        api.will_answer(REPLAY, became(state, error="the webhook was deleted"))
        result = scripted.run(webhooks, "replay", "wh_a", *SINCE, "--wait")
        assert result.exit_code == 1
        assert "the webhook was deleted" in result.stdout

    def test_asks_on_while_the_worker_is_away_and_gives_up_when_it_knows_nothing(self, api: scripted.Api) -> None:
        gone = {"code": "not_found", "detail": "No worker has a replay of this id"}
        api.answers = [(202, REPLAY), (503, {"code": "owner_unreachable", "detail": "away"}), (404, gone)]
        result = scripted.run(webhooks, "replay", "wh_a", *SINCE, "--wait")
        assert result.exit_code == 1
        assert "No worker has a replay of this id" in result.stderr
        assert len(api.asked) == 3


class TestReplays:
    def test_are_listed_to_the_last_page_with_who_is_missing(self, api: scripted.Api) -> None:
        api.will_answer(
            scripted.page(REPLAY, cursor="c", missing=[]), scripted.page(became("done", id="w2.6a"), missing=[3])
        )
        result = scripted.run(replays, "list")
        assert result.exit_code == 0
        assert [line.split()[:3] for line in result.stdout.splitlines()[1:]] == [
            ["w1.5f", "wh_a", "running"],
            ["w2.6a", "wh_a", "done"],
        ]
        assert "partitions 3" in result.stderr

    def test_none_says_how_to_start_one(self, api: scripted.Api) -> None:
        api.will_answer(scripted.page(missing=[]))
        assert "vault-stream webhooks replay" in scripted.run(replays, "list").stdout

    def test_are_shown_one_by_one_whatever_became_of_them(self, api: scripted.Api) -> None:
        api.will_answer(became("failed", error="the webhook is disabled"))
        result = scripted.run(replays, "show", "w1.5f", "--json")
        assert (result.exit_code, json.loads(result.stdout)["error"]) == (0, "the webhook is disabled")
        assert api.asked[0].path == "/v1/replays/w1.5f"

    def test_are_cancelled(self, api: scripted.Api) -> None:
        api.will_answer(became("cancelled"))
        result = scripted.run(replays, "cancel", "w1.5f")
        assert result.stdout == "w1.5f is cancelled; 20 of 30 events were sent, 6 left out\n"
        assert (api.asked[0].method, api.asked[0].path) == ("DELETE", "/v1/replays/w1.5f")

    def test_that_there_is_not_is_one_line_and_exits_with_1(self, api: scripted.Api) -> None:
        api.will_answer({"code": "not_found", "detail": "No worker has a replay of this id"}, status=404)
        for arguments in (("show", "w1.5f"), ("cancel", "w1.5f")):
            result = scripted.run(replays, *arguments)
            assert (result.exit_code, result.stderr) == (
                1,
                "Error: 404 not_found: No worker has a replay of this id\n",
            )
