"""`vault-stream dead-letters` and `vault-stream deliveries resend`, against an API that a test scripts."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from app.cli.dead_letters import dead_letters
from app.cli.webhooks import deliveries
from tests.support.scripted_api import Api, page, run

LETTER: dict[str, Any] = {
    "id": "0-7",
    "given_up_at": "2026-03-01T00:00:00.000Z",
    "delivery_id": "dlv_a",
    "webhook_id": "wh_a",
    "event_id": "e-1",
    "event_type": "llm.data-vault.dataset.created",
    "reason": "exhausted",
    "attempts": 3,
}
WEBHOOK = {"id": "wh_a", "enabled": True}
UNCONFIRMED = {"code": "unconfirmed", "detail": "The broker did not take everything."}
FILTER = {
    "webhook_id": "wh_a",
    "reason": "rejected",
    "event_type": "dataset.created",
    "since": "2026-03-01",
    "until": "2026-03-02",
}
FILTER_OPTIONS = (
    *("--webhook", "wh_a", "--reason", "rejected", "--type", "dataset.created"),
    *("--since", "2026-03-01", "--until", "2026-03-02"),
)


def resent(*delivery_ids: str, cursor: str | None = None, refused: Any = ()) -> dict[str, Any]:
    return {"resent": list(delivery_ids), "refused": list(refused), "next_cursor": cursor}


def keys_of(api: Api) -> set[str | None]:
    return {asked.headers.get("Idempotency-Key") for asked in api.asked}


def repeat_of(stderr: str) -> list[str]:
    """The arguments of the command that is named for a repeat."""
    (line,) = [line for line in stderr.splitlines() if line.startswith("to repeat this")]
    return shlex.split(line.partition(": ")[2])[1:]


class TestList:
    def test_asks_for_what_was_chosen_and_ends_at_its_limit(self, api: Api) -> None:
        api.will_answer(page(*[LETTER] * 200, cursor="c1"), page(LETTER, cursor="c2"))
        result = run(dead_letters, "list", *FILTER_OPTIONS, "--limit", "201", "--json")
        assert len(json.loads(result.stdout)["items"]) == 201
        chosen = {name: [value] for name, value in FILTER.items()}
        assert [asked.query for asked in api.asked] == [
            {**chosen, "limit": ["200"]},
            {**chosen, "limit": ["1"], "cursor": ["c1"]},
        ]

    def test_says_that_there_are_more(self, api: Api) -> None:
        api.will_answer(page(LETTER, cursor="c1"))
        result = run(dead_letters, "list", "--limit", "1")
        assert result.stdout.splitlines()[1].split()[:3] == ["0-7", "2026-03-01T00:00:00.000Z", "exhausted"]
        assert "--limit" in result.stderr

    @pytest.mark.parametrize(("options", "told"), [((), "no dead letters"), (FILTER_OPTIONS, "no such dead letters")])
    def test_none_is_said(self, api: Api, options: tuple[str, ...], told: str) -> None:
        api.will_answer(page())
        assert run(dead_letters, "list", *options).stdout == f"{told}\n"


class TestShow:
    def test_prints_a_field_a_line_with_the_event_or_json(self, api: Api) -> None:
        whole = LETTER | {"event": {"id": "e-1"}}
        api.will_answer(whole)
        assert 'event        {"id":"e-1"}' in run(dead_letters, "show", "0-7").stdout.splitlines()
        assert json.loads(run(dead_letters, "show", "0-7", "--json").stdout) == whole
        assert [(asked.method, asked.path) for asked in api.asked] == [("GET", "/v1/dead-letters/0-7")] * 2

    def test_the_id_is_one_segment_of_the_path(self, api: Api) -> None:
        api.will_answer(LETTER)
        run(dead_letters, "show", "a/../b")
        assert api.asked[0].path == "/v1/dead-letters/a%2F..%2Fb"

    def test_one_that_is_not_there_exits_1(self, api: Api) -> None:
        api.will_answer({"code": "not_found", "detail": "There is no dead letter of this id."}, status=404)
        result = run(dead_letters, "show", "0-7")
        assert (result.exit_code, result.stderr) == (1, "Error: 404 not_found: There is no dead letter of this id.\n")


class TestResend:
    def test_by_id_asks_for_each_once(self, api: Api) -> None:
        api.will_answer({"delivery_id": "dlv_a"}, {"delivery_id": "dlv_b"}, status=202)
        result = run(dead_letters, "resend", "0-7", "0-8", "0-7")
        assert (result.exit_code, result.stdout) == (0, "2 accepted, 0 refused\n")
        assert [(asked.method, asked.path, asked.body) for asked in api.asked] == [
            ("POST", "/v1/dead-letters/0-7/resend", {}),
            ("POST", "/v1/dead-letters/0-8/resend", {}),
        ]

    def test_by_filter_sends_it_whole(self, api: Api) -> None:
        api.will_answer(resent("dlv_a"), status=202)
        assert run(dead_letters, "resend", *FILTER_OPTIONS, "--yes").exit_code == 0
        assert [(asked.path, asked.body) for asked in api.asked] == [("/v1/dead-letters/resend", FILTER)]

    def test_of_all_goes_on_to_the_last_page_with_one_key(self, api: Api) -> None:
        api.will_answer(resent("dlv_a", cursor="c1"), resent(cursor="c2"), resent("dlv_b"), status=202)
        result = run(dead_letters, "resend", "--all", "--yes", "--json")
        assert json.loads(result.stdout) == {"resent": ["dlv_a", "dlv_b"], "refused": []}
        assert [asked.body for asked in api.asked] == [
            {"all": True},
            {"all": True, "cursor": "c1"},
            {"all": True, "cursor": "c2"},
        ]
        (key,) = keys_of(api)
        assert key

    def test_two_runs_have_two_keys(self, api: Api) -> None:
        api.will_answer(resent(), status=202)
        for _ in range(2):
            run(dead_letters, "resend", "--all", "--yes")
        assert len(keys_of(api)) == 2

    def test_by_filter_asks_first(self, api: Api) -> None:
        api.will_answer(resent("dlv_a"), status=202)
        assert run(dead_letters, "resend", "--all", stdin="n\n").exit_code == 1
        assert api.asked == []
        assert run(dead_letters, "resend", "--all", stdin="y\n").exit_code == 0

    @pytest.mark.parametrize(
        "arguments", [(), ("0-7", "--all"), ("0-7", "--webhook", "wh_a"), ("--all", "--since", "x")]
    )
    def test_of_not_one_thing_is_wrong_usage(self, api: Api, arguments: tuple[str, ...]) -> None:
        assert run(dead_letters, "resend", *arguments, "--yes").exit_code == 2
        assert api.asked == []

    def test_what_was_refused_by_filter_is_named_and_exits_1(self, api: Api) -> None:
        refused = {"id": "0-8", "delivery_id": "dlv_b", "code": "disabled"}
        api.will_answer(resent("dlv_a", refused=[refused], cursor="c1"), resent("dlv_c"), status=202)
        result = run(dead_letters, "resend", "--all", "--yes")
        assert (result.exit_code, result.stdout) == (1, "2 accepted, 1 refused\n")
        assert result.stderr.splitlines()[-2] == "0-8: disabled"
        (key,) = keys_of(api)
        assert repeat_of(result.stderr) == ["resend", "--all", "--yes", "--idempotency-key", key]

    def test_an_id_that_is_refused_keeps_no_other_from_being_sent(self, api: Api) -> None:
        gone = {"code": "not_found", "detail": "It is kept no longer."}
        api.answers = [(404, gone), (202, {"delivery_id": "dlv_b"})]
        result = run(dead_letters, "resend", "0-7", "0-8", "--json")
        assert result.exit_code == 1
        refused = [{"id": "0-7", "code": "not_found", "detail": "It is kept no longer."}]
        assert json.loads(result.stdout) == {"resent": ["dlv_b"], "refused": refused}

    @pytest.mark.parametrize("arguments", [("0-7", "0-8"), (*FILTER_OPTIONS, "--yes")])
    def test_what_breaks_off_names_the_command_that_repeats_it_with_the_same_key(
        self, api: Api, arguments: tuple[str, ...]
    ) -> None:
        api.answers = [(202, {"delivery_id": "dlv_a"} | resent("dlv_a", cursor="c1")), (503, UNCONFIRMED)]
        broken = run(dead_letters, "resend", *arguments)
        assert broken.exit_code == 1
        assert "503 unconfirmed" in broken.stderr

        api.answers = [(202, {"delivery_id": "dlv_a"} | resent("dlv_a"))]
        assert run(dead_letters, *repeat_of(broken.stderr)).exit_code == 0
        assert len(keys_of(api)) == 1
        assert api.asked[2].path == api.asked[0].path
        assert api.asked[2].body == api.asked[0].body

    @pytest.mark.parametrize(("before", "told"), [((), 0), ((resent("dlv_a", cursor="c1"),), 1)])
    def test_a_refusal_is_worth_a_repeat_only_if_something_went_before(
        self, api: Api, before: tuple[Any, ...], told: int
    ) -> None:
        forbidden = {"code": "forbidden", "detail": "This token only reads."}
        api.answers = [*((202, answer) for answer in before), (403, forbidden)]
        result = run(dead_letters, "resend", "--all", "--yes")
        assert result.exit_code == 1
        assert sum(line.startswith("to repeat this") for line in result.stderr.splitlines()) == told

    def test_a_worker_that_is_not_there_leaves_a_command_to_repeat(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("VAULT_STREAM_API__URL", "http://127.0.0.1:1")
        result = run(dead_letters, "resend", "--all", "--yes", "--idempotency-key", "night 1")
        assert result.exit_code == 1
        assert repeat_of(result.stderr) == ["resend", "--all", "--yes", "--idempotency-key", "night 1"]
        assert api.asked == []

    def test_a_key_of_ones_own_is_sent(self, api: Api) -> None:
        api.will_answer(resent(), status=202)
        run(dead_letters, "resend", "--all", "--yes", "--idempotency-key", "night-1")
        assert keys_of(api) == {"night-1"}

    def test_with_a_key_says_that_not_all_of_it_need_be_sent_now(self, api: Api) -> None:
        api.will_answer(resent("dlv_a"), status=202)
        result = run(dead_letters, "resend", "--all", "--yes", "--idempotency-key", "night-1")
        told = "1 accepted (what was sent under this key before is not sent twice), 0 refused\n"
        assert (result.stdout, result.stderr) == (told, "")

    def test_two_letters_of_one_delivery_count_once(self, api: Api) -> None:
        api.will_answer({"delivery_id": "dlv_a"}, status=202)
        assert run(dead_letters, "resend", "0-7", "0-9").stdout == "1 accepted, 0 refused\n"

    @pytest.mark.parametrize("arguments", [("0-7",), ("--all", "--yes")])
    def test_where_all_was_refused_there_is_nothing_to_repeat(self, api: Api, arguments: tuple[str, ...]) -> None:
        refused = {"id": "0-7", "delivery_id": "dlv_a", "code": "disabled"}
        answer = (409, refused) if arguments == ("0-7",) else (202, resent(refused=[refused]))
        api.answers = [answer]
        result = run(dead_letters, "resend", *arguments)
        assert (result.exit_code, result.stdout) == (1, "0 accepted, 1 refused\n")
        assert "to repeat this" not in result.stderr

    def test_at_the_end_of_input_tells_how_to_agree_beforehand(self, api: Api) -> None:
        result = run(dead_letters, "resend", "--all", stdin="")
        assert result.exit_code == 2
        assert "--yes" in result.stderr
        assert api.asked == []


class TestDryRun:
    def test_shows_what_the_filter_would_send_again_and_sends_nothing(self, api: Api) -> None:
        api.will_answer(page(LETTER, cursor="c1"), page(LETTER | {"id": "0-3", "delivery_id": "dlv_b"}), WEBHOOK)
        result = run(dead_letters, "resend", *FILTER_OPTIONS, "--dry-run")
        assert result.exit_code == 0
        heading, first, second, told = result.stdout.splitlines()
        assert [row.split()[0] for row in (heading, first, second)] == ["ID", "0-7", "0-3"]
        assert told == "2 would be sent again, 0 refused"
        assert {asked.method for asked in api.asked} == {"GET"}
        assert {name: api.asked[0].query[name] for name in FILTER} == {name: [value] for name, value in FILTER.items()}
        assert api.asked[1].query["cursor"] == ["c1"]

    @pytest.mark.parametrize(
        ("expires_at", "told"),
        [
            ("2026-03-01T00:00:00Z", "0 would be sent again, 1 refused"),
            ("9999-01-01T00:00:00+01:00", "1 would be sent again, 0 refused"),
            (None, "1 would be sent again, 0 refused"),
        ],
    )
    def test_says_whose_event_is_past_its_own_time(self, api: Api, expires_at: str | None, told: str) -> None:
        api.will_answer(page(LETTER | {"event_expires_at": expires_at}), WEBHOOK)
        result = run(dead_letters, "resend", "--all", "--dry-run")
        assert result.stdout.splitlines()[-1] == told
        assert result.stderr == ("0-7: expired\n" if told.startswith("0") else "")

    def test_two_letters_of_one_delivery_count_once(self, api: Api) -> None:
        api.will_answer(LETTER, LETTER | {"id": "0-9"}, WEBHOOK)
        result = run(dead_letters, "resend", "0-7", "0-9", "--dry-run")
        assert result.stdout.splitlines()[-1] == "1 would be sent again, 0 refused"

    def test_of_all_reads_all(self, api: Api) -> None:
        api.will_answer(page(LETTER), WEBHOOK)
        result = run(dead_letters, "resend", "--all", "--dry-run", "--json")
        assert json.loads(result.stdout) == {"would_resend": [LETTER], "refused": []}
        assert [(asked.path, asked.query) for asked in api.asked] == [
            ("/v1/dead-letters", {"limit": ["200"]}),
            ("/v1/webhooks/wh_a", {}),
        ]

    def test_of_ids_shows_them_without_their_event(self, api: Api) -> None:
        api.answers = [(200, LETTER | {"event": {}}), (404, {"code": "not_found", "detail": "Gone."}), (200, WEBHOOK)]
        result = run(dead_letters, "resend", "0-7", "0-8", "--dry-run", "--json")
        assert result.exit_code == 1
        refused = [{"id": "0-8", "code": "not_found", "detail": "Gone."}]
        assert json.loads(result.stdout) == {"would_resend": [LETTER], "refused": refused}
        assert {asked.method for asked in api.asked} == {"GET"}

    @pytest.mark.parametrize(
        ("webhook", "missing", "code"),
        [
            ((404, {"code": "not_found", "detail": "There is none."}), None, "webhook_gone"),
            ((200, WEBHOOK | {"enabled": False}), None, "disabled"),
            ((200, WEBHOOK), "event_id", "body_gone"),
        ],
    )
    def test_says_what_a_resend_would_refuse(
        self, api: Api, webhook: tuple[int, Any], missing: str | None, code: str
    ) -> None:
        letter = {name: value for name, value in LETTER.items() if name != missing}
        api.answers = [(200, page(letter)), webhook]
        result = run(dead_letters, "resend", "--all", "--dry-run")
        assert (result.exit_code, result.stdout) == (1, "0 would be sent again, 1 refused\n")
        assert result.stderr == f"0-7: {code}\n"


class TestDeliveriesResend:
    def test_asks_for_it_and_says_how_to_look(self, api: Api) -> None:
        api.will_answer({"delivery_id": "dlv/a", "request_id": "r"}, status=202)
        result = run(deliveries, "resend", "dlv/a", "--idempotency-key", "k-1")
        assert result.exit_code == 0
        assert "vault-stream deliveries show dlv/a" in result.stdout
        (asked,) = api.asked
        assert (asked.method, asked.path, asked.body) == ("POST", "/v1/deliveries/dlv%2Fa/resend", {})
        assert asked.headers["Idempotency-Key"] == "k-1"

    def test_prints_the_answer_to_machines(self, api: Api) -> None:
        answer = {"delivery_id": "dlv_a", "request_id": "r"}
        api.will_answer(answer, status=202)
        assert json.loads(run(deliveries, "resend", "dlv_a", "--json").stdout) == answer

    def test_what_may_have_been_sent_can_be_repeated_with_its_key(self, api: Api) -> None:
        api.will_answer(UNCONFIRMED, status=503)
        result = run(deliveries, "resend", "dlv_a")
        assert result.exit_code == 1
        (key,) = keys_of(api)
        assert key
        assert repeat_of(result.stderr) == ["resend", "--idempotency-key", key, "dlv_a"]

    def test_a_refusal_is_one_line(self, api: Api) -> None:
        api.will_answer({"code": "body_gone", "detail": "The event is nowhere."}, status=410)
        result = run(deliveries, "resend", "dlv_a", "--idempotency-key", "k-1")
        assert (result.exit_code, result.stderr) == (1, "Error: 410 body_gone: The event is nowhere.\n")
