"""Replays over HTTP, at any of several workers; what a replay does is played."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.engine import OutputFailed
from app.replays import AT_ONCE, QUEUED_AT_MOST, REMEMBERED
from app.web.forward import HOP_HEADER
from app.webhooks.replay import Selection
from app.webhooks.replay_request import Only
from app.webhooks.replay_run import ReplayFailed
from tables.webhooks import webhook_key
from tests.support.listening import ADMIN, TOKENS, VIEWER, walk
from tests.support.memory_unit import START_MS
from tests.support.replay_world import DAY_MS, MINE, NOBODYS, SINCE, Cluster
from tests.support.webhooks import TOPICS


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    cluster = Cluster()
    async with cluster.running():
        yield cluster


class TestAsking:
    async def test_starts_a_replay_at_the_owner_of_the_webhook(self, cluster: Cluster) -> None:
        webhook_id = cluster.webhook_of(2)
        answer = await cluster.ask("w.a", webhook_id, SINCE | {"request_id": "r1", "rate_per_s": 5})
        assert answer.status == 202
        shown = answer.document
        assert shown["id"].startswith("w-b.")
        assert answer.headers["Location"] == f"/v1/replays/{shown['id']}"
        assert (shown["webhook_id"], shown["request_id"], shown["rate_per_s"]) == (webhook_id, "r1", 5.0)
        assert shown["state"] in {"queued", "running"}
        run = cluster.workers["w-b"].runs[shown["id"]]
        assert run.selection == Selection(Only.ALL, None, DAY_MS)

    async def test_tells_the_auditors_who_asked_for_what(self) -> None:
        cluster = Cluster()
        webhook_id = cluster.webhook_of(2)
        async with cluster.running(TOKENS):
            answer = await cluster.ask("w.a", webhook_id, SINCE | {"request_id": "r1"}, headers=ADMIN)
        (told,) = cluster.workers["w-b"].told
        assert told["topic"] == TOPICS.events
        assert told["type"] == "llm.data-vault.operator.replayed"
        assert told["id"] == answer.document["id"]
        assert (told["webhook_id"], told["actor"]) == (webhook_id, {"id": "admin", "type": "token"})
        assert told["request"]["request_id"] == "r1"

    @pytest.mark.parametrize("failure", [OutputFailed("no broker"), TimeoutError()])
    async def test_starts_nothing_that_the_auditors_cannot_be_told_of(
        self, cluster: Cluster, failure: Exception
    ) -> None:
        cluster.workers["w.a"].failure = failure
        answer = await cluster.ask("w.a", cluster.webhook_of(0))
        assert answer.code == (503, "broker_unavailable")
        assert int(answer.headers["Retry-After"]) > 0
        assert cluster.workers["w.a"].replays.all() == []

    async def test_for_the_same_again_while_it_runs_is_the_same_replay(self, cluster: Cluster) -> None:
        webhook_id = cluster.webhook_of(0)
        body = SINCE | {"request_id": "r1"}
        first, second = [(await cluster.ask("w.a", webhook_id, body)).document["id"] for _ in range(2)]
        other = (await cluster.ask("w.a", webhook_id, body | {"only": "all"})).document["id"]
        assert (first == second, first == other) == (True, False)
        worker = cluster.workers["w.a"]
        worker.runs[first].let_go.set()
        await worker.state(first, "done")
        assert (await cluster.ask("w.a", webhook_id, body)).document["id"] != first
        assert len(worker.told) == 3

    async def test_for_a_webhook_that_there_is_not_is_404(self, cluster: Cluster) -> None:
        gone = cluster.webhook_of(0, deleting=True)
        assert (await cluster.ask("w.a", gone)).code == (404, "not_found")
        del cluster.readers[0].rows.of["webhooks"]
        assert (await cluster.ask("w.a", gone)).code == (404, "not_found")

    async def test_for_a_disabled_webhook_says_to_enable_it_first(self, cluster: Cluster) -> None:
        disabled = cluster.webhook_of(0, enabled=False, disabled_at_ms=START_MS)
        for body in (SINCE, {"since_disabled": True}):
            assert (await cluster.ask("w.a", disabled, body)).code == (409, "webhook_disabled")

    async def test_since_disabled_is_about_the_time_between(self, cluster: Cluster) -> None:
        webhook_id = cluster.webhook_of(0, disabled_at_ms=START_MS - 50, enabled_at_ms=START_MS - 10)
        answer = await cluster.ask("w.a", webhook_id, {"since_disabled": True})
        selection = cluster.workers["w.a"].runs[answer.document["id"]].selection
        assert selection.only is Only.MISSED
        assert selection.disabled is not None
        assert (selection.disabled.from_ms, selection.disabled.until_ms) == (START_MS - 50, START_MS - 10)

    async def test_since_disabled_for_one_that_never_was_is_refused(self, cluster: Cluster) -> None:
        answer = await cluster.ask("w.a", cluster.webhook_of(0), {"since_disabled": True})
        assert (answer.status, answer.fields) == (422, ["/since_disabled"])

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"since": "2025-06-15T00:00:00Z", "limit": 1}, "/limit"),
            ({"since_disabled": True, "since": "2025-06-15T00:00:00Z"}, "/since_disabled"),
            ({"from_offset": {"vault.quarantine/0": 1}}, "/from_offset/vault.quarantine~10"),
            ({"since": "2025-01-01T00:00:00Z", "only": "missed"}, "/only"),
        ],
    )
    async def test_wrongly_names_the_field(self, cluster: Cluster, body: Any, field: str) -> None:
        answer = await cluster.ask("w.a", cluster.webhook_of(0), body)
        assert (answer.status, answer.fields) == (422, [field])

    async def test_without_a_body_or_with_a_query_is_refused(self, cluster: Cluster) -> None:
        path = f"/v1/webhooks/{cluster.webhook_of(0)}/replay"
        assert (await cluster.call("w.a", "POST", path)).status == 400
        assert (await cluster.call("w.a", "POST", path + "?since=now", SINCE)).code == (422, "invalid_query")

    async def test_while_nobody_owns_the_webhook_is_503(self, cluster: Cluster) -> None:
        assert (await cluster.ask("w.a", cluster.webhook_of(NOBODYS))).code == (503, "no_owner")
        webhook_id = cluster.webhook_of(0)
        cluster.readers[0].closing = True
        assert (await cluster.ask("w.a", webhook_id)).code == (503, "no_owner")

    async def test_waits_until_the_owners_own_copy_shows_the_webhook(self, cluster: Cluster) -> None:
        webhook_id = cluster.webhook_of(0, version=2)
        replica = cluster.workers["w.a"].replica
        row = replica.rows.pop(webhook_key(webhook_id))

        async def arrive() -> None:
            await asyncio.sleep(0.05)
            replica.rows[webhook_key(webhook_id)] = row
            async with replica._moved:
                replica._moved.notify_all()

        answer, _ = await asyncio.gather(cluster.ask("w.a", webhook_id), arrive())
        assert answer.status == 202

    async def test_needs_an_admin(self) -> None:
        cluster = Cluster()
        webhook_id = cluster.webhook_of(2)
        async with cluster.running(TOKENS):
            assert (await cluster.ask("w.a", webhook_id, headers=VIEWER)).code == (403, "forbidden")
            id_ = (await cluster.ask("w.a", webhook_id, headers=ADMIN)).document["id"]
            path = f"/v1/replays/{id_}"
            assert (await cluster.call("w.a", "DELETE", path, headers=VIEWER)).code == (403, "forbidden")
            assert (await cluster.call("w.a", "GET", path, headers=VIEWER)).status == 200
            assert (await cluster.call("w.a", "GET", "/v1/replays", headers=VIEWER)).status == 200
            assert (await cluster.call("w.a", "GET", path)).code == (401, "unauthorized")


class TestAReplay:
    async def test_is_shown_and_cancelled_at_any_worker(self, cluster: Cluster) -> None:
        id_ = (await cluster.ask("w-b", cluster.webhook_of(0))).document["id"]
        await cluster.workers["w.a"].state(id_, "running")
        for worker in MINE:
            shown = await cluster.call(worker, "GET", f"/v1/replays/{id_}")
            assert (shown.status, shown.document["state"]) == (200, "running")
            assert (shown.document["scanned"], shown.document["total"]) == (40, 100)
        cancelled = await cluster.call("w-b", "DELETE", f"/v1/replays/{id_}")
        assert (cancelled.status, cancelled.document["state"]) == (200, "cancelled")
        again = await cluster.call("w.a", "DELETE", f"/v1/replays/{id_}")
        assert again.document == cancelled.document
        assert again.document["ended_at"]

    async def test_that_ended_says_how(self, cluster: Cluster) -> None:
        worker, webhook_id = cluster.workers["w.a"], cluster.webhook_of(0)
        ends = {
            "done": (None, None),
            "failed": (ReplayFailed("the webhook was deleted"), "the webhook was deleted"),
        }
        for state, (error, said) in ends.items():
            id_ = (await cluster.ask("w.a", webhook_id)).document["id"]
            worker.runs[id_].error = error
            worker.runs[id_].let_go.set()
            await worker.state(id_, state)
            shown = (await cluster.call("w-b", "GET", f"/v1/replays/{id_}")).document
            assert (shown["state"], shown.get("error")) == (state, said)

    async def test_with_a_bug_in_it_ends_without_telling_what_the_log_should(self, cluster: Cluster) -> None:
        worker = cluster.workers["w.a"]
        id_ = (await cluster.ask("w.a", cluster.webhook_of(0))).document["id"]
        worker.runs[id_].error = KeyError("whsec_something")
        worker.runs[id_].let_go.set()
        replay = await worker.state(id_, "failed")
        assert replay.show()["error"] == "it failed here; the log of the worker has the reason"

    async def test_of_a_worker_that_is_gone_is_404_and_says_what_to_do(self, cluster: Cluster) -> None:
        for id_ in ("w-c.0b8f9c1e", "w.a.0b8f9c1e", "nonsense", "w-b.nothing"):
            for method in ("GET", "DELETE"):
                answer = await cluster.call("w.a", method, f"/v1/replays/{id_}")
                assert answer.code == (404, "not_found")
                assert "same request_id" in answer.document["detail"]

    async def test_of_a_worker_that_does_not_answer_is_503(self) -> None:
        cluster = Cluster()
        async with cluster.running(w_b="http://127.0.0.1:1"):
            answer = await cluster.call("w.a", "GET", "/v1/replays/w-b.0b8f9c1e")
        assert answer.code == (503, "owner_unreachable")

    async def test_is_looked_for_in_one_hop_only(self, cluster: Cluster) -> None:
        answer = await cluster.call("w.a", "GET", "/v1/replays/w-b.0b8f9c1e", headers={HOP_HEADER: "1"})
        assert answer.code == (404, "not_found")


class TestSeveral:
    async def test_run_two_at_a_time_and_the_others_wait_in_sight(self, cluster: Cluster) -> None:
        worker, webhook_id = cluster.workers["w.a"], cluster.webhook_of(0)
        ids = [(await cluster.ask("w.a", webhook_id)).document["id"] for _ in range(AT_ONCE + 2)]
        await worker.state(ids[AT_ONCE - 1], "running")
        assert [worker.replays.get(id_).progress.state for id_ in ids[AT_ONCE:]] == ["queued", "queued"]  # type: ignore[union-attr]
        await cluster.call("w.a", "DELETE", f"/v1/replays/{ids[AT_ONCE]}")
        worker.runs[ids[0]].let_go.set()
        await worker.state(ids[-1], "running")
        assert worker.replays.get(ids[AT_ONCE]).progress.state == "cancelled"  # type: ignore[union-attr]

    async def test_are_refused_once_too_many_wait(self, cluster: Cluster) -> None:
        webhook_id = cluster.webhook_of(0)
        for _ in range(QUEUED_AT_MOST):
            assert (await cluster.ask("w.a", webhook_id)).status == 202
        refused = await cluster.ask("w.a", webhook_id)
        assert refused.code == (429, "too_many_replays")
        assert int(refused.headers["Retry-After"]) > 0

    async def test_that_ended_are_remembered_up_to_the_last_hundred(self, cluster: Cluster) -> None:
        worker, webhook_id = cluster.workers["w.a"], cluster.webhook_of(0)
        running = (await cluster.ask("w.a", webhook_id)).document["id"]
        ids = []
        for _ in range(REMEMBERED + 3):
            ids.append((await cluster.ask("w.a", webhook_id)).document["id"])
            await cluster.call("w.a", "DELETE", f"/v1/replays/{ids[-1]}")
        assert {replay.id for replay in worker.replays.all()} == {running, *ids[3:]}

    async def test_are_listed_newest_first_over_all_workers(self, cluster: Cluster) -> None:
        hooks = {number: cluster.webhook_of(number) for number in (0, 1, 2)}
        cluster.workers["w-b"].now_ms += 3
        for place in range(11):
            await cluster.ask("w.a", hooks[place % 3])
        expected = [
            replay.id
            for replay in sorted(
                (replay for worker in cluster.workers.values() for replay in worker.replays.all()),
                key=lambda replay: (-replay.created_at_ms, replay.place[1]),
            )
        ]
        callers = [worker.caller for worker in cluster.workers.values()]
        for limit in (1, 3, 200):
            pages = [page async for page in walk(callers, f"/v1/replays?limit={limit}")]
            assert [item["id"] for page in pages for item in page["items"]] == expected
            assert all(len(page["items"]) <= limit for page in pages)
            assert all(page["missing"] == [NOBODYS] for page in pages)

    async def test_are_listed_without_a_worker_that_does_not_answer(self) -> None:
        cluster = Cluster()
        async with cluster.running(w_b="http://127.0.0.1:1"):
            mine = (await cluster.ask("w.a", cluster.webhook_of(0))).document["id"]
            found = (await cluster.call("w.a", "GET", "/v1/replays")).document
        assert ([item["id"] for item in found["items"]], found["missing"]) == ([mine], [2, NOBODYS])

    async def test_end_when_the_worker_stops(self, cluster: Cluster) -> None:
        worker, webhook_id = cluster.workers["w.a"], cluster.webhook_of(0)
        for _ in range(AT_ONCE + 1):
            await cluster.ask("w.a", webhook_id)
        await worker.replays.close()
        assert {(r.progress.state.value, r.progress.error) for r in worker.replays.all()} == {
            ("cancelled", "the worker stopped; ask again with the same request_id")
        }
