"""Deliveries over HTTP, of one worker with a number of the agent in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

import pytest

from app.engine import Ownership
from app.events import delivery_id, format_time
from app.web import Forwarder
from app.web.cursors import seal_cursor
from app.web.deliveries import DeliveriesApi, delivery_routes, number_of_delivery
from tables import delivery_queries
from tests.support.listening import Caller, listening, walk
from tests.support.memory_unit import START_MS
from tests.support.webhooks import TIMEOUT, Desk, answer, webhook_row


def cursor(place: bytes) -> str:
    return quote(seal_cursor("deliveries", place))


@asynccontextmanager
async def desk_served(desk: Desk, *, count: int = 1) -> AsyncIterator[Caller]:
    """Number 0 is open here; of several numbers, nobody owns the others."""
    ownership = Ownership(count, lambda number: number == 0)
    forwarder = Forwarder(ownership)
    async with listening(delivery_routes(DeliveriesApi(desk.readers, ownership, forwarder))) as caller:
        yield caller
    await forwarder.close()
    await desk.context.close(desk.processor)


async def desk_with_a_short_wait() -> Desk:
    """One delivered, one in flight, and one that came a moment later and waits for it in memory."""
    desk = await Desk().open(webhook_row("wh_a"))
    await desk.deliver(desk.intent("delivered"))
    desk.receiver.hold()
    for event_id in ("first", "second"):
        desk.clock.advance(0.1)
        await desk.deliver(desk.intent(event_id, subject="d1"))
    assert desk.row("second") is None
    return desk


@pytest.fixture
async def api() -> AsyncIterator[Caller]:
    """One delivered, one that is retried, one in flight; each a second later than the one before."""
    desk = await Desk().open(webhook_row("wh_a"), webhook_row("wh_b"))
    desk.receiver.will_answer(answer(503, body="later"), event_id="retried")
    for event_id in ("delivered", "retried"):
        await desk.deliver(desk.intent(event_id))
        desk.clock.advance(1)
    desk.receiver.hold()
    await desk.deliver(desk.intent("flying", "wh_b"))
    async with desk_served(desk) as caller:
        yield caller


class TestList:
    async def test_all_deliveries_are_listed_newest_first(self, api: Caller) -> None:
        found = (await api.get("/v1/deliveries")).document
        assert [(i["event_id"], i["status"], i["in_flight"]) for i in found["items"]] == [
            ("flying", "pending", True),
            ("retried", "retrying", False),
            ("delivered", "delivered", False),
        ]
        assert (found["next_cursor"], found["missing"]) == (None, [])

    @pytest.mark.parametrize(
        ("query", "events"),
        [
            ("webhook_id=wh_a", ["retried", "delivered"]),
            ("webhook_id=wh_a&status=delivered", ["delivered"]),
            ("webhook_id=wh_a&event_id=flying", []),
            ("webhook_id=", []),
            ("webhook_id=%00", []),
            ("status=pending", ["flying"]),
            ("status=delivered", ["delivered"]),
            ("status=cancelled", []),
            ("event_id=retried", ["retried"]),
            ("event_id=%ED%A0%80", []),
            (f"since={format_time(START_MS + 1000)}", ["flying", "retried"]),
            ("since=2099-01-01T00:00:00Z", []),
            ("since=0001-01-01T00:00:00Z", ["flying", "retried", "delivered"]),
        ],
    )
    async def test_a_list_can_be_narrowed(self, api: Caller, query: str, events: list[str]) -> None:
        found = await api.get(f"/v1/deliveries?{query}")
        assert found.status == 200
        assert [item["event_id"] for item in found.document["items"]] == events

    @pytest.mark.parametrize(("status", "events"), [("delivered", ["delivered"]), ("failed", [])])
    async def test_a_list_of_one_status_reads_no_row_of_another(
        self, monkeypatch: pytest.MonkeyPatch, api: Caller, status: str, events: list[str]
    ) -> None:
        monkeypatch.setattr(delivery_queries, "SCAN_LIMIT", 1)
        found = (await api.get(f"/v1/deliveries?status={status}")).document
        assert [item["event_id"] for item in found["items"]] == events
        assert found["next_cursor"] is None

    @pytest.mark.parametrize("query", ["limit=1", "limit=2", "limit=1&webhook_id=wh_a&since=2000-01-01T00:00:00Z"])
    async def test_pages_show_everything_once(self, api: Caller, query: str) -> None:
        seen = [item["event_id"] async for page in walk([api], f"/v1/deliveries?{query}") for item in page["items"]]
        assert seen == [e for e in ("flying", "retried", "delivered") if e != "flying" or "webhook_id" not in query]

    @pytest.mark.parametrize(
        ("query", "events"),
        [
            ("", ["second", "first", "delivered"]),
            ("webhook_id=wh_a", ["second", "first", "delivered"]),
            ("webhook_id=wh_a&status=pending", ["second", "first"]),
            ("webhook_id=wh_a&status=delivered", ["delivered"]),
            ("event_id=second", ["second"]),
            (f"since={format_time(START_MS + 200)}", ["second"]),
            ("limit=1", ["second", "first", "delivered"]),
            ("limit=1&webhook_id=wh_a&status=pending", ["second", "first"]),
        ],
    )
    async def test_what_waits_for_a_moment_without_a_row_is_listed(self, query: str, events: list[str]) -> None:
        async with desk_served(await desk_with_a_short_wait()) as api:
            items = [item async for page in walk([api], f"/v1/deliveries?{query}") for item in page["items"]]

        assert [item["event_id"] for item in items] == events
        assert [item["in_flight"] for item in items] == [event_id == "first" for event_id in events]

    @pytest.mark.parametrize(
        ("query", "field_"),
        [
            ("status=happy", "status"),
            ("status=", "status"),
            ("since=yesterday", "since"),
            ("since=2025-06-31", "since"),
            ("limit=0", "limit"),
            ("limit=201", "limit"),
            ("colour=red", "colour"),
            ("event_id=a&event_id=b", "event_id"),
            ("cursor=", "cursor"),
            ("cursor=!", "cursor"),
            ("cursor=%C3%A9", "cursor"),
            *(
                (f"cursor={cursor(place)}", "cursor")
                for place in (b"1", b"1/", b"/dlv_a", b"-1/dlv_a", b"1/a/b", b"1/\x00", b"%d/dlv_a" % 2**64)
            ),
        ],
    )
    async def test_a_bad_parameter_is_422_and_named(self, api: Caller, query: str, field_: str) -> None:
        found = await api.get(f"/v1/deliveries?{query}")
        assert (found.code, found.fields) == ((422, "invalid_query"), [field_])

    async def test_what_nobody_owns_is_missing(self) -> None:
        desk = await Desk().open(webhook_row())
        await desk.deliver(desk.intent("e1"))
        async with desk_served(desk, count=3) as api:
            found = (await api.get("/v1/deliveries")).document
        assert [item["event_id"] for item in found["items"]] == ["e1"]
        assert found["missing"] == [1, 2]

    async def test_what_hangs_is_seen_as_waiting(self) -> None:
        desk = await Desk().open(webhook_row())
        desk.receiver.always(TIMEOUT)
        await desk.deliver(*(desk.intent(f"e{n}") for n in range(12)))
        async with desk_served(desk) as api:
            found = (await api.get("/v1/deliveries?webhook_id=wh_a&limit=200")).document
        assert {item["status"] for item in found["items"]} <= {"pending", "retrying"}
        assert len(found["items"]) == 12


class TestShow:
    async def test_a_delivery_that_ended_has_the_fields_of_the_contract(self, api: Caller) -> None:
        id_ = delivery_id("wh_a", "/vault", "delivered")
        shown = (await api.get(f"/v1/deliveries/{id_}")).document
        attempt = {
            "attempt": 1,
            "started_at": format_time(START_MS),
            "duration_ms": 3,
            "outcome": "delivered",
            "status_code": 200,
        }
        assert shown == {
            "id": id_,
            "webhook_id": "wh_a",
            "event_id": "delivered",
            "event_source": "/vault",
            "event_type": "llm.data-vault.dataset.created",
            "status": "delivered",
            "in_flight": False,
            "attempts": 1,
            "response_code": 200,
            "duration_ms": 3,
            "created_at": format_time(START_MS),
            "delivered_at": format_time(START_MS + 3),
            "origin": "vault.events/0/7",
            "attempt_log": [attempt],
        }

    async def test_one_that_waits_says_why_and_until_when(self, api: Caller) -> None:
        shown = (await api.get(f"/v1/deliveries/{delivery_id('wh_a', '/vault', 'retried')}")).document
        assert (shown["response_code"], shown["response_body"], shown["last_error"]) == (503, "later", "status_503")
        assert shown["reason"] == "retry"
        (attempt,) = shown["attempt_log"]
        assert (attempt["attempt"], attempt["outcome"], attempt["error"]) == (1, "retry", "status_503")
        assert attempt["next_at"] == shown["next_attempt_at"]

    async def test_one_in_flight_is_shown_before_it_has_a_row(self, api: Caller) -> None:
        shown = (await api.get(f"/v1/deliveries/{delivery_id('wh_b', '/vault', 'flying')}")).document
        assert (shown["status"], shown["in_flight"], shown["attempts"], shown["attempt_log"]) == (
            "pending",
            True,
            0,
            [],
        )

    async def test_one_that_waits_for_a_moment_without_a_row_is_shown(self) -> None:
        async with desk_served(await desk_with_a_short_wait()) as api:
            shown = (await api.get(f"/v1/deliveries/{delivery_id('wh_a', '/vault', 'second')}")).document

        assert (shown["status"], shown["in_flight"], shown["reason"]) == ("pending", False, "order")

    async def test_a_list_has_no_attempt_logs(self, api: Caller) -> None:
        assert "attempt_log" not in (await api.get("/v1/deliveries")).text

    @pytest.mark.parametrize(
        "id_",
        [
            "dlv_" + "a" * 26,
            "dlv_" + "A" * 26,
            "dlv_" + "1" * 26,
            "dlv_" + "%C4%B1" * 26,
            "dlv_" + "%C3%A9" * 26,
            "dlv_" + "a" * 25,
            "dlv_" + "a" * 26 + "%0A",
            "wh_" + "a" * 26,
            "a" * 26,
            "%00",
            "%ff",
            "x%2Fy",
        ],
    )
    async def test_an_unknown_delivery_is_404(self, api: Caller, id_: str) -> None:
        assert (await api.get(f"/v1/deliveries/{id_}")).code == (404, "not_found")

    async def test_a_query_parameter_is_422(self, api: Caller) -> None:
        assert (await api.get("/v1/deliveries/dlv_a?attempts=1")).code == (422, "invalid_query")


@pytest.mark.parametrize("count", [1, 4, 12, 64])
def test_the_number_of_a_delivery_is_that_of_its_webhook(count: int) -> None:
    ownership = Ownership(count, lambda _: True)
    for n in range(50):
        webhook_id = f"wh_{n}"
        number = number_of_delivery(delivery_id(webhook_id, "/vault", "e"), count)
        assert number == ownership.number_of(webhook_id.encode())
