"""The commands that ask a broker, when it is not there, and when it has no topics yet."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from confluent_kafka import KafkaError, KafkaException, Producer

from app.cli import broker, cli, topic_reader
from app.cli.broker import Broker, broker_of
from app.cli.topic_reader import TopicReader, settled
from app.devstack.broker import RunningBroker, running_broker
from app.settings import Settings
from app.topics import TopicCreationError

NOBODY = "127.0.0.1:1"
ASKING = [
    ["topics", "check"],
    ["topics", "apply"],
    ["positions", "show"],
    ["positions", "reset", "vault.events/3", "--to", "5", "--yes"],
    ["audit", "verify", "--topic"],
    ["quarantine", "list", "--direct"],
    ["quarantine", "show", "0-1", "--direct"],
    ["quarantine", "republish", "--all", "--yes", "--direct"],
]


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VAULT_STREAM_BROKERS", NOBODY)


@pytest.fixture(scope="module")
def embedded() -> Iterator[RunningBroker]:
    with running_broker("embedded", Path("unused")) as running:
        yield running


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def failure(code: int) -> KafkaException:
    return KafkaException(KafkaError(code))


@pytest.mark.parametrize("command", ASKING, ids=" ".join)
def test_a_broker_that_is_not_there_is_one_line_soon(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert broker.FIRST_ANSWER_S < 5
    monkeypatch.setattr(broker, "FIRST_ANSWER_S", 0.3)
    result = run(*command)
    assert result.exit_code == 1
    assert result.stderr == f"Error: no broker answers at {NOBODY}: is Kafka running there?\n"


@pytest.mark.parametrize("code", [KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT])
def test_a_broker_that_goes_away_is_the_same_line(embedded: RunningBroker, code: int) -> None:
    with (
        pytest.raises(click.ClickException, match="no broker answers at"),
        broker_of(Settings(brokers=embedded.bootstrap)),
    ):
        raise failure(code)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (failure(KafkaError.TOPIC_AUTHORIZATION_FAILED), "no right Read on a topic: add the ACL"),
        (TopicCreationError("refused to create x"), "refused to create x"),
    ],
)
def test_a_refusal_is_said_in_words(embedded: RunningBroker, error: Exception, line: str) -> None:
    with pytest.raises(click.ClickException, match=line) as caught, broker_of(Settings(brokers=embedded.bootstrap)):
        raise error
    assert "KafkaError{" not in str(caught.value)


def test_a_topic_that_is_missing_is_said_with_what_makes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class NothingThere:
        def __init__(self, _config: dict[str, Any]) -> None:
            pass

        def list_topics(self, topic: str, **_options: Any) -> Any:
            missing = SimpleNamespace(error=KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART), partitions={})
            return SimpleNamespace(topics={topic: missing})

    monkeypatch.setattr(topic_reader, "Consumer", NothingThere)
    with pytest.raises(click.ClickException) as caught:
        TopicReader(Broker({}, embedded=False)).partitions("vault.events")
    assert caught.value.message == (
        "there is no topic vault.events: run `vault-stream topics apply`, or a worker, with these settings"
    )


def test_what_retention_took_before_it_was_read_is_an_error_and_no_end(embedded: RunningBroker) -> None:
    topic, record = "taken", b"x" * 500_000
    producer = Producer({"bootstrap.servers": embedded.bootstrap, "log_level": 0})
    for _ in range(20):
        producer.produce(topic, record, partition=0)
        producer.flush(15)
    with closing(TopicReader(Broker({"bootstrap.servers": embedded.bootstrap}, embedded=True))) as reader:
        begin, end = reader.bounds(topic, 0)
        assert begin > 0, "the embedded cluster keeps 5 MB of a partition"
        with pytest.raises(click.ClickException, match="retention took records of taken"):
            list(reader.records(topic, "reading", {0: (0, end)}))


@pytest.mark.parametrize("where", ["middle", "-1", "²", ""])
def test_a_place_that_is_none_is_wrong_usage_before_the_broker_is_asked(where: str) -> None:
    result = run("positions", "reset", "vault.events/3", f"--to={where}", "--yes")
    assert result.exit_code == 2
    assert "neither beginning, end, nor an offset" in result.stderr


def test_what_brokers_do_not_agree_on_yet_is_asked_again() -> None:
    answers = iter([failure(KafkaError.NOT_LEADER_FOR_PARTITION), failure(KafkaError.UNKNOWN_TOPIC_OR_PART), None])

    def ask() -> str:
        error = next(answers)
        if error is not None:
            raise error
        return "done"

    assert settled(ask) == "done"


@pytest.mark.parametrize(
    ("code", "patience_s"), [(KafkaError.TOPIC_AUTHORIZATION_FAILED, 60), (KafkaError.NOT_LEADER_FOR_PARTITION, 0)]
)
def test_other_failures_and_lasting_ones_are_raised(
    monkeypatch: pytest.MonkeyPatch, code: int, patience_s: float
) -> None:
    monkeypatch.setattr(topic_reader, "SETTLE_S", patience_s)

    def ask() -> None:
        raise failure(code)

    with pytest.raises(KafkaException):
        settled(ask)
