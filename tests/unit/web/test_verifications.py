"""Verifications of the audit trail in a worker: watched and cancelled at any, over what the real agent has sealed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from app.engine import Owner, Ownership, Record
from app.web import Forwarder
from app.web.audit_trail import AuditApi
from app.web.audit_verifier import MAX_FINDINGS, REMEMBERED, AuditVerifier
from app.web.forward import HOP_HEADER
from app.web.verifications import verification_routes
from tables.audit import AUDIT
from tables.audit_queries import AuditReaders
from tests.support.audit_log import TOPICS, FakeAuditLog, GovernedNumber
from tests.support.audit_records import audit_value
from tests.support.listening import ADMIN, TOKENS, VIEWER, Caller, listening
from tests.support.memory_unit import START_MS, record

TP = tuple[str, int]
PATH = "/v1/governance/verifications"


class SlowLog(FakeAuditLog):
    """A log whose blocks come when they are let through."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()

    async def read(self, start: Mapping[TP, int], until: Mapping[TP, int]) -> AsyncGenerator[list[Record], None]:
        async for block in super().read(start, until):
            yield block
            await self.gate.wait()


@dataclass
class Trail:
    """A topic with two partitions, what was sealed of it, and two workers; `a` has partition 0, `b` has 1."""

    log: SlowLog
    changelog: FakeAuditLog
    verifiers: dict[str, AuditVerifier]
    callers: dict[str, Caller]

    def edit(self, partition: int, offset: int) -> None:
        known = self.log.records[partition]
        known[offset] = record(
            audit_value(offset, details={"edited": True}),
            topic=TOPICS.audit,
            partition=partition,
            offset=offset,
            timestamp=known[offset].timestamp,
        )

    async def start(self, at: str = "a") -> str:
        begun = await self.callers[at].call("POST", PATH, headers=ADMIN)
        assert begun.status == 202, begun.document
        assert begun.headers["Location"] == f"{PATH}/{begun.document['id']}"
        return str(begun.document["id"])

    async def show(self, id_: str, at: str = "a") -> dict[str, Any]:
        return dict((await self.callers[at].get(f"{PATH}/{id_}", headers=VIEWER)).document)

    async def ended(self, id_: str, at: str = "a") -> dict[str, Any]:
        async with asyncio.timeout(30):
            while (told := await self.show(id_, at))["state"] == "running":
                await asyncio.sleep(0)
        return told


@pytest.fixture
async def trail() -> AsyncIterator[Trail]:
    log, changelog, readers = SlowLog(), FakeAuditLog(), AuditReaders()
    async with AsyncExitStack() as stack:
        for number in (0, 1):
            agent = await GovernedNumber.open(number, readers)
            stack.push_async_callback(agent.close)
            await agent.deliver(log.fill(number, 10))
            rows = agent.context.rows.of[AUDIT.name]
            changelog.records[number] = [
                record(value, key=key, topic="changelog", partition=number, offset=offset)
                for offset, (key, value) in enumerate([(b"\0engine", b"{}"), *sorted(rows.items())])
            ]
        trail = Trail(log, changelog, {}, {})
        owners: dict[int, Owner] = {}
        ownerships: list[Ownership] = []
        for number, name in enumerate("ab"):
            ownership = Ownership(2, lambda asked, mine=number: asked == mine)  # type: ignore[misc]  # a default binds it
            forwarder = Forwarder(ownership)
            api = AuditApi(
                readers=readers,
                ownership=ownership,
                forwarder=forwarder,
                log=log,
                topic=TOPICS.audit,
                sealing=True,
                position=lambda _: 0,
                outputs=None,  # type: ignore[arg-type]  # nothing is announced
                events=TOPICS.events,
                source="/vault-stream/vs",
            )
            verifier = AuditVerifier(name, log, changelog, lambda: START_MS - 1, lambda: START_MS, max_batches=50)
            caller = await stack.enter_async_context(listening(verification_routes(api, verifier), TOKENS))
            stack.push_async_callback(forwarder.close)
            stack.push_async_callback(verifier.close)
            trail.verifiers[name], trail.callers[name] = verifier, caller
            owners[number] = Owner(name, caller.url)
            ownerships.append(ownership)
        for ownership in ownerships:
            ownership.update(owners)
        stack.callback(log.gate.set)
        yield trail


at_any = pytest.mark.parametrize("at", ["a", "b"])


@at_any
async def test_a_whole_trail_is_found_whole_and_watched_at_any_worker(trail: Trail, at: str) -> None:
    told = await trail.ended(await trail.start("a"), at)
    assert (told["state"], told["ok"], told["error"], told["first_broken"]) == ("done", True, None, None)
    assert (told["worker"], told["step"], told["read"]) == ("a", "records", told["total"])
    assert told["ended_at"] is not None
    assert [
        (row["partition"], row["ok"], row["first"], row["from_start"], row["checked"], row["batches"], row["unsealed"])
        for row in told["partitions"]
    ] == [(0, True, 0, True, 10, 3, 1), (1, True, 0, True, 10, 3, 1)]
    assert all(re.fullmatch("[0-9a-f]{64}", row["head_hash"]) for row in told["partitions"])


async def test_the_first_broken_batch_is_named_and_the_others_are_judged_alone(trail: Trail) -> None:
    trail.edit(1, 4)
    told = await trail.ended(await trail.start())
    assert (told["state"], told["ok"]) == ("done", False)
    assert (told["first_broken"]["partition"], told["first_broken"]["kind"]) == (1, "edited")
    assert told["first_broken"]["batch"].endswith("-1-3-5")
    assert [(row["ok"], len(row["findings"])) for row in told["partitions"]] == [(True, 0), (False, 1)]


async def test_a_topic_that_was_cut_is_no_whole_one(trail: Trail) -> None:
    del trail.log.records[0][4:]
    told = await trail.ended(await trail.start())
    assert (told["ok"], told["first_broken"]["kind"]) == (False, "truncated")


async def test_a_partition_whose_records_are_all_gone_is_no_whole_one(trail: Trail) -> None:
    del trail.log.records[1]
    told = await trail.ended(await trail.start())
    assert (told["ok"], told["first_broken"]["partition"], told["first_broken"]["kind"]) == (False, 1, "truncated")


async def test_of_many_findings_so_many_are_named(trail: Trail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.web.audit_verifier.MAX_FINDINGS", 2)
    assert MAX_FINDINGS > 2
    for offset in (0, 3, 6):
        trail.edit(0, offset)
    row = (await trail.ended(await trail.start()))["partitions"][0]
    assert (len(row["findings"]), row["not_named"]) == (2, 1)


@at_any
async def test_it_says_how_far_it_is_and_is_cancelled_at_any_worker(trail: Trail, at: str) -> None:
    trail.log.gate.clear()
    id_ = await trail.start("a")
    async with asyncio.timeout(30):
        while (told := await trail.show(id_, at))["total"] is None or told["step"] != "records":
            await asyncio.sleep(0)
    assert (told["state"], told["ok"], told["ended_at"]) == ("running", None, None)
    assert 0 < told["read"] < told["total"]
    assert (await trail.callers[at].call("DELETE", f"{PATH}/{id_}", headers=VIEWER)).status == 403
    cancelled = (await trail.callers[at].call("DELETE", f"{PATH}/{id_}", headers=ADMIN)).document
    assert (cancelled["state"], cancelled["ok"]) == ("cancelled", None)
    again = (await trail.callers[at].call("DELETE", f"{PATH}/{id_}", headers=ADMIN)).document
    assert again == cancelled
    trail.log.gate.set()
    assert (await trail.ended(await trail.start("a")))["ok"] is True


async def test_a_worker_runs_one_at_a_time(trail: Trail) -> None:
    trail.log.gate.clear()
    id_ = await trail.start("a")
    refused = await trail.callers["a"].call("POST", PATH, headers=ADMIN)
    assert refused.code == (409, "verification_runs")
    assert id_ in refused.document["detail"]
    other = await trail.start("b")
    listed = (await trail.callers["a"].get(PATH, headers=VIEWER)).document
    assert ({one["id"] for one in listed["items"]}, listed["missing"]) == ({id_, other}, [])


async def test_a_viewer_starts_none(trail: Trail) -> None:
    assert (await trail.callers["a"].call("POST", PATH, headers=VIEWER)).status == 403


async def test_a_broker_that_goes_away_is_no_finding(trail: Trail) -> None:
    trail.log.breaks_after = 2
    told = await trail.ended(await trail.start())
    assert (told["state"], told["ok"], told["partitions"]) == ("failed", None, [])
    assert "try again" in told["error"]


async def test_more_batches_than_a_worker_holds_are_left_to_the_command(trail: Trail) -> None:
    trail.verifiers["a"]._max_batches = 2
    told = await trail.ended(await trail.start())
    assert (told["state"], told["ok"]) == ("failed", None)
    assert "vault-stream audit verify --topic" in told["error"]


async def test_a_row_that_nobody_can_read_is_an_error_of_the_worker(
    trail: Trail, caplog: pytest.LogCaptureFixture
) -> None:
    found = trail.changelog.records[0]
    found[1] = record(b"\xff", key=found[1].key, topic="changelog", offset=1)
    told = await trail.ended(await trail.start())
    assert (told["state"], told["ok"]) == ("failed", None)
    assert "its log has more" in told["error"]
    assert "a verification failed" in caplog.text


async def test_the_last_few_are_remembered(trail: Trail) -> None:
    started = []
    for _ in range(REMEMBERED + 1):
        started.append(await trail.start())
        await trail.ended(started[-1])
    listed = (await trail.callers["b"].get(PATH, headers=VIEWER)).document["items"]
    assert {one["id"] for one in listed} == set(started[1:])
    assert (await trail.callers["b"].get(f"{PATH}/{started[0]}", headers=VIEWER)).status == 404


async def test_one_that_nobody_remembers_says_so(trail: Trail) -> None:
    for method in ("GET", "DELETE"):
        lost = await trail.callers["a"].call(method, f"{PATH}/none", headers=ADMIN)
        assert lost.code == (404, "not_found")


async def test_it_ends_with_its_worker(trail: Trail) -> None:
    trail.log.gate.clear()
    id_ = await trail.start("a")
    await trail.verifiers["a"].close()
    assert (await trail.show(id_))["state"] == "cancelled"


async def test_an_id_that_can_be_none_is_unknown_also_to_a_worker_that_is_asked_by_another_one(trail: Trail) -> None:
    answer = await trail.callers["a"].get(f"{PATH}/{'0' * 200}", headers={**VIEWER, HOP_HEADER: "1"})

    assert answer.status == 404
