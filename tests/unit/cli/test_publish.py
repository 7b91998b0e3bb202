import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import app.cli.publish as command
from app.events import VaultEventType, new_event
from app.publishing import BrokerConnectionError, InMemoryEventPublisher, KafkaConfig

GOOD = new_event(id="e-1", source="/v", type=VaultEventType.DATASET_DELETED, data={"dataset_id": "ds-1"}).posted
UNKNOWN = new_event(id="e-2", source="/v", type="com.example.other", data={}).posted
LINES = b"\n".join([GOOD, b"{broken", b"", UNKNOWN, GOOD, b""])


class Publishers:
    """Stands in for the Kafka publisher, and keeps what was made."""

    def __init__(self) -> None:
        self.made: list[InMemoryEventPublisher] = []
        self.configs: list[KafkaConfig] = []

    def __call__(self, config: KafkaConfig) -> InMemoryEventPublisher:
        self.configs.append(config)
        self.made.append(InMemoryEventPublisher())
        return self.made[-1]


@pytest.fixture
def publishers(monkeypatch: pytest.MonkeyPatch) -> Publishers:
    fake = Publishers()
    monkeypatch.setattr(command, "KafkaEventPublisher", fake)
    monkeypatch.setenv("VAULT_STREAM_BROKERS", "one:9092,two:9092")
    monkeypatch.setenv("VAULT_STREAM_TOPIC_LAYOUT", "single")
    return fake


def run(*arguments: str, stdin: bytes = LINES) -> Result:
    return CliRunner().invoke(command.publish, list(arguments), input=stdin)


def test_good_lines_are_sent_and_bad_ones_go_to_stderr_with_number_and_reason(publishers: Publishers) -> None:
    result = run("-")
    assert result.exit_code == 1
    assert [event.id for event in publishers.made[0].events] == ["e-1", "e-1"]
    assert result.stdout == "2 published, 2 refused\n"
    first, second = result.stderr.splitlines()
    assert first.startswith("line 2: invalid_envelope: ")
    assert second.startswith("line 4: unknown_type: ")


def test_lines_are_whole_and_numbered_across_the_chunks_of_a_large_input(publishers: Publishers) -> None:
    result = run("-", stdin=b"\n".join([*[GOOD] * 3000, b"{broken", *[GOOD] * 3000]))
    assert result.stdout == "6000 published, 1 refused\n"
    assert result.stderr.startswith("line 3001: ")


def test_only_good_lines_exit_0(publishers: Publishers, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(GOOD + b"\r\n" + GOOD + b"\n")
    result = run(str(file))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "2 published, 0 refused\n", "")


def test_brokers_and_layout_come_from_the_settings(publishers: Publishers) -> None:
    run("-")
    (config,) = publishers.configs
    assert list(config.brokers) == ["one:9092", "two:9092"]
    assert (config.topic_layout, config.topic_prefix) == ("single", "vault")


@pytest.mark.parametrize("options", [(), ("--check",)])
@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        (b'\n{\n  "specversion": "1.0",\n  "id": "e-1"\n}\n', "line 2: JSON over several lines", "jq -c '.' FILE"),
        (b"[" + GOOD + b",\n" + GOOD + b"]\n", "line 1: a JSON array", "jq -c '.[]' FILE"),
    ],
)
def test_json_that_is_not_one_event_a_line_says_what_to_do(
    publishers: Publishers, text: bytes, what: str, fix: str, options: tuple[str, ...]
) -> None:
    result = run("-", *options, stdin=text)
    assert (result.exit_code, result.stdout) == (1, "")
    assert what in result.stderr
    assert " ".join((fix, "| vault-stream publish", *options)) + "\n" in result.stderr
    assert [made.events for made in publishers.made] == [[] for _ in publishers.made]


def test_check_validates_and_needs_no_broker(publishers: Publishers) -> None:
    result = run("--check")
    assert (result.exit_code, result.stdout) == (1, "2 valid, 2 refused\n")
    assert publishers.made == []


def test_json_is_one_object_which_has_the_refusals_too(publishers: Publishers) -> None:
    result = run("--json")
    printed: dict[str, Any] = json.loads(result.stdout)
    assert result.stderr == ""
    assert (printed["published"], printed["refused"]) == (2, 2)
    assert [error["line"] for error in printed["errors"]] == [2, 4]


def test_an_event_that_the_broker_refuses_is_reported_by_line_and_id(
    publishers: Publishers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_: Any, events: list[Any]) -> list[BrokerConnectionError | None]:
        return [BrokerConnectionError("gone"), *[None] * (len(events) - 1)]

    monkeypatch.setattr(InMemoryEventPublisher, "_send", refuse)
    result = run("--json")
    (failure,) = [error for error in json.loads(result.stdout)["errors"] if "id" in error]
    assert failure == {"line": 1, "reason": "gone", "id": "e-1"}
    assert result.exit_code == 1


def test_a_broker_that_is_not_there_is_one_line_and_exit_1(
    publishers: Publishers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_: Any) -> None:
        raise BrokerConnectionError("no broker answers at one:9092")

    monkeypatch.setattr(InMemoryEventPublisher, "start", refuse)
    result = run("-")
    assert result.exit_code == 1
    assert result.stderr == "Error: no broker answers at one:9092\n"


def test_a_bad_setting_is_reported_and_nothing_is_sent(publishers: Publishers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_STREAM_TOPIC_LAYOUT", "many")
    result = run("-")
    assert result.exit_code == 1
    assert "TOPIC_LAYOUT" in result.stderr
    assert publishers.made == []


def test_a_sample_is_an_event_that_was_made_up_another_one_each_time(publishers: Publishers) -> None:
    results = [run("--sample", stdin=b"not read"), run("--sample")]
    events = [event for made in publishers.made for event in made.events]
    assert [result.exit_code for result in results] == [0, 0]
    assert [event.type for event in events] == [VaultEventType.DATASET_CREATED] * 2
    assert len({event.id for event in events}) == len({event.data["dataset_id"] for event in events}) == 2
    assert results[0].stderr == f"llm.data-vault.dataset.created, id {events[0].id}\n"
    assert results[0].stdout == "1 published, 0 refused\n"


def test_a_sample_that_was_not_taken_is_not_named(monkeypatch: pytest.MonkeyPatch, publishers: Publishers) -> None:
    async def refuse(_publisher: InMemoryEventPublisher, _events: Any) -> Any:
        raise BrokerConnectionError("nobody there")

    monkeypatch.setattr(InMemoryEventPublisher, "publish_batch", refuse)
    result = run("--sample")
    assert (result.exit_code, result.stderr) == (1, "Error: nobody there\n")


def test_a_sample_can_be_checked_and_takes_no_file(publishers: Publishers, tmp_path: Path) -> None:
    assert run("--sample", "--check").stdout == "1 valid, 0 refused\n"
    file = tmp_path / "events.jsonl"
    file.write_bytes(GOOD)
    assert run("--sample", str(file)).exit_code == 2
    assert publishers.made == []


def test_a_file_that_is_not_there_is_wrong_usage(publishers: Publishers) -> None:
    assert run("nowhere.jsonl").exit_code == 2


def test_help_has_an_example() -> None:
    with click.Context(command.publish) as context:
        assert "Example: vault-stream publish" in command.publish.get_help(context)
