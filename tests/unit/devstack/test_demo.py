import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.devstack import demo
from app.devstack.broker import RunningBroker, running_broker
from app.devstack.demo import Demo, DemoError, chain_holds, demo_workload
from app.devstack.processes import ProcessEndedError, Worker, module_command
from app.devstack.tally import Result
from app.events import VaultEventType
from app.integrations.chain import GENESIS, make_entry

EVENTS = 60


class Silent:
    """A display that keeps what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.counts: dict[str, tuple[int, int]] = {}

    def say(self, line: str) -> None:
        self.lines.append(line)

    def count(self, what: str, done: int, total: int) -> None:
        self.counts[what] = (done, total)


@pytest.fixture
def broker() -> Iterator[RunningBroker]:
    with running_broker("embedded", Path("unused")) as running:
        yield running


@pytest.fixture
def naive(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker without any of the hard parts."""
    command = module_command("tests.unit.devstack.naive_worker")
    monkeypatch.setattr(demo, "Worker", lambda settings, folder: Worker(settings, folder, command))


async def play(broker: RunningBroker, folder: Path, display: Silent) -> Result:
    workload = demo_workload(broker, EVENTS, seed=1)
    async with asyncio.timeout(40):
        return await Demo(broker, workload, folder, display).run()


@pytest.mark.usefixtures("naive")
async def test_a_worker_that_loses_nothing_passes_though_it_was_killed(broker: RunningBroker, tmp_path: Path) -> None:
    display = Silent()
    result = await play(broker, tmp_path, display)
    assert result.ok, result
    assert result.deliveries_observed == result.deliveries_expected
    assert result.quarantined == 5
    assert "kill -9 of the worker, and a new one" in display.lines
    assert display.counts["published"] == (EVENTS, EVENTS)
    assert result.duplicates > 0  # it started over


@pytest.mark.usefixtures("naive")
async def test_a_worker_that_skips_events_fails(
    broker: RunningBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAIVE_SKIPS", VaultEventType.VERSION_TAGGED)
    monkeypatch.setattr(demo, "DEADLINE_S", 2.0)
    result = await play(broker, tmp_path, Silent())
    assert not result.ok
    assert result.lost > 0


@pytest.mark.usefixtures("naive")
async def test_a_worker_that_stands_still_is_given_up_before_the_deadline_with_its_last_error(
    broker: RunningBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAIVE_SKIPS", VaultEventType.VERSION_TAGGED)
    monkeypatch.setattr(demo, "STALL_S", 2.0)
    (tmp_path / "worker.log").write_text('{"level": "CRITICAL", "message": "the stage webhooks failed"}\n')
    display = Silent()
    result = await play(broker, tmp_path, display)
    assert not result.ok
    assert display.lines[-1] == "gave up waiting; the worker says: the stage webhooks failed"


@pytest.mark.usefixtures("naive")
async def test_a_worker_that_does_not_get_to_the_middle_is_one_clear_error(
    broker: RunningBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "KILL_AT", 2.0)
    monkeypatch.setattr(demo, "STALL_S", 1.0)
    with pytest.raises(DemoError, match="gave up waiting; the worker logged no error"):
        await play(broker, tmp_path, Silent())


async def test_a_worker_that_ends_by_itself_is_one_clear_error(
    broker: RunningBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = module_command("json.tool", "/nowhere")
    monkeypatch.setattr(demo, "Worker", lambda settings, folder: Worker(settings, folder, command))
    with pytest.raises(ProcessEndedError, match="the worker ended with code"):
        await play(broker, tmp_path, Silent())


def test_more_events_than_the_embedded_cluster_remembers_are_refused_with_a_number_that_fits() -> None:
    embedded = RunningBroker("embedded", "unused")
    with pytest.raises(DemoError, match=r"give at most 2[0-9]00, or --broker kafka"):
        demo_workload(embedded, 4000, seed=1)
    assert len(demo_workload(RunningBroker("kafka", "unused"), 4000, seed=1).events) == 4000


def test_a_chain_holds_from_its_first_entry_and_not_with_one_removed() -> None:
    entries, previous = [], GENESIS
    for sequence in range(4):
        entry = make_entry(
            {"id": f"e{sequence}", "source": "/s"},
            partition=0,
            sequence=sequence,
            timestamp_ms=1_767_225_600_000,
            previous_hash=previous,
        )
        previous = entry.hash
        entries.append(json.loads(entry.body))
    assert chain_holds(entries)
    assert not chain_holds(entries[1:])
    assert not chain_holds([*entries[:1], *entries[2:]])
    assert not chain_holds([])
