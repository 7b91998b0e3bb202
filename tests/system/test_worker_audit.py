"""A worker killed between seal and accept, before a dashboard that answers in every way it can: nothing is lost, the
batches are one chain of ranges, and each of five tamperings shows.

`make test` plays it with 5,000 events and one kill, `make prove` with 50,000 and ten.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from click.testing import CliRunner

from app.cli.audit import audit
from app.devstack.standins import Dashboard, Observations
from app.devstack.workload import make_workload
from app.integrations.export_range import between
from app.integrations.verification import verify as verify_entries
from app.publishing import VaultEvent
from tests.support.audit_tampering import LINES, RECORDS, copy_topic, records_of
from tests.support.report import report
from tests.support.workers import Deployment, RunningWorker

pytestmark = pytest.mark.kafka

PARTITIONS = 4
TIMEOUT_S = 0.5
POISON = "poison-for-the-dashboard"


@dataclass(frozen=True)
class Scale:
    events: int
    kills: int
    poisoned: int
    per_s: float
    deadline_s: float


SHORT = Scale(5_000, 1, 3, 4_000, 90)
FULL = Scale(50_000, 10, 12, 4_000, 600)


class HostileDashboard(Dashboard):
    """Says of some batches that they are too large, of a poisoned one that it is wrong, of some that it has no time,
    and takes some without an answer. It does not change its mind about a batch.

    Attributes:
        answered: How often it said what.
        caught: A batch has come that will not be answered, for its worker is to be killed now.
    """

    def __init__(self, observations: Observations) -> None:
        super().__init__(observations)
        self.answered: Counter[str] = Counter()
        self.bodies: dict[str, bytes] = {}
        self.different = 0
        self.catches = False
        self.caught = asyncio.Event()
        self._too_large: set[str] = set()
        self._seen = 0

    async def _take(self, request: web.Request) -> web.Response:
        key, body = request.headers["Idempotency-Key"], await request.read()
        if self.catches and key not in self.batches:
            self.catches = False
            self.caught.set()
            self._remember(key, body)
            await asyncio.Event().wait()
        lot = self._remember(key, body)
        if POISON.encode() in body:
            return self._say("422", 422)
        if key in self._too_large:
            return self._say("413", 413)
        if lot % 17 == 5:
            return self._say("503", 503, {"Retry-After": "1"})
        response = await super()._take(request)
        if lot % 19 == 7:
            self.answered["time-out after accepting"] += 1
            await asyncio.sleep(3 * TIMEOUT_S)
        self.answered[str(response.status)] += 1
        return response

    def _remember(self, key: str, body: bytes) -> int:
        """The number of a batch that comes for the first time, else 0."""
        self.different += self.bodies.setdefault(key, body) != body
        lot = len(self.bodies)
        if lot == self._seen:
            return 0
        self._seen = lot
        if lot % 9 == 3 and body.count(b'"previous_hash"') > 1:
            self._too_large.add(key)
        return lot

    def _say(self, what: str, status: int, headers: dict[str, str] | None = None) -> web.Response:
        self.answered[what] += 1
        return web.json_response({"error": what}, status=status, headers=headers)


@pytest.mark.parametrize(
    "scale", [pytest.param(SHORT, id="short"), pytest.param(FULL, id="full", marks=pytest.mark.prove)]
)
async def test_every_event_is_in_an_accepted_batch_and_tampering_shows(
    deployment: Deployment, scale: Scale, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = int(os.environ.get("SEED", "0")) or random.SystemRandom().randrange(1, 10_000)
    print(f"seed {seed}")  # noqa: T201  # a failure is repeated with it
    dashboard = HostileDashboard(deployment.observations)
    await dashboard.start()
    deployment.settings |= {
        "GOVERNANCE__ENDPOINT": dashboard.url,
        "GOVERNANCE__TIMEOUT_S": str(TIMEOUT_S),
        "GOVERNANCE__FLUSH_INTERVAL_S": "1",
        "GOVERNANCE__BUFFER_SIZE": "100",
    }
    events = workload(scale, seed)
    poisoned = {(event.source, event.id) for event in events if POISON in json.dumps(event.data)}
    began = time.monotonic()
    (worker,) = await deployment.start("w1")
    async with asyncio.TaskGroup() as group:
        group.create_task(deployment.publish(events, per_s=scale.per_s))
        group.create_task(kill_between_seal_and_accept(deployment, worker, dashboard, scale, seed))
    everything = {(event.source, event.id) for event in events} - poisoned
    await deployment.observed(lambda: everything <= dashboard.events, "all accepted", scale.deadline_s)
    await deployment.idle()
    took_s = time.monotonic() - began

    print(f"accepted after {took_s:.1f} s")  # noqa: T201
    records = await deployment.read(deployment.topics.audit)
    quarantined = await deployment.read(deployment.topics.quarantine)
    aside = {(message.partition(), message.offset()) for message in map(Origin, quarantined)}
    accepted = Counter(
        (entry["partition"], entry["sequence"]) for body in dashboard.batches.values() for entry in orjson.loads(body)
    )
    places = {(message.partition(), message.offset()): message.value() for message in records}
    assert accepted == dict.fromkeys(places.keys() - aside, 1)
    assert {place for place, value in places.items() if POISON.encode() in value} == aside
    assert (dashboard.changed, dashboard.different) == (0, 0)
    ranges = check_ranges(dashboard)
    for what in ("413", "422", "503", "409", "time-out after accepting"):
        assert dashboard.answered[what] > 0, what

    status, told = await worker.get("/v1/governance/status")
    assert status == 200
    assert [row["unsealed"] + row["sealed"] for row in told["partitions"]] == [0] * PARTITIONS
    for name in ("BROKERS", "APP_ID", "TOPIC_PREFIX"):
        value = {"BROKERS": deployment.brokers}.get(name, deployment.app_id)
        monkeypatch.setenv(f"VAULT_STREAM_{name}", value)
    exported = await exported_twice(worker, tmp_path / "export.jsonl")
    heads = {row["partition"]: (row["head_sequence"], row["head_hash"]) for row in told["partitions"]}
    assert {line["partition"]: (line["sequence"], line["hash"]) for line in exported if "sequence" in line} == heads
    await a_time_range_is_a_part_of_the_whole(worker, exported)
    await verify_passes_and_fails(exported, tmp_path)
    assert await deployment.stop() == [0]
    await the_topic_passes_and_fails(deployment, monkeypatch)
    await dashboard.stop()
    report(
        "Audit over kills",
        {
            "seed": seed,
            "events published": scale.events,
            "kill -9 between seal and accept": scale.kills,
            "the dashboard's answers": ", ".join(
                f"{what}: {count}" for what, count in sorted(dashboard.answered.items())
            ),
            "audit records, each in exactly one accepted batch": len(accepted),
            "put aside, for the dashboard would not take them": len(aside),
            "batch ids that came again with other bytes": dashboard.different,
            "ranges, none of which overlaps another": ranges,
            "tamperings of the export that verify names": len(LINES),
            "tamperings of the topic that verify names": len(RECORDS),
            "audit events a second, kills and waits included": round(len(accepted) / took_s),
        },
    )


async def test_how_far_it_is_and_its_export_are_the_same_from_any_worker(deployment: Deployment) -> None:
    deployment.settings |= {"GOVERNANCE__FLUSH_INTERVAL_S": "0.2"}
    workers = await deployment.start("w1", "w2")
    events = make_workload(200, seed=1, start_ms=time.time_ns() // 1_000_000).events
    await deployment.publish(events)
    everything = {(event.source, event.id) for event in events}
    await deployment.observed(lambda: everything <= deployment.upstreams.dashboard.events, "all accepted")
    await deployment.idle()
    assert all(worker.held() for worker in workers)

    told = [await worker.get("/v1/governance/status") for worker in workers]
    assert told[0] == told[1]
    assert told[0][1]["missing"] == []
    chain = by_place(deployment.upstreams.dashboard.chain())
    last = {entry["partition"]: (entry["sequence"], entry["hash"]) for entry in chain}
    rows = told[0][1]["partitions"]
    assert {row["partition"]: (row["head_sequence"], row["head_hash"]) for row in rows if row["head_hash"]} == last

    for worker in workers:
        status, exported = await worker.get("/v1/governance/export")
        assert status == 200
        lines = [orjson.loads(line) for line in exported.splitlines()]
        assert all(verdict.ok and verdict.ended for verdict in verify_entries(lines))
        entries = {(line["partition"], line["sequence"]): line for line in lines if "sequence" in line}
        assert all(entries[entry["partition"], entry["sequence"]] == entry for entry in chain)


def workload(scale: Scale, seed: int) -> Sequence[VaultEvent]:
    """Events of all types, some of which the dashboard refuses."""
    events = list(make_workload(scale.events - scale.poisoned, seed=seed, start_ms=time.time_ns() // 1_000_000).events)
    gap = len(events) // (scale.poisoned + 1)
    for number in range(scale.poisoned):
        data = {"dataset_id": f"ds-poison-{number}", "name": POISON}
        event = VaultEvent.new("llm.data-vault.dataset.created", "/vault/poison", data)
        events.insert((number + 1) * gap + number, event)
    return events


async def kill_between_seal_and_accept(
    deployment: Deployment, worker: RunningWorker, dashboard: HostileDashboard, scale: Scale, seed: int
) -> None:
    """A batch that has arrived is sealed, and one that was not answered is not accepted."""
    chance = random.Random(seed)
    for number in range(scale.kills):
        moment = scale.events * (number + chance.uniform(0.3, 0.9)) / (scale.kills + 0.5)
        await deployment.observed(lambda moment=moment: len(dashboard.events) >= moment, f"{moment:.0f} events")
        dashboard.caught.clear()
        dashboard.catches = True
        async with asyncio.timeout(60):
            await dashboard.caught.wait()
        await worker.kill()
        await worker.start()
        await deployment.ready(worker)


def check_ranges(dashboard: HostileDashboard) -> int:
    """One chain a partition, and ranges that do not overlap; how many there are."""
    found: dict[int, set[tuple[str, int, int]]] = {}
    for key in dashboard.bodies:
        chain, partition, first, last = key.partition(".")[0].split("-")
        found.setdefault(int(partition), set()).add((chain, int(first), int(last)))
    for ranges in found.values():
        assert len({chain for chain, _, _ in ranges}) == 1
        ordered = sorted((first, last) for _, first, last in ranges)
        assert all(last < first for (_, last), (first, _) in pairwise(ordered))
    return sum(map(len, found.values()))


class Origin:
    """Where a quarantined record came from, as its headers say."""

    def __init__(self, message: Any) -> None:
        self._headers = dict(message.headers())
        assert self._headers["vs-reason"] == b"rejected_upstream"

    def partition(self) -> int:
        return int(self._headers["vs-partition"])

    def offset(self) -> int:
        return int(self._headers["vs-offset"])


async def exported_twice(worker: RunningWorker, file: Path) -> list[dict[str, Any]]:
    """The export of the command and that of the API are the same entries and trailers."""
    status, told = await worker.get("/v1/governance/export")
    assert status == 200
    result = await asyncio.to_thread(CliRunner().invoke, audit, ["export", "-o", str(file)])
    assert result.exit_code == 0, result.output
    exported = await asyncio.to_thread(file.read_bytes)
    lines: list[dict[str, Any]] = [orjson.loads(line) for line in exported.splitlines()]
    entries = {(line["partition"], line["sequence"]): line for line in lines if "sequence" in line}
    # That it was exported became an event between the two.
    of_api = [orjson.loads(line) for line in told.splitlines()]
    assert all(entries[line["partition"], line["sequence"]] == line for line in of_api if "sequence" in line)
    assert sum("trailer" in line for line in of_api) == sum("trailer" in line for line in lines) == PARTITIONS
    return of_api


async def a_time_range_is_a_part_of_the_whole(worker: RunningWorker, lines: list[dict[str, Any]]) -> None:
    """Of the API by the broker's times, and checked on the topic by whole batches."""
    times = sorted(line["recorded_at"] for line in lines if "sequence" in line)
    begin, end = times[len(times) // 3], times[2 * len(times) // 3]
    status, told = await worker.get(f"/v1/governance/export?from={begin}&to={end}")
    assert status == 200
    found = [orjson.loads(line) for line in told.splitlines()]
    expected = [line for line in between(lines, begin, end) if "sequence" in line]
    assert by_place(line for line in found if "sequence" in line) == by_place(expected) != []
    assert all(verdict.ok and verdict.ended for verdict in verify_entries(found))
    assert await verify("--topic", "--from", begin, "--to", end) == (0, [])


def by_place(lines: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(lines, key=lambda line: (line["partition"], line["sequence"]))


async def verify(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and findings of `audit verify`."""
    result = await asyncio.to_thread(CliRunner().invoke, audit, ["verify", *arguments, "--json"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    told = json.loads(result.stdout)
    return result.exit_code, [finding for verdict in told["partitions"] for finding in verdict["findings"]]


async def verify_passes_and_fails(lines: list[dict[str, Any]], folder: Path) -> None:
    """Of the export: each tampering is named with its entry."""
    file = folder / "tampered.jsonl"

    def write(found: list[dict[str, Any]]) -> str:
        file.write_bytes(b"\n".join(map(orjson.dumps, found)))
        return str(file)

    by_partition = sorted(lines, key=lambda line: line["partition"] if "sequence" in line else PARTITIONS)
    assert await verify(write(by_partition)) == (0, [])
    at = next(place for place, line in enumerate(by_partition) if line.get("partition") == 2) + 10
    for kind, tamper in LINES.items():
        code, findings = await verify(write(tamper(by_partition, at)))
        assert code == 1, kind
        assert kind in {finding["kind"] for finding in findings}, (kind, findings)
        named = {finding["sequence"] for finding in findings}
        sequence = by_partition[at]["sequence"]
        assert kind == "truncated" or named & {sequence, sequence + 1}, (kind, named)


async def the_topic_passes_and_fails(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the topic, by copies of it: each tampering is named with its batch, and four of them are in one copy."""
    assert (await verify("--topic"))[0] == 0
    found = records_of(await deployment.read(deployment.topics.audit))
    *four, last = RECORDS
    for number, tampered in enumerate(({}, dict(enumerate(four)), {1: last})):
        copied = {partition: list(all_) for partition, all_ in found.items()}
        for partition, kind in tampered.items():
            RECORDS[kind](copied[partition], 10)
        prefix = f"{deployment.app_id}-copy-{number}"
        topic = f"{prefix}.governance.audit"
        await asyncio.to_thread(copy_topic, deployment.brokers, topic, copied, PARTITIONS)
        monkeypatch.setenv("VAULT_STREAM_TOPIC_PREFIX", prefix)
        code, findings = await verify("--topic")
        assert (code, bool(findings)) == ((1, True) if tampered else (0, False)), findings
        first_of: dict[int, dict[str, Any]] = {}
        for finding in findings:
            first_of.setdefault(int(finding["batch"].split("-")[1]), finding)
        assert first_of.keys() == tampered.keys()
        for partition, kind in tampered.items():
            finding = first_of[partition]
            first, last_ = map(int, finding["batch"].split("-")[2:])
            assert kind == "truncated" or first <= 10 <= last_, (kind, finding)
            # Exchanged, and shifted by one that was put between, they give another hash: the batch was edited.
            assert finding["kind"] == (kind if kind in {"edited", "removed", "truncated"} else "edited")
