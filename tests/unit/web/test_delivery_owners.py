"""Deliveries over HTTP, of several workers that share the numbers: one hop to an owner, one list over all of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from app.engine import Owner, Ownership
from app.events import delivery_id
from app.settings import ApiSettings
from app.web import Forwarder
from app.web.cursors import cursor_of
from app.web.deliveries import DeliveriesApi, delivery_routes
from app.web.forward import HOP_HEADER
from app.webhooks.model import DeliveryRow, Status
from tables.deliveries import DELIVERIES, delivery_key
from tables.delivery_queries import Readers
from tests.support.listening import ADMIN, TOKENS, VIEWER, Answer, Caller, listening, walk
from tests.support.memory_unit import START_MS
from tests.support.rows_reader import RowsReader

HOPPED = {HOP_HEADER: "1"}
COUNT = 6
NOBODYS, DEAD = 4, 5
MINE = {"a": (0, 1), "b": (2, 3)}


class Worker:
    """A worker with some of the numbers."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self.numbers = set(numbers)
        self.readers = Readers()
        self.ownership = Ownership(COUNT, lambda number: number in self.numbers)
        self.forwarder = Forwarder(self.ownership)
        self.caller: Caller

    def use(self, number: int, reader: RowsReader) -> None:
        self.numbers.add(number)
        self.readers.opened(number, reader)


class Cluster:
    """Workers a and b; number 4 has no owner, and the one of number 5 is dead."""

    def __init__(self) -> None:
        self.readers = {number: RowsReader() for number in range(COUNT)}
        self.workers = {name: Worker(numbers) for name, numbers in MINE.items()}
        self.ids: list[str] = []

    def webhook_of(self, number: int) -> str:
        ids = (f"wh_{n}" for n in range(1000))
        return next(id_ for id_ in ids if self.workers["a"].ownership.number_of(id_.encode()) == number)

    def add(self, number: int, event_id: str, at_ms: int, status: Status = Status.DELIVERED) -> str:
        """A delivery; its id."""
        webhook_id = self.webhook_of(number)
        id_ = delivery_id(webhook_id, "/vault", event_id)
        row = DeliveryRow(
            delivery_id=id_,
            webhook_id=webhook_id,
            event_id=event_id,
            event_source="/vault",
            event_type="llm.data-vault.dataset.created",
            status=status,
            created_at_ms=at_ms,
            waiting_since_ms=at_ms,
            expires_at_ms=at_ms + 86_400_000,
        )
        self.readers[number].rows.put(DELIVERIES, delivery_key(webhook_id, id_), row)
        return id_

    @asynccontextmanager
    async def running(self, tokens: ApiSettings | None = None, dead: str = "http://127.0.0.1:1") -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            owners = {DEAD: Owner("dead", dead)}
            for name, worker in self.workers.items():
                for number in worker.numbers:
                    worker.use(number, self.readers[number])
                stack.push_async_callback(worker.forwarder.close)
                routes = delivery_routes(DeliveriesApi(worker.readers, worker.ownership, worker.forwarder))
                worker.caller = await stack.enter_async_context(listening(routes, tokens))
                owners |= dict.fromkeys(worker.numbers, Owner(name, worker.caller.url))
            for worker in self.workers.values():
                worker.ownership.update(owners)
            yield

    async def get(self, worker: str, path: str, **named: Any) -> Answer:
        return await self.workers[worker].caller.get(path, **named)


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    cluster = Cluster()
    async with cluster.running():
        yield cluster


@asynccontextmanager
async def answering(body: bytes, status: int = 200) -> AsyncIterator[str]:
    """A worker that gives one answer to everything; its URL."""

    async def any_(_request: web.Request) -> web.Response:
        return web.Response(status=status, body=body, content_type="application/json")

    async with listening([web.get("/{tail:.*}", any_)]) as caller:
        yield caller.url


class TestOneOfAnotherWorker:
    async def test_is_shown_by_any_worker(self, cluster: Cluster) -> None:
        id_ = cluster.add(2, "e", START_MS)
        for worker in ("a", "b"):
            shown = await cluster.get(worker, f"/v1/deliveries/{id_}")
            assert (shown.status, shown.document["id"]) == (200, id_)

    async def test_is_looked_for_where_it_would_be(self, cluster: Cluster) -> None:
        id_ = delivery_id(cluster.webhook_of(2), "/vault", "never")
        assert (await cluster.get("a", f"/v1/deliveries/{id_}")).code == (404, "not_found")

    @pytest.mark.parametrize("path", ["/v1/deliveries/{id}", "/v1/deliveries?webhook_id={webhook}"])
    async def test_is_asked_for_in_one_hop_only(self, cluster: Cluster, path: str) -> None:
        place = path.format(id=cluster.add(2, "e", START_MS), webhook=cluster.webhook_of(2))
        refused = await cluster.get("a", place, headers=HOPPED)
        assert refused.code == (503, "not_owner")
        assert int(refused.headers["Retry-After"]) > 0
        assert (await cluster.get("b", place, headers=HOPPED)).status == 200

    @pytest.mark.parametrize(("number", "code"), [(NOBODYS, "no_owner"), (DEAD, "owner_unreachable")])
    async def test_without_an_owner_that_answers_is_503(self, cluster: Cluster, number: int, code: str) -> None:
        for path in (
            f"/{delivery_id(cluster.webhook_of(number), '/', 'e')}",
            f"?webhook_id={cluster.webhook_of(number)}",
        ):
            found = await cluster.get("a", f"/v1/deliveries{path}")
            assert found.code == (503, code)
            assert int(found.headers["Retry-After"]) > 0

    async def test_is_listed_by_its_webhook(self, cluster: Cluster) -> None:
        cluster.add(2, "e1", START_MS)
        cluster.add(2, "e2", START_MS + 1)
        cluster.add(3, "other", START_MS)
        found = await cluster.get("a", f"/v1/deliveries?webhook_id={cluster.webhook_of(2)}")
        assert [item["event_id"] for item in found.document["items"]] == ["e2", "e1"]
        assert (found.document["next_cursor"], found.document["missing"]) == (None, [])

    async def test_whose_number_closes_is_503(self, cluster: Cluster) -> None:
        id_ = cluster.add(0, "e", START_MS)
        cluster.readers[0].closing = True
        for path in (f"/{id_}", f"?webhook_id={cluster.webhook_of(0)}"):
            found = await cluster.get("a", f"/v1/deliveries{path}")
            assert found.code == (503, "no_owner")
            assert int(found.headers["Retry-After"]) > 0


class TestTheListOverAllOwners:
    async def test_is_merged_newest_first_and_names_who_is_missing(self, cluster: Cluster) -> None:
        expected = [cluster.add(n % 4, f"e{n}", START_MS + n) for n in range(8)]
        for worker in ("a", "b"):
            found = (await cluster.get(worker, "/v1/deliveries")).document
            assert [item["id"] for item in found["items"]] == expected[::-1]
            assert (found["next_cursor"], found["missing"]) == (None, [NOBODYS, DEAD])

    @pytest.mark.parametrize("limit", [1, 3, 7, 200])
    async def test_has_pages_without_loss_or_repeat_whoever_is_asked(self, cluster: Cluster, limit: int) -> None:
        # Three of each millisecond, spread unevenly: most are owned by a, and the newest by b.
        placed = [(START_MS + n // 3, (0, 0, 1, 0, 2)[n % 5]) for n in range(20)]
        placed += [(START_MS + 50 + n, 3) for n in range(10)]
        rows = [(at_ms, cluster.add(number, f"e{n}", at_ms)) for n, (at_ms, number) in enumerate(placed)]
        callers = [worker.caller for worker in cluster.workers.values()]
        found = [page async for page in walk(callers, f"/v1/deliveries?limit={limit}")]
        assert [item["id"] for page in found for item in page["items"]] == [
            id_ for _, id_ in sorted(rows, key=lambda row: (-row[0], row[1]))
        ]
        assert all(len(page["items"]) <= limit for page in found)

    async def test_can_be_narrowed(self, cluster: Cluster) -> None:
        for number in range(4):
            cluster.add(number, "same", START_MS)
            cluster.add(number, f"e{number}", START_MS, Status.FAILED)
        same = (await cluster.get("a", "/v1/deliveries?event_id=same")).document["items"]
        failed = (await cluster.get("a", "/v1/deliveries?status=failed&limit=200")).document["items"]
        assert len({item["webhook_id"] for item in same}) == len(same) == 4
        assert sorted(item["event_id"] for item in failed) == ["e0", "e1", "e2", "e3"]

    async def test_that_was_passed_on_is_about_the_numbers_here(self, cluster: Cluster) -> None:
        ours = cluster.add(2, "ours", START_MS)
        cluster.add(0, "theirs", START_MS)
        found = (await cluster.get("b", "/v1/deliveries", headers=HOPPED)).document
        assert [item["id"] for item in found["items"]] == [ours]
        assert found["missing"] == [0, 1, NOBODYS, DEAD]

    async def test_says_so_where_an_owner_has_lost_a_number(self, cluster: Cluster) -> None:
        kept = cluster.add(2, "kept", START_MS)
        cluster.add(3, "lost", START_MS)
        cluster.readers[3].closing = True
        found = (await cluster.get("a", "/v1/deliveries")).document
        assert [item["id"] for item in found["items"]] == [kept]
        assert found["missing"] == [3, NOBODYS, DEAD]

    async def test_does_not_show_what_a_worker_has_yet_but_does_not_own_any_more(self, cluster: Cluster) -> None:
        cluster.add(3, "lost", START_MS)
        cluster.workers["b"].numbers.discard(3)
        found = (await cluster.get("a", "/v1/deliveries")).document
        assert (found["items"], found["missing"]) == ([], [3, NOBODYS, DEAD])

    async def test_passes_nothing_that_an_owner_has_not_reached_yet(self) -> None:
        # An owner that has looked at 10,000 rows ends its page early.
        cluster = Cluster()
        newer = cluster.add(0, "newer", START_MS + 10)
        cluster.add(0, "older", START_MS)
        reached = cursor_of(START_MS + 5, "dlv_a", "deliveries")
        short = json.dumps({"items": [], "next_cursor": reached, "missing": []}).encode()
        async with answering(short) as url, cluster.running(dead=url):
            found = (await cluster.get("a", "/v1/deliveries")).document
        assert [item["id"] for item in found["items"]] == [newer]
        assert found["next_cursor"] == reached

    async def test_shows_what_two_workers_tell_of_once(self, cluster: Cluster) -> None:
        id_ = cluster.add(1, "moved", START_MS)
        cluster.workers["b"].use(1, cluster.readers[1])
        found = (await cluster.get("a", "/v1/deliveries")).document
        assert [item["id"] for item in found["items"]] == [id_]

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"<html>",
            b"[]",
            b"{}",
            b'{"items":[],"next_cursor":null}',
            b'{"items":[],"next_cursor":"!","missing":[]}',
            b'{"items":[],"next_cursor":5,"missing":[]}',
            b'{"items":[{}],"next_cursor":null,"missing":[]}',
            b'{"items":[{"id":"dlv_a","created_at":5}],"next_cursor":null,"missing":[]}',
            b'{"items":[{"id":"dlv_a","created_at":"today"}],"next_cursor":null,"missing":[]}',
            b'{"items":[],"next_cursor":null,"missing":["all"]}',
        ],
    )
    async def test_leaves_out_an_owner_whose_answer_cannot_be_read(self, body: bytes) -> None:
        cluster = Cluster()
        id_ = cluster.add(0, "e", START_MS)
        async with answering(body) as url, cluster.running(dead=url):
            found = await cluster.get("a", "/v1/deliveries")
        assert found.status == 200
        assert [item["id"] for item in found.document["items"]] == [id_]
        assert found.document["missing"] == [NOBODYS, DEAD]

    async def test_leaves_out_an_owner_that_refuses(self) -> None:
        cluster = Cluster()
        page = b'{"items":[],"next_cursor":null,"missing":[]}'
        async with answering(page, 503) as url, cluster.running(dead=url):
            assert (await cluster.get("a", "/v1/deliveries")).document["missing"] == [NOBODYS, DEAD]
        async with answering(page) as url, cluster.running(dead=url):
            assert (await cluster.get("a", "/v1/deliveries")).document["missing"] == [NOBODYS]


async def test_a_viewer_reads_everywhere_and_nobody_without_a_token() -> None:
    cluster = Cluster()
    ids = [cluster.add(number, "e", START_MS) for number in (0, 2)]
    async with cluster.running(TOKENS):
        for headers in (VIEWER, ADMIN):
            found = await cluster.get("a", "/v1/deliveries", headers=headers)
            assert {item["id"] for item in found.document["items"]} == set(ids)
            for id_ in ids:
                assert (await cluster.get("a", f"/v1/deliveries/{id_}", headers=headers)).status == 200
        assert (await cluster.get("a", "/v1/deliveries")).code == (401, "unauthorized")
        assert (await cluster.get("a", f"/v1/deliveries/{ids[1]}")).code == (401, "unauthorized")
