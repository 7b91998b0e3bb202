"""The audit trail over HTTP: how far it is, and its export, of two workers that share the partitions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest

from app.engine import OutputFailed, Owner, Ownership
from app.events import format_time
from app.integrations.verification import verify
from app.web import Forwarder
from app.web.audit_trail import EXPORTS_AT_ONCE, AuditApi
from app.web.forward import HOP_HEADER
from app.web.governance import governance_routes
from tables.audit_queries import AuditReaders
from tests.support.audit_log import TOPICS, FakeAuditLog, GovernedNumber
from tests.support.listening import ADMIN, TOKENS, VIEWER, Answer, Caller, listening
from tests.support.memory_unit import START_MS

COUNT = 4
MINE = {"a": (0, 1), "b": (2, 3)}
STATUS, EXPORT = "/v1/governance/status", "/v1/governance/export"


class Auditors:
    """Take what they are told of, or do not."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, bytes | None]] = []
        self.failure: Exception | None = None

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()
    ) -> tuple[int, int]:
        if self.failure is not None:
            raise self.failure
        self.heard.append((topic, value))
        return 0, 0


class Worker:
    """A worker with some of the partitions."""

    def __init__(self, log: FakeAuditLog, numbers: tuple[int, ...], *, sealing: bool = True) -> None:
        self.sent = Auditors()
        self.readers = AuditReaders()
        self.ownership = Ownership(COUNT, lambda number: number in numbers)
        self.forwarder = Forwarder(self.ownership)
        self.positions: dict[int, int] = {}
        self.api = AuditApi(
            readers=self.readers,
            ownership=self.ownership,
            forwarder=self.forwarder,
            log=log,
            topic=TOPICS.audit,
            sealing=sealing,
            position=lambda partition: self.positions.get(partition, 0),
            outputs=self.sent,
            events=TOPICS.events,
            source="/vault-stream/vs",
        )
        self.caller: Caller


class Cluster:
    """Workers a and b over one topic."""

    def __init__(self, log: FakeAuditLog, *, sealing: bool = True) -> None:
        self.log = log
        self.workers = {name: Worker(log, numbers, sealing=sealing) for name, numbers in MINE.items()}
        self.numbers: dict[int, GovernedNumber] = {}

    async def ask(self, path: str, worker: str = "a", **named: Any) -> Answer:
        return await self.workers[worker].caller.get(path, headers=VIEWER | named.pop("headers", {}), **named)

    async def export(self, worker: str = "a", **params: str) -> list[dict[str, Any]]:
        caller = self.workers[worker].caller
        async with caller.session.get(caller.url + EXPORT, headers=VIEWER, params=params) as answer:
            assert answer.status == 200, await answer.text()
            return [json.loads(line) for line in (await answer.text()).splitlines()]


@asynccontextmanager
async def serving(*, sealing: bool = True) -> AsyncIterator[Cluster]:
    log = FakeAuditLog()
    cluster = Cluster(log, sealing=sealing)
    owners: dict[int, Owner] = {}
    async with AsyncExitStack() as stack:
        for name, worker in cluster.workers.items():
            worker.caller = await stack.enter_async_context(listening(governance_routes(worker.api), TOKENS))
            stack.push_async_callback(worker.forwarder.close)
            owners |= {number: Owner(name, worker.caller.url) for number in MINE[name]}
        for number in range(COUNT):
            log.records[number] = []
            worker = cluster.workers["a" if number in MINE["a"] else "b"]
            worker.ownership.update(owners)
            if sealing:
                cluster.numbers[number] = await GovernedNumber.open(number, worker.readers)
                stack.push_async_callback(cluster.numbers[number].close)
        yield cluster


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with serving() as running:
        for number in range(COUNT):
            await running.numbers[number].deliver(running.log.fill(number, 4 + number))
        yield running


def sequences(lines: list[dict[str, Any]], partition: int) -> list[int]:
    return [line["sequence"] for line in lines if line.get("partition") == partition]


class TestTheStatus:
    @pytest.mark.parametrize("worker", ["a", "b"])
    async def test_is_of_all_partitions_at_any_worker(self, cluster: Cluster, worker: str) -> None:
        told = (await cluster.ask(STATUS, worker)).document
        assert told["missing"] == []
        assert (told["state"], "detail" in told) == ("on", False)
        assert [row["partition"] for row in told["partitions"]] == [0, 1, 2, 3]
        assert [row["head_sequence"] for row in told["partitions"]] == [2, 2, 5, 5]
        assert [row["unsealed"] for row in told["partitions"]] == [1, 2, 0, 1]
        assert [row["sealed"] for row in told["partitions"]] == [0, 0, 0, 0]
        head = (await cluster.export())[2]
        assert told["partitions"][0]["head_hash"] == head["hash"]

    async def test_says_what_the_dashboard_has_not_accepted_and_how_old_it_is(self, cluster: Cluster) -> None:
        number = cluster.numbers[2]
        number.dashboard.judge = lambda _: 503
        await number.deliver(cluster.log.fill(2, 4))
        number.context.clock.advance(66)
        row = (await cluster.ask(STATUS)).document["partitions"][2]
        assert (row["head_sequence"], row["sealed"], row["unsealed"]) == (8, 3, 1)
        assert row["oldest_unaccepted_s"] == 60.0

    async def test_counts_what_was_not_read_yet_and_no_record_that_was_passed_over(self, cluster: Cluster) -> None:
        cluster.log.fill(2, 5)
        assert (await cluster.ask(STATUS)).document["partitions"][2]["unsealed"] == 5
        cluster.workers["b"].positions[2] = 10
        assert (await cluster.ask(STATUS)).document["partitions"][2]["unsealed"] == 1

    async def test_says_of_a_partition_without_entries_that_there_are_none(self) -> None:
        async with serving() as cluster:
            row = (await cluster.ask(STATUS)).document["partitions"][3]
        assert row == {
            "partition": 3,
            "head_sequence": None,
            "head_hash": None,
            "unsealed": 0,
            "sealed": 0,
            "oldest_unaccepted_s": None,
        }

    async def test_names_the_partitions_whose_owner_does_not_answer(self, cluster: Cluster) -> None:
        cluster.workers["a"].ownership.update({2: Owner("dead", "http://127.0.0.1:1")})
        told = (await cluster.ask(STATUS)).document
        assert told["missing"] == [2, 3]
        assert [row["partition"] for row in told["partitions"]] == [0, 1]

    async def test_a_request_that_has_had_its_hop_is_answered_for_what_is_owned_here(self, cluster: Cluster) -> None:
        told = (await cluster.ask(STATUS, "b", headers={HOP_HEADER: "1"})).document
        assert [row["partition"] for row in told["partitions"]] == [2, 3]
        assert told["missing"] == [0, 1]

    async def test_without_a_dashboard_everything_is_unsealed_and_it_says_so(self) -> None:
        async with serving(sealing=False) as cluster:
            cluster.log.fill(1, 7)
            told = (await cluster.ask(STATUS)).document
        assert told["missing"] == []
        assert told["state"] == "off"
        assert "GOVERNANCE__ENDPOINT" in told["detail"]
        assert [row["unsealed"] for row in told["partitions"]] == [0, 7, 0, 0]

    async def test_is_503_while_the_broker_is_away(self, cluster: Cluster) -> None:
        cluster.log.breaks_after = 0
        assert (await cluster.ask(STATUS)).code == (503, "broker_unavailable")


class TestTheExport:
    @pytest.mark.parametrize("worker", ["a", "b"])
    async def test_is_whole_at_any_worker(self, cluster: Cluster, worker: str) -> None:
        lines = await cluster.export(worker)
        verdicts = verify(lines)
        assert [(verdict.ok, verdict.from_start, verdict.checked) for verdict in verdicts] == [
            (True, True, 4 + number) for number in range(COUNT)
        ]
        assert all(verdict.ended for verdict in verdicts)

    async def test_has_the_bytes_that_the_dashboard_has(self, cluster: Cluster) -> None:
        lines = await cluster.export()
        posted = [entry for call in cluster.numbers[2].dashboard.calls for entry in json.loads(call.body)]
        assert [line for line in lines if line.get("partition") == 2][: len(posted)] == posted

    @pytest.mark.parametrize("worker", ["a", "b"])
    async def test_of_a_time_range_has_the_hashes_of_the_whole(self, cluster: Cluster, worker: str) -> None:
        whole = await cluster.export()
        params = {"from": format_time(START_MS + 4000), "to": format_time(START_MS + 6000)}
        ranged = await cluster.export(worker, **params)
        assert sequences(ranged, 0) == []
        assert sequences(ranged, 1) == [4]
        assert sequences(ranged, 3) == [4, 5]
        assert [line for line in ranged if "trailer" not in line] == [
            line for line in whole if line.get("sequence") in {4, 5} and line["partition"] > 0
        ]
        assert all(verdict.ok for verdict in verify(ranged))

    async def test_of_a_resource_has_only_that(self, cluster: Cluster) -> None:
        lines = await cluster.export(resource="ds-3")
        assert {line["resource"]["id"] for line in lines if "trailer" not in line} == {"ds-3"}
        assert all(verdict.ok and verdict.filtered for verdict in verify(lines))

    async def test_as_csv_says_so(self, cluster: Cluster) -> None:
        caller = cluster.workers["a"].caller
        async with caller.session.get(caller.url + EXPORT, headers=VIEWER, params={"format": "csv"}) as answer:
            assert answer.content_type == "text/csv"
            assert answer.headers["Content-Disposition"] == 'attachment; filename="audit.csv"'
            assert (await answer.text()).startswith("kind,partition,sequence")

    async def test_begins_where_retention_left_a_batch_whole(self, cluster: Cluster) -> None:
        cluster.log.begin[3] = 1
        lines = await cluster.export()
        assert sequences(lines, 3) == [3, 4, 5, 6]
        assert lines[-1]["trailer"]["unlinked"] == 2
        cluster.log.begin[3] = 4
        assert sequences(await cluster.export(), 3) == [6]

    async def test_is_announced_to_the_auditors_by_the_name_of_the_token(self, cluster: Cluster) -> None:
        await cluster.export(resource="ds-1")
        ((topic, value),) = cluster.workers["a"].sent.heard
        event = json.loads(value or b"")
        assert (topic, event["type"]) == (TOPICS.events, "llm.data-vault.operator.exported")
        assert event["data"]["actor"] == {"id": "viewer", "type": "token"}
        assert event["data"]["resource"] == "ds-1"
        assert cluster.workers["b"].sent.heard == []

    async def test_that_cannot_be_announced_does_not_happen(self, cluster: Cluster) -> None:
        cluster.workers["a"].sent.failure = OutputFailed("no broker")
        assert (await cluster.ask(EXPORT)).code == (503, "broker_unavailable")

    async def test_with_a_partition_that_nobody_owns_does_not_begin(self, cluster: Cluster) -> None:
        cluster.workers["a"].ownership.update({2: Owner("b", cluster.workers["b"].caller.url)})
        assert (await cluster.ask(EXPORT)).code == (503, "no_owner")
        assert cluster.workers["a"].sent.heard == []

    async def test_that_breaks_off_is_no_whole_answer(self, cluster: Cluster) -> None:
        cluster.log.breaks_after = 3
        with pytest.raises(aiohttp.ClientPayloadError):
            await cluster.export()

    async def test_whose_reader_hangs_up_ends(self, cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
        await cluster.numbers[0].deliver(cluster.log.fill(0, 3000))
        worker = cluster.workers["a"]
        async with worker.caller.session.get(worker.caller.url + EXPORT, headers=VIEWER) as answer:
            await answer.content.readany()
            answer.close()
        async with asyncio.timeout(60):
            while worker.api.exports._value < EXPORTS_AT_ONCE:
                await asyncio.sleep(0.01)
        assert "a request failed" not in caplog.text

    async def test_beyond_four_at_a_time_has_to_wait(self, cluster: Cluster) -> None:
        for _ in range(EXPORTS_AT_ONCE):
            await cluster.workers["a"].api.exports.acquire()
        assert (await cluster.ask(EXPORT)).code == (429, "too_many_exports")

    async def test_without_a_dashboard_is_chained_from_the_beginning(self) -> None:
        async with serving(sealing=False) as cluster:
            cluster.log.fill(1, 7)
            (verdict,) = [verdict for verdict in verify(await cluster.export()) if verdict.checked]
        assert (verdict.ok, verdict.from_start, verdict.checked) == (True, True, 7)

    async def test_without_a_dashboard_does_not_take_what_retention_left_for_the_beginning(self) -> None:
        async with serving(sealing=False) as cluster:
            cluster.log.fill(1, 7)
            cluster.log.begin[1] = 2
            (verdict,) = [verdict for verdict in verify(await cluster.export()) if verdict.checked]
        assert (verdict.ok, verdict.from_start, verdict.first, verdict.checked) == (True, False, 2, 5)

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("from=yesterday", "from"),
            ("to=x", "to"),
            ("from=2026-01-02T00:00:00Z&to=2026-01-02T00:00:00Z", "to"),
            ("resource=", "resource"),
            ("format=pdf", "format"),
            ("limit=3", "limit"),
        ],
    )
    async def test_refuses_what_it_does_not_understand(self, cluster: Cluster, query: str, field: str) -> None:
        answer = await cluster.ask(f"{EXPORT}?{query}")
        assert (answer.code, answer.fields) == ((422, "invalid_query"), [field])

    async def test_asked_for_its_head_announces_nothing(self, cluster: Cluster) -> None:
        caller = cluster.workers["a"].caller
        async with caller.session.head(caller.url + EXPORT, headers=ADMIN) as answer:
            assert answer.status == 200
        assert cluster.workers["a"].sent.heard == []
