from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Producer

from app.cli.audit import audit
from app.devstack.broker import RunningBroker, running_broker
from app.events import format_time, partition_for
from app.integrations.chain import GENESIS, hash_of, make_entry
from app.integrations.export import writer_of
from app.integrations.governance import Flush, Line
from app.topics import Topics
from tables.audit import AUDIT, AuditRow, batch_key, head_key
from tests.support.audit_records import audit as audit_event
from tests.support.audit_records import audit_value
from tests.support.workers import read_topic

AT_MS = 1_750_000_000_000
PARTITIONS = 4
HOUR_MS = 3_600_000


def run(*arguments: str, command: str = "verify") -> Result:
    return CliRunner().invoke(audit, [command, *arguments])


def at(number: int) -> str:
    """When record `number` was recorded: an hour after the one before."""
    return format_time(AT_MS + number * HOUR_MS)


def entries(count: int) -> list[dict[str, Any]]:
    found, previous = [], GENESIS
    for number in range(count):
        entry = make_entry(
            audit_event(number),
            partition=0,
            sequence=number,
            timestamp_ms=AT_MS + number * HOUR_MS,
            previous_hash=previous,
        )
        previous = entry.hash
        found.append(orjson.loads(entry.body))
    return found


def export(path: Path, lines: list[dict[str, Any]]) -> str:
    file = path / "export.jsonl"
    file.write_bytes(b"\n".join(map(orjson.dumps, lines)) + b"\n")
    return str(file)


class TestAnExport:
    def test_that_is_whole_exits_0_and_says_from_where_it_checked(self, tmp_path: Path) -> None:
        result = run(export(tmp_path, entries(3)), "--no-trailer")
        assert result.exit_code == 0
        assert "3 entries, from 0 (the beginning of the chain) to 2" in result.stdout
        assert "), 0 repeats: ok" in result.stdout
        assert "sealed" not in result.stdout
        assert "without a trailer or --head: a cut tail would not show" in result.stdout

    @pytest.mark.parametrize("count", [0, 1, 3])
    def test_that_was_cut_before_its_trailers_exits_1(self, tmp_path: Path, count: int) -> None:
        file = tmp_path / "export.jsonl"
        file.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in entries(count)))
        result = run(str(file))
        assert result.exit_code == 1
        assert ("truncated: its trailer is missing" in result.stdout) is bool(count)
        assert ("is empty" in result.stderr) is not bool(count)
        assert run(str(file), "--no-trailer").exit_code == 0

    @pytest.mark.parametrize("options", [(), ("--no-trailer",)])
    @pytest.mark.parametrize("lines", [0, 2])
    def test_that_was_cut_in_the_middle_of_a_line_is_truncated(
        self, tmp_path: Path, lines: int, options: tuple[str, ...]
    ) -> None:
        file = tmp_path / "export.jsonl"
        file.write_bytes(b"\n".join(map(orjson.dumps, entries(3)[: lines + 1]))[:-40])
        result = run(str(file), *options)
        assert result.exit_code == 1
        assert f"truncated: line {lines + 1} ends in its middle" in result.stdout
        assert "JSON" not in result.output
        told = json.loads(run(str(file), *options, "--json").stdout)
        assert told["ok"] is False
        assert told["partitions"][0]["findings"][0]["kind"] == "truncated"

    def test_whose_entries_name_no_partition_is_not_told_to_be_a_broken_file(self, tmp_path: Path) -> None:
        lines, previous = entries(3), GENESIS
        for line in lines:
            line.pop("partition") if line["sequence"] else None
            line["previous_hash"] = previous
            line["hash"] = previous = hash_of(line)
        result = run(export(tmp_path, lines), "--no-trailer")
        assert "partition -1: 2 entries" in result.stdout
        assert ("BROKEN" in result.stdout) is (result.exit_code == 1)
        assert "the file" not in result.stdout

    def test_without_the_last_end_of_line_is_whole(self, tmp_path: Path) -> None:
        file = tmp_path / "export.jsonl"
        file.write_bytes(b"\n".join(map(orjson.dumps, entries(3))))
        assert run(str(file), "--no-trailer").exit_code == 0

    def test_that_is_broken_exits_1_and_names_the_entry(self, tmp_path: Path) -> None:
        lines = entries(3)
        lines[1]["action"] = "forged"
        result = run(export(tmp_path, lines))
        assert result.exit_code == 1
        assert "edited: entry 1" in result.stdout

    def test_is_compared_with_a_head(self, tmp_path: Path) -> None:
        lines = entries(3)
        head = f"0:2:{lines[2]['hash']}"
        assert run(export(tmp_path, lines), "--head", head).exit_code == 0
        cut = run(export(tmp_path, lines[:2]), "--head", head)
        assert cut.exit_code == 1
        assert "truncated" in cut.stdout

    def test_is_told_as_json(self, tmp_path: Path) -> None:
        result = run(export(tmp_path, entries(3)[1:]), "--no-trailer", "--json")
        told = json.loads(result.stdout)
        assert told["ok"] is True
        (partition,) = told["partitions"]
        assert (partition["first"], partition["from_start"], partition["checked"]) == (1, False, 2)
        assert partition["findings"] == []

    @pytest.mark.parametrize(
        "content",
        [b"{}\n{}\n", b'{"trailer": {}}\n', b'{"trailer": 1}\n', b'{"sequence": "x"}\n', b"# Title\n", b"\x89PNG\x00"],
    )
    def test_that_is_none_is_said_in_one_line_that_names_the_file(self, tmp_path: Path, content: bytes) -> None:
        file = tmp_path / "other.file"
        file.write_bytes(content)
        result = run(str(file))
        assert (result.exit_code, result.stdout) == (1, "")
        (line,) = result.stderr.splitlines()
        assert f"{file}, line 1: no audit event of an export: " in line

    def test_that_is_csv_says_what_to_do(self, tmp_path: Path) -> None:
        file = tmp_path / "export.csv"
        file.write_bytes(writer_of("csv").head())
        result = run(str(file))
        assert result.exit_code == 1
        assert "--format jsonl" in result.stderr

    def test_with_a_later_entry_that_lost_its_hash_is_still_checked_to_its_end(self, tmp_path: Path) -> None:
        lines = entries(3)
        del lines[1]["hash"]
        result = run(export(tmp_path, lines))
        assert result.exit_code == 1
        assert "unreadable" in result.stdout
        assert "to 2" in result.stdout

    def test_leaves_standard_error_empty_where_it_is_no_terminal(self, tmp_path: Path) -> None:
        assert run(export(tmp_path, entries(3))).stderr == ""

    def test_is_checked_in_a_time_range_alone(self, tmp_path: Path) -> None:
        lines = entries(6)
        lines[1]["action"] = "forged"
        trailer = {"trailer": {"partition": 0, "sequence": 5, "hash": lines[5]["hash"], "entries": 6}}
        file = export(tmp_path, [*lines, trailer])
        assert run(file).exit_code == 1
        told = json.loads(run(file, "--from", at(2), "--to", at(5), "--json").stdout)
        (partition,) = told["partitions"]
        assert (told["ok"], partition["first"], partition["checked"]) == (True, 2, 3)
        assert run(file, "--from", at(1)).exit_code == 1
        cut = export(tmp_path, [*lines[:5], trailer])
        assert "truncated" in run(cut, "--from", at(2)).stdout
        assert run(cut, "--from", at(2), "--to", at(4)).exit_code == 0
        assert run(cut, "--to", "2020-01-01").exit_code == 0

    @pytest.mark.parametrize("line", ["{", "[]"])
    def test_with_a_line_that_is_no_audit_event_names_the_line(self, tmp_path: Path, line: str) -> None:
        file = tmp_path / "export.jsonl"
        file.write_text(json.dumps(entries(1)[0]) + "\n\n" + line + "\n")
        result = run(str(file))
        assert result.exit_code == 1
        assert "line 3" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--topic", "pyproject.toml"],
        ["--topic", "--head", "0:x:ab"],
        ["--topic", "--head", "0:1"],
        # A part of a hash would look like a forged one.
        ["--topic", "--head", "0:1:9f86d081884c"],
        ["--topic", "--from", "2026-02-01", "--to", "2026-01-01"],
        ["--topic", "--no-trailer"],
    ],
)
def test_wrong_usage_exits_2(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    with running_broker("embedded", Path("unused")) as running:
        yield running


class Deployment:
    """A topic and a changelog on the broker, filled as router and governance fill them."""

    def __init__(self, broker: RunningBroker, app_id: str) -> None:
        self.topics = Topics(app_id, app_id)
        self._brokers = broker.bootstrap
        self._producer = Producer({"bootstrap.servers": broker.bootstrap, "log_level": 0})
        self._line = Line(0, Flush(size=3))
        self._count = 0

    def audit(self, *values: bytes) -> None:
        for value in values:
            at_ms = AT_MS + self._count * HOUR_MS
            self._producer.produce(self.topics.audit, value, partition=0, timestamp=at_ms)
            self._count += 1
        self._producer.flush(15)

    def seal(self, *numbers: int) -> None:
        for number in numbers:
            self._line.add(number, AT_MS + number * HOUR_MS, audit_event(number), size_bytes=1, due_s=0.0)
        seal = self._line.propose(0.0)
        assert seal is not None
        self._line.sealed(seal)
        self._line.batch = None
        self._log(head_key(0), AuditRow(head=seal.head))
        self._log(batch_key(0, seal.batch.first), AuditRow(batch=seal.batch))

    def _log(self, key: bytes, row: AuditRow) -> None:
        topic = self.topics.changelog("audit")
        self._producer.produce(topic, AUDIT.encode(row), key, partition=partition_for(key, PARTITIONS))
        # The engine's own rows lie in the same changelog.
        self._producer.produce(topic, b"\x80", b"\x00p/governance", partition=0)
        self._producer.flush(15)

    def events(self) -> list[dict[str, Any]]:
        found = read_topic(self._brokers, self.topics.events, committed=False)
        return [orjson.loads(message.value()) for message in found]


@pytest.fixture
def deployment(broker: RunningBroker, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    app_id = f"app-{abs(hash(request.node.name))}"
    monkeypatch.setenv("VAULT_STREAM_BROKERS", broker.bootstrap)
    monkeypatch.setenv("VAULT_STREAM_APP_ID", app_id)
    monkeypatch.setenv("VAULT_STREAM_TOPIC_PREFIX", app_id)
    return Deployment(broker, app_id)


class TestATopic:
    def test_that_is_whole_exits_0(self, deployment: Deployment) -> None:
        deployment.audit(*map(audit_value, range(7)))
        deployment.seal(0, 1, 2)
        deployment.seal(3, 4, 5)
        result = run("--topic", "--json")
        assert result.exit_code == 0, result.output
        checked = json.loads(result.stdout)["partitions"][0]
        assert (checked["first"], checked["from_start"], checked["checked"]) == (0, True, 7)
        assert (checked["batches"], checked["unsealed"]) == (2, 1)

    def test_with_an_edited_record_exits_1_and_names_the_batch(self, deployment: Deployment) -> None:
        deployment.audit(audit_value(0), audit_value(1, action="forged"), audit_value(2))
        deployment.seal(0, 1, 2)
        result = run("--topic")
        assert result.exit_code == 1
        assert "edited: batch" in result.stdout
        assert "-0-0-2 (0 to 2)" in result.stdout

    def test_whose_tail_is_missing_exits_1(self, deployment: Deployment) -> None:
        deployment.audit(audit_value(0), audit_value(1))
        deployment.seal(0, 1, 2)
        result = run("--topic")
        assert result.exit_code == 1
        assert "truncated" in result.stdout

    @pytest.mark.parametrize(("retention_d", "code"), [(36_500, 1), (1, 0)])
    def test_that_lost_records_before_their_time_exits_1(
        self, deployment: Deployment, monkeypatch: pytest.MonkeyPatch, retention_d: int, code: int
    ) -> None:
        monkeypatch.setenv("VAULT_STREAM_GOVERNANCE__RETENTION_D", str(retention_d))
        deployment.seal(0, 1, 2)
        deployment.seal(3, 4, 5)
        # The embedded cluster keeps 5 MB of a partition.
        deployment.audit(*(audit_value(number, details={"x": "y" * 900_000}) for number in range(12)))
        for arguments in ([], ["--from", at(0), "--to", at(5)], ["--to", at(1)]):
            result = run("--topic", *arguments)
            assert result.exit_code == code, result.output
            assert ("removed: batch" in result.stdout) is bool(code)

    def test_is_checked_in_a_time_range_alone_by_whole_batches(self, deployment: Deployment) -> None:
        values = [audit_value(number) for number in range(12)]
        values[1] = audit_value(1, action="forged")
        deployment.audit(*values)
        for first in range(0, 12, 3):
            deployment.seal(first, first + 1, first + 2)
        assert run("--topic").exit_code == 1
        result = run("--topic", "--from", at(4), "--to", at(8), "--json")
        assert result.exit_code == 0, result.output
        checked = json.loads(result.stdout)["partitions"][0]
        assert (checked["first"], checked["from_start"], checked["batches"], checked["checked"]) == (3, False, 2, 6)
        assert run("--topic", "--from", at(1)).exit_code == 1


class TestExported:
    def test_the_topic_is_an_export_that_verify_takes(self, deployment: Deployment, tmp_path: Path) -> None:
        deployment.audit(*map(audit_value, range(7)))
        deployment.seal(0, 1, 2)
        file = tmp_path / "out.jsonl"
        result = run("-o", str(file), "--json", command="export")
        assert result.exit_code == 0, result.output
        told = json.loads(result.stdout)
        assert (told["entries"], told["partitions"]) == (7, PARTITIONS)
        assert told["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        lines = [orjson.loads(line) for line in file.read_bytes().splitlines()]
        assert [line["sequence"] for line in lines[:7]] == list(range(7))
        assert [line["trailer"]["partition"] for line in lines[7:]] == list(range(PARTITIONS))
        assert run(str(file)).exit_code == 0
        assert list(tmp_path.iterdir()) == [file]

    def test_a_time_range_has_the_hashes_of_the_whole(self, deployment: Deployment) -> None:
        deployment.audit(*map(audit_value, range(9)))
        deployment.seal(0, 1, 2)
        deployment.seal(3, 4, 5)
        whole = run(command="export").stdout.splitlines()
        ranged = run("--from", at(4), "--to", at(8), command="export").stdout.splitlines()
        assert ranged[:4] == whole[4:8]
        assert json.loads(ranged[4])["trailer"]["entries"] == 4

    def test_that_it_was_exported_is_an_event_for_the_auditors(self, deployment: Deployment) -> None:
        deployment.audit(*map(audit_value, range(3)))
        deployment.seal(0, 1, 2)
        assert run("--resource", "ds-0", "--format", "csv", command="export").exit_code == 0
        (event,) = deployment.events()
        assert event["type"] == "llm.data-vault.operator.exported"
        assert (event["data"]["resource"], event["data"]["format"]) == ("ds-0", "csv")

    def test_a_file_that_cannot_be_written_is_said(self, deployment: Deployment, tmp_path: Path) -> None:
        deployment.audit(*map(audit_value, range(3)))
        deployment.seal(0, 1, 2)
        result = run("-o", str(tmp_path / "nowhere" / "x"), command="export")
        assert result.exit_code == 1
        assert "cannot be written" in result.stderr
