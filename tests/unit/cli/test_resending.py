"""A key outlives its run, however that ends; against an API that a test scripts, or that breaks off."""

from __future__ import annotations

import shlex
from typing import Any

import click
import pytest

from app.cli import resending
from app.cli.dead_letters import dead_letters
from app.cli.webhooks import deliveries
from tests.support.broken_answers import answering_once
from tests.support.scripted_api import Api, run


def repeat_of(stderr: str) -> list[str]:
    (line,) = [line for line in stderr.splitlines() if line.startswith("to repeat this")]
    return shlex.split(line.partition(": ")[2])[1:]


def key_of(stderr: str) -> str:
    (line,) = [line for line in stderr.splitlines() if line.startswith("the key of this run")]
    return line.partition(": ")[2]


@pytest.mark.parametrize("arguments", [("--all", "--yes"), ("0-7",)])
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 202 Accepted\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 503 No\r\nContent-Length: 100\r\n\r\n{",
        b"junk\r\n\r\n",
        b"HTTP/1.1 202 Accepted\r\n\r\n[]",
        b'HTTP/1.1 202 Accepted\r\n\r\n{"ok":true}',
        b'HTTP/1.1 202 Accepted\r\n\r\n{"resent":null,"refused":[],"next_cursor":null,"delivery_id":[]}',
    ],
)
def test_an_answer_that_is_none_leaves_a_command_to_repeat(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], answer: bytes
) -> None:
    with answering_once(answer) as url:
        monkeypatch.setenv("VAULT_STREAM_API__URL", url)
        broken = run(dead_letters, "resend", *arguments)
    assert broken.exit_code == 1
    key = key_of(broken.stderr)
    assert repeat_of(broken.stderr)[:1] == ["resend"]
    assert set(repeat_of(broken.stderr)[1:]) == {*arguments, "--idempotency-key", key}


@pytest.mark.parametrize("ending", [SystemExit(1), KeyboardInterrupt(), RuntimeError("x")])
def test_whatever_ends_a_run_under_way_leaves_a_command_to_repeat(
    api: Api, monkeypatch: pytest.MonkeyPatch, ending: BaseException
) -> None:
    class Ending:
        @staticmethod
        def of(_settings: Any) -> Any:
            return Ending()

        def call(self, *_arguments: Any, **_named: Any) -> Any:
            raise ending

    monkeypatch.setattr(resending, "ApiClient", Ending)
    assert repeat_of(run(deliveries, "resend", "dlv_a").stderr)[-1] == "dlv_a"


def test_the_key_is_told_before_anything_is_sent(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    api.will_answer({"delivery_id": "dlv_a"}, status=202)
    asked_when_told: list[int] = []
    echo = click.echo

    def noting(message: str, **named: Any) -> None:
        if message.startswith("the key of this run"):
            asked_when_told.append(len(api.asked))
        echo(message, **named)

    monkeypatch.setattr(click, "echo", noting)
    told = run(dead_letters, "resend", "0-7", "0-8")
    assert told.exit_code == 0
    assert asked_when_told == [0]
    assert {asked.headers["Idempotency-Key"] for asked in api.asked} == {key_of(told.stderr)}


def test_settings_that_cannot_be_used_leave_nothing_to_repeat(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_STREAM_API__URL", "nowhere")
    result = run(dead_letters, "resend", "--all", "--yes")
    assert result.exit_code == 1
    assert result.stderr == ""
    assert api.asked == []


def test_a_page_of_refusals_before_a_refusal_leaves_nothing_to_repeat(api: Api) -> None:
    refused = {"id": "0-7", "delivery_id": "dlv_a", "code": "disabled"}
    api.answers = [
        (202, {"resent": [], "refused": [refused], "next_cursor": "c1"}),
        (403, {"code": "forbidden", "detail": "This token only reads."}),
    ]
    assert "to repeat this" not in run(dead_letters, "resend", "--all", "--yes").stderr


def test_ids_and_values_that_look_like_options_are_repeated_as_they_were(api: Api) -> None:
    api.will_answer({"code": "unconfirmed", "detail": "x"}, status=503)
    by_id = run(dead_letters, "resend", "--idempotency-key", "k", "--", "-7", "--all")
    assert repeat_of(by_id.stderr) == ["resend", "--idempotency-key", "k", "--", "-7", "--all"]
    by_filter = run(dead_letters, "resend", "--yes", "--webhook", "", "--reason", "rejected", "--idempotency-key", "k")
    assert run(dead_letters, *repeat_of(by_filter.stderr)).exit_code == 1
    assert api.asked[1].body == api.asked[2].body == {"webhook_id": "", "reason": "rejected"}


@pytest.mark.parametrize("key", ["n\u00e4cht", "a\x07b", ""])
def test_a_key_that_no_header_can_have_is_wrong_usage(api: Api, key: str) -> None:
    result = run(deliveries, "resend", "dlv_a", "--idempotency-key", key)
    assert result.exit_code == 2
    assert "printable ASCII" in result.stderr
    assert api.asked == []


@pytest.mark.parametrize("answer", [[], {"ok": True}, None])
def test_an_answer_of_something_else_is_said_in_one_line(api: Api, answer: Any) -> None:
    api.will_answer(answer, status=202)
    result = run(dead_letters, "resend", "--all", "--yes")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("Error: the answer is another one")
