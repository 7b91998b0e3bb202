"""`vault-stream webhooks` and `vault-stream deliveries`, against an API that a test scripts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, ClassVar

import pytest

from app.cli.webhooks import deliveries, webhooks
from tests.support.scripted_api import Api, page, run

SECRET = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
TYPED = " y\n"
"""What the runner shows of an answer, as a terminal would."""
WEBHOOK = {
    "id": "wh_a",
    "url": "https://example.com/hook",
    "events": ["*"],
    "version": 1,
    "health": "ok",
    "standing": "unknown",
}


class TestWebhooksList:
    def test_shows_a_row_for_each_webhook(self, api: Api) -> None:
        api.will_answer(page(WEBHOOK))
        result = run(webhooks, "list")
        assert result.exit_code == 0
        assert result.stdout.splitlines() == [
            "ID    HEALTH   VERSION  EVENTS  URL",
            "wh_a  unknown  1        *       https://example.com/hook",
        ]
        (asked,) = api.asked
        assert (asked.method, asked.path, asked.headers["Authorization"]) == ("GET", "/v1/webhooks", "Bearer hunter2")

    @pytest.mark.parametrize(
        ("standing", "shown"), [("ok", "ok"), ("failing_from_the_start", "failing from the start")]
    )
    def test_says_how_each_is_in_words(self, api: Api, standing: str, shown: str) -> None:
        api.will_answer(page(WEBHOOK | {"standing": standing}))
        row = run(webhooks, "list").stdout.splitlines()[1]
        assert re.split(r" {2,}", row)[:3] == ["wh_a", shown, "1"]

    def test_shows_the_health_that_a_worker_before_standings_tells(self, api: Api) -> None:
        api.will_answer(page({name: value for name, value in WEBHOOK.items() if name != "standing"}))
        assert re.split(r" {2,}", run(webhooks, "list").stdout.splitlines()[1])[:3] == ["wh_a", "ok", "1"]

    def test_reads_all_pages(self, api: Api) -> None:
        api.will_answer(page(WEBHOOK, cursor="c=1"), page(cursor="c2"), page(WEBHOOK | {"id": "wh_b"}))
        result = run(webhooks, "list", "--json")
        assert [webhook["id"] for webhook in json.loads(result.stdout)["items"]] == ["wh_a", "wh_b"]
        assert [asked.query.get("cursor") for asked in api.asked] == [None, ["c=1"], ["c2"]]

    def test_says_how_to_make_the_first_one(self, api: Api) -> None:
        api.will_answer(page())
        assert "vault-stream webhooks create" in run(webhooks, "list").stdout

    def test_can_be_narrowed_on_every_page(self, api: Api) -> None:
        api.will_answer(page(cursor="c1"), page())
        result = run(webhooks, "list", "--search", "lake & co", "--health", "failing")
        assert (result.exit_code, result.stdout) == (0, "no such webhooks\n")
        chosen = {"search": ["lake & co"], "limit": ["200"]}
        assert [asked.query for asked in api.asked] == [chosen, chosen | {"cursor": ["c1"]}]

    @pytest.mark.parametrize(
        ("health", "found"),
        [
            ("ok", ["wh_ok"]),
            ("failing", ["wh_failing", "wh_failing_from_the_start"]),
            ("disabled", ["wh_disabled"]),
            ("unknown", ["wh_unknown"]),
        ],
    )
    def test_can_be_narrowed_to_what_the_column_says(self, api: Api, health: str, found: list[str]) -> None:
        standings = ("ok", "failing", "failing_from_the_start", "disabled", "unknown")
        api.will_answer(page(*(WEBHOOK | {"id": f"wh_{standing}", "standing": standing} for standing in standings)))
        result = run(webhooks, "list", "--health", health)
        assert [row.split()[0] for row in result.stdout.splitlines()[1:]] == found

    def test_goes_by_health_at_a_worker_before_standings(self, api: Api) -> None:
        api.will_answer(page({name: value for name, value in WEBHOOK.items() if name != "standing"}))
        listed = json.loads(run(webhooks, "list", "--health", "ok", "--json").stdout)["items"]
        assert [webhook["id"] for webhook in listed] == ["wh_a"]

    def test_of_a_health_that_there_is_not_is_wrong_usage(self, api: Api) -> None:
        assert run(webhooks, "list", "--health", "happy").exit_code == 2
        assert api.asked == []


class TestWebhooksActivity:
    ACTIVITY: ClassVar[dict[str, Any]] = {
        "since": "2026-03-01T00:00:00.000Z",
        "bucket_s": 300,
        "buckets": [
            {"at": "2026-03-01T00:00:00.000Z", "delivered": 0, "failed": 0},
            {"at": "2026-03-01T00:05:00.000Z", "delivered": 7, "failed": 2},
        ],
        "in_flight": 1,
        "failures": 2,
        "blocked": None,
        "paced": False,
    }

    def test_shows_what_it_does_and_the_minutes_with_attempts(self, api: Api) -> None:
        api.will_answer(self.ACTIVITY)
        result = run(webhooks, "activity", "wh/a")
        assert [line.split() for line in result.stdout.splitlines()] == [
            ["FIELD", "VALUE"],
            ["since", "2026-03-01T00:00:00.000Z"],
            ["in_flight", "1"],
            ["failures", "2"],
            ["blocked", "-"],
            ["paced", "false"],
            [],
            ["AT", "DELIVERED", "FAILED"],
            ["2026-03-01T00:05:00.000Z", "7", "2"],
        ]
        assert [(asked.method, asked.path) for asked in api.asked] == [("GET", "/v1/webhooks/wh%2Fa/activity")]

    def test_says_that_there_was_none(self, api: Api) -> None:
        api.will_answer(self.ACTIVITY | {"buckets": self.ACTIVITY["buckets"][:1]})
        assert run(webhooks, "activity", "wh_a").stdout.endswith("\nno attempts in the last hour\n")

    def test_prints_the_answer_to_machines(self, api: Api) -> None:
        api.will_answer(self.ACTIVITY)
        assert json.loads(run(webhooks, "activity", "wh_a", "--json").stdout) == self.ACTIVITY


class TestWebhooksCreate:
    def test_sends_what_was_asked_for_and_shows_the_secret(self, api: Api) -> None:
        api.will_answer(WEBHOOK | {"secret": SECRET}, status=201)
        result = run(
            webhooks,
            "create",
            *("--url", "https://example.com/hook", "--events", "dataset.*", "--events", "version.created"),
            *("--description", "lake", "--filter", '{"dataset_id":["ds-1"]}'),
            *("--ordering", "strict", "--max-in-flight", "3", "--idempotency-key", "k-1"),
        )
        assert result.exit_code == 0
        (asked,) = api.asked
        assert (asked.method, asked.path, asked.headers["Idempotency-Key"]) == ("POST", "/v1/webhooks", "k-1")
        assert asked.body == {
            "url": "https://example.com/hook",
            "events": ["dataset.*", "version.created"],
            "description": "lake",
            "filter": {"dataset_id": ["ds-1"]},
            "ordering": "strict",
            "max_in_flight": 3,
        }
        assert SECRET in result.stdout
        (hint,) = result.stderr.splitlines()
        assert "not shown again" in hint
        assert "`webhook-signature`" in hint

    def test_sends_nothing_that_was_not_asked_for(self, api: Api) -> None:
        api.will_answer(WEBHOOK | {"secret": SECRET}, status=201)
        result = run(webhooks, "create", "--url", "https://x.example", "--events", "*", "--json")
        (asked,) = api.asked
        assert asked.body == {"url": "https://x.example", "events": ["*"]}
        assert "Idempotency-Key" not in asked.headers
        assert json.loads(result.stdout) == WEBHOOK | {"secret": SECRET}

    def test_says_nothing_of_a_secret_that_is_not_shown(self, api: Api) -> None:
        api.will_answer(WEBHOOK, status=201)
        result = run(webhooks, "create", "--url", "https://x.example", "--events", "*", "--idempotency-key", "k")
        assert (result.exit_code, result.stderr) == (0, "")

    @pytest.mark.parametrize("text", ["{", "nonsense", '{"data":{"a":[NaN]}}'])
    def test_a_filter_that_is_no_json_is_wrong_usage(self, api: Api, text: str) -> None:
        result = run(webhooks, "create", "--url", "https://x.example", "--events", "*", "--filter", text)
        assert result.exit_code == 2
        assert "--filter is no JSON" in result.stderr
        assert api.asked == []

    @pytest.mark.parametrize("key", ["n\u00e4cht", "a\nb", "", "k" * 256, " k"])
    def test_a_key_that_no_header_can_have_is_wrong_usage(self, api: Api, key: str) -> None:
        result = run(webhooks, "create", "--url", "https://x.example", "--events", "*", "--idempotency-key", key)
        assert result.exit_code == 2
        assert "printable ASCII" in result.stderr
        assert api.asked == []

    @pytest.mark.parametrize("command", [("create", "--url", "https://x.example"), ("update", "wh_a")])
    def test_two_patterns_in_one_option_are_wrong_usage(self, api: Api, command: tuple[str, ...]) -> None:
        result = run(webhooks, *command, "--events", "dataset.*,version.*")
        assert result.exit_code == 2
        assert "give the option again for each" in result.stderr
        assert api.asked == []

    @pytest.mark.parametrize("arguments", [["--events", "*"], ["--url", "https://x.example"]])
    def test_url_and_events_are_needed(self, api: Api, arguments: list[str]) -> None:
        assert run(webhooks, "create", *arguments).exit_code == 2

    def test_a_change_that_is_unconfirmed_exits_1_and_names_the_webhook(self, api: Api) -> None:
        problem = {"status": 503, "code": "unconfirmed", "detail": "The change of wh_a was not seen.", "id": "wh_a"}
        api.will_answer(problem, status=503)
        result = run(webhooks, "create", "--url", "https://x.example", "--events", "*")
        assert result.exit_code == 1
        assert result.stdout == ""
        assert result.stderr == "Error: 503 unconfirmed: The change of wh_a was not seen.\n"

    def test_a_refused_field_exits_1_and_is_named(self, api: Api) -> None:
        errors = [{"field": "/url", "code": "insecure_url", "message": "must be https"}]
        api.will_answer({"code": "insecure_url", "detail": "Not usable.", "errors": errors}, status=422)
        result = run(webhooks, "create", "--url", "http://x.example", "--events", "*")
        assert (result.exit_code, result.stderr) == (
            1,
            "Error: 422 insecure_url: Not usable; /url: must be https\n",
        )


class TestWebhooksCreateWithASecret:
    CREATE = ("create", "--url", "https://x.example", "--events", "*")

    @pytest.mark.parametrize("as_json", [(), ("--json",)])
    @pytest.mark.parametrize("from_stdin", [True, False])
    def test_that_is_in_a_file_sends_it_and_shows_it_nowhere(
        self, api: Api, tmp_path: Path, from_stdin: bool, as_json: tuple[str, ...]
    ) -> None:
        api.will_answer(WEBHOOK | {"secret": SECRET}, status=201)
        (tmp_path / "secret").write_text(f"{SECRET}\n")
        source = ("-", f"{SECRET}\n") if from_stdin else ("secret", None)
        result = run(webhooks, *self.CREATE, "--secret-file", source[0], *as_json, stdin=source[1])
        assert result.exit_code == 0
        assert api.asked[0].body["secret"] == SECRET
        assert "wh_a" in result.stdout
        assert SECRET not in result.output
        assert result.stderr == ""

    @pytest.mark.parametrize("content", [b"", b" \n", b"whsec_\xc3\xa4hunter3", b"\xffhunter3"])
    def test_that_can_be_none_is_wrong_usage_and_not_repeated(self, api: Api, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "secret").write_bytes(content)
        result = run(webhooks, *self.CREATE, "--secret-file", "secret")
        assert result.exit_code == 2
        assert "--secret-file holds no secret" in result.stderr
        assert "hunter3" not in result.output
        assert api.asked == []

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
    def test_in_another_encoding_says_which_it_must_be(self, api: Api, tmp_path: Path, encoding: str) -> None:
        (tmp_path / "secret").write_bytes(SECRET.encode(encoding))
        result = run(webhooks, *self.CREATE, "--secret-file", "secret")
        assert result.exit_code == 2
        assert "write it in ASCII" in result.stderr
        assert api.asked == []

    def test_in_a_file_without_end_is_wrong_usage(self, api: Api) -> None:
        result = run(webhooks, *self.CREATE, "--secret-file", "/dev/zero")
        assert result.exit_code == 2
        assert "larger than 4 KiB" in result.stderr
        assert api.asked == []

    def test_in_a_file_that_is_not_there_is_wrong_usage(self, api: Api) -> None:
        assert run(webhooks, *self.CREATE, "--secret-file", "nowhere").exit_code == 2
        assert api.asked == []

    def test_a_disabled_one_is_made_disabled(self, api: Api) -> None:
        api.will_answer(WEBHOOK, status=201)
        assert run(webhooks, *self.CREATE, "--disabled").exit_code == 0
        assert api.asked[0].body["enabled"] is False


class TestWebhooksShowAndDelete:
    @pytest.mark.parametrize(("id_", "path"), [("wh_a", "wh_a"), ("a/../b?c", "a%2F..%2Fb%3Fc")])
    def test_the_id_is_one_segment_of_the_path(self, api: Api, id_: str, path: str) -> None:
        api.will_answer(WEBHOOK)
        run(webhooks, "show", id_)
        run(webhooks, "delete", id_, "--yes")
        assert [(asked.method, asked.path) for asked in api.asked] == [
            ("GET", f"/v1/webhooks/{path}"),
            ("DELETE", f"/v1/webhooks/{path}"),
        ]

    def test_show_prints_a_field_a_line_or_json(self, api: Api) -> None:
        api.will_answer(WEBHOOK)
        assert "url       https://example.com/hook" in run(webhooks, "show", "wh_a").stdout.splitlines()
        assert json.loads(run(webhooks, "show", "wh_a", "--json").stdout) == WEBHOOK

    def test_delete_asks_first(self, api: Api) -> None:
        api.will_answer(None, status=204)
        refused = run(webhooks, "delete", "wh_a", stdin="n\n")
        assert refused.exit_code == 1
        assert api.asked == []
        agreed = run(webhooks, "delete", "wh_a", stdin="y\n")
        assert (agreed.exit_code, agreed.stdout.removeprefix(TYPED)) == (0, "deleted wh_a\n")

    def test_delete_at_the_end_of_input_tells_how_to_agree_beforehand(self, api: Api) -> None:
        result = run(webhooks, "delete", "wh_a", stdin="")
        assert result.exit_code == 2
        assert "--yes" in result.stderr
        assert api.asked == []

    def test_delete_prints_nothing_but_json_to_machines(self, api: Api) -> None:
        api.will_answer(None, status=204)
        for arguments, stdin in ((["--yes"], None), ([], "y\n")):
            result = run(webhooks, "delete", "wh_a", "--json", *arguments, stdin=stdin)
            assert json.loads(result.stdout.removeprefix(TYPED)) == {"deleted": "wh_a"}

    def test_one_that_is_not_there_exits_1(self, api: Api) -> None:
        api.will_answer({"code": "not_found", "detail": "There is no webhook of this id."}, status=404)
        for command in (["show", "wh_x"], ["delete", "wh_x", "--yes"]):
            result = run(webhooks, *command)
            assert (result.exit_code, result.stderr) == (1, "Error: 404 not_found: There is no webhook of this id.\n")


class TestDeliveries:
    def test_a_list_asks_for_what_was_chosen(self, api: Api) -> None:
        api.will_answer(page(missing=[]))
        since = "2026-01-31T12:00:00Z"
        chosen = ("--webhook", "wh_a", "--status", "failed", "--event", "e 1", "--since", since)
        result = run(deliveries, "list", *chosen, "--limit", "7")
        assert "no such deliveries" in result.stdout
        (asked,) = api.asked
        assert asked.query == {
            "webhook_id": ["wh_a"],
            "status": ["failed"],
            "event_id": ["e 1"],
            "since": [since],
            "limit": ["7"],
        }

    def test_none_at_all_is_no_fault_of_the_filters(self, api: Api) -> None:
        api.will_answer(page(missing=[]))
        assert run(deliveries, "list").stdout.startswith("no deliveries yet; ")

    def test_a_list_ends_at_its_limit(self, api: Api) -> None:
        first = page(*({"id": f"dlv_{n}"} for n in range(200)), cursor="c1", missing=[])
        api.will_answer(first, page({"id": "dlv_200"}, cursor="c2", missing=[]))
        result = run(deliveries, "list", "--limit", "201", "--json")
        assert len(json.loads(result.stdout)["items"]) == 201
        assert [(asked.query["limit"], asked.query.get("cursor")) for asked in api.asked] == [
            (["200"], None),
            (["1"], ["c1"]),
        ]

    def test_a_short_page_is_not_the_end(self, api: Api) -> None:
        api.will_answer(page(cursor="c1", missing=[]), page({"id": "dlv_a"}, missing=[]))
        assert json.loads(run(deliveries, "list", "--json").stdout)["items"] == [{"id": "dlv_a"}]

    def test_a_list_says_whose_deliveries_are_missing(self, api: Api) -> None:
        api.will_answer(page({"id": "dlv_a"}, cursor="c1", missing=[5]), page({"id": "dlv_b"}, missing=[3, 5]))
        result = run(deliveries, "list", "--json")
        assert json.loads(result.stdout)["missing"] == [3, 5]
        assert result.stderr == "partitions 3, 5 did not answer; their deliveries are not among these\n"

    def test_a_whole_list_says_nothing_of_that(self, api: Api) -> None:
        waiting = {"id": "dlv_a", "webhook_id": "wh_a", "status": "pending", "reason": "no_key"}
        api.will_answer(page(waiting, missing=[]))
        result = run(deliveries, "list")
        assert result.stderr == ""
        assert result.stdout.splitlines()[1].split() == ["dlv_a", "wh_a", "pending", "no_key", "-", "-", "-", "-", "-"]

    @pytest.mark.parametrize("arguments", [["--status", "happy"], ["--limit", "0"]])
    def test_wrong_usage_exits_2(self, api: Api, arguments: list[str]) -> None:
        assert run(deliveries, "list", *arguments).exit_code == 2
        assert api.asked == []

    def test_one_is_shown_with_its_attempts(self, api: Api) -> None:
        delivery = {"id": "dlv_a", "attempt_log": [{"attempt": 1, "outcome": "retry"}]}
        api.will_answer(delivery)
        assert json.loads(run(deliveries, "show", "dlv_a", "--json").stdout) == delivery
        assert '[{"attempt":1,"outcome":"retry"}]' in run(deliveries, "show", "dlv_a").stdout
        assert {asked.path for asked in api.asked} == {"/v1/deliveries/dlv_a"}
