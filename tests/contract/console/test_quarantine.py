"""Quarantine in the console: found, read, and put back where it came from."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from confluent_kafka import Producer
from playwright.sync_api import Locator, expect

from app.engine.quarantine import TRUNCATED_BYTES, cut_message
from app.events import VaultEventType, topic_of
from tests.support.console import EVIL, Seen, System

pytestmark = pytest.mark.foreign

Console = Callable[..., Seen]
TABLE = "Records in quarantine, newest first"


@dataclass(frozen=True)
class Huge:
    """A record that quarantine could not keep whole, as an agent has it."""

    topic: str
    partition: int = 0
    offset: int = 987_654
    timestamp: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    key: bytes | None = None
    value: bytes | None = b"<b>" * TRUNCATED_BYTES
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True)
class Poison:
    """What is in quarantine, by its id in the API."""

    text: str
    binary: str
    cut: str


def listed(system: System, query: str = "") -> list[dict[str, Any]]:
    return list(system.call("GET", f"/v1/quarantine?limit=200{query}")["items"])


@pytest.fixture(scope="module")
def poison(system: System) -> Poison:
    topics = system.deployment.topics
    topic = topic_of(VaultEventType.DATASET_CREATED, topics.prefix)
    producer = Producer({"bootstrap.servers": system.deployment.brokers, "log_level": 0})
    producer.produce(topic, f"{EVIL} {'x' * 500}".encode(), b"ds-1", partition=0, headers=[("x-evil", EVIL.encode())])
    producer.produce(topic, b"\xff\xfe\x00", b"\xff", partition=0, headers=[("x-bytes", b"\xff\xfe")])
    cut = cut_message(topics.quarantine, "governance", Huge(topic), "too_large", EVIL)
    producer.produce(cut.topic, cut.value, cut.key, headers=list(cut.headers))
    assert producer.flush(60) == 0
    system.until(lambda: len(listed(system)) == 3, "all are in quarantine")
    found = listed(system)
    by_agent = {row["agent"]: row for row in found}
    first, second = sorted(row["id"] for row in found if row["agent"] == "router")
    values = {id_: system.call("GET", f"/v1/quarantine/{id_}")["value"] for id_ in (first, second)}
    text = next(id_ for id_, value in values.items() if isinstance(value, str))
    return Poison(text, second if text == first else first, by_agent["governance"]["id"])


@pytest.fixture
def seen(console: Console, poison: Poison) -> Seen:
    assert poison
    return console("/quarantine")


def rows(seen: Seen, table: str = TABLE) -> Locator:
    return seen.page.get_by_role("table", name=table).locator("tbody").get_by_role("row")


def no_markup(seen: Seen) -> None:
    assert seen.page.locator("main img:not([role]), main script, main b, dialog img, dialog script").count() == 0


def test_without_any_the_list_says_so(console: Console) -> None:
    seen = console("/")
    seen.page.route("**/v1/quarantine*", lambda route: route.fulfill(json={"items": [], "next_cursor": None}))
    seen.go("/quarantine", "Quarantine")
    seen.has("Nothing is in quarantine.")
    assert seen.page.get_by_role("main").get_by_role("button").count() == 0
    seen.check()


def test_records_are_found_by_reason_agent_type_and_time(seen: Seen) -> None:
    expect(rows(seen)).to_have_count(3)
    no_markup(seen)
    seen.check()
    search = seen.page.get_by_role("search")
    search.get_by_label("Agent").fill("governance")
    expect(rows(seen)).to_have_count(1)
    expect(rows(seen).first).to_contain_text(EVIL)
    search.get_by_label("Reason").select_option("too_large")
    search.get_by_label("Since (UTC)").fill("2026-01-01T00:00:00")
    expect(seen.page).to_have_url(re.compile("reason=too_large.*since=2026"))
    expect(rows(seen)).to_have_count(1)
    search.get_by_label("Event type").fill("dataset.created")
    seen.has("Nothing in quarantine is like that.")
    seen.page.get_by_role("link", name="Show all of them").click()
    expect(rows(seen)).to_have_count(3)


def test_what_a_record_came_with_is_shown_as_text_or_as_base64(seen: Seen, poison: Poison) -> None:
    seen.go(f"/quarantine/{poison.text}")
    expect(seen.page.get_by_role("region", name="Value of the record")).to_contain_text(EVIL)
    expect(rows(seen, "Headers of the record")).to_contain_text(["x-evil"])
    expect(rows(seen, "Headers of the record").first).to_contain_text(EVIL)
    expect(seen.page.get_by_role("region", name="Why it is here")).to_contain_text("router")
    expect(seen.page.get_by_role("region", name="Why it is here")).to_contain_text("Publish it anew, mended")
    no_markup(seen)
    seen.check()
    seen.go(f"/quarantine/{poison.binary}")
    expect(seen.page.get_by_role("region", name="Value of the record, base64")).to_have_text("//4A")
    expect(seen.page.get_by_role("region", name="Record", exact=True)).to_contain_text("base64: /w==")
    seen.check()
    seen.allowed.add(404)
    seen.go("/quarantine/7-7")
    seen.has("Nothing in quarantine has this id, or it is kept no longer.")


def test_one_of_which_only_a_part_was_kept_cannot_be_put_back(seen: Seen, poison: Poison) -> None:
    seen.go(f"/quarantine/{poison.cut}")
    seen.has("It cannot be put back: only a part of its 768 KiB is here.")
    assert seen.page.get_by_role("main").get_by_role("button").count() == 0
    no_markup(seen)
    seen.check()


def test_a_viewer_reads_everything_and_puts_nothing_back(console: Console, poison: Poison) -> None:
    seen = console("/quarantine", role="viewer")
    expect(rows(seen)).to_have_count(3)
    assert seen.page.get_by_role("main").get_by_role("button").count() == 0
    seen.go(f"/quarantine/{poison.text}")
    seen.page.get_by_role("region", name="Value of the record").wait_for()
    assert seen.page.get_by_role("main").get_by_role("button").count() == 0


def test_one_is_put_back_only_after_it_was_asked(seen: Seen, system: System, poison: Poison) -> None:
    origin = system.call("GET", f"/v1/quarantine/{poison.binary}")["first_origin"]
    seen.go(f"/quarantine/{poison.binary}")
    seen.button("Put it back")
    asked = seen.page.get_by_role("dialog", name="Put it back?")
    expect(asked.get_by_role("button", name="Cancel")).to_be_focused()
    seen.check()
    seen.page.keyboard.press("Escape")
    asked.wait_for(state="detached")
    assert [row["id"] for row in listed(system) if row["first_origin"] == origin] == [poison.binary]
    seen.button("Put it back")
    seen.confirm("Put it back", origin, "router")
    seen.has("It was put back, and stands at")
    # It fails again, and comes back as what it was.
    system.until(
        lambda: [row for row in listed(system) if row["first_origin"] == origin and row["origin"] != origin],
        "it is in quarantine again",
    )


def test_those_of_a_filter_are_shown_before_they_are_put_back(seen: Seen, system: System, poison: Poison) -> None:
    origin = system.call("GET", f"/v1/quarantine/{poison.text}")["first_origin"]
    seen.button("Put all back")
    asked = seen.page.get_by_role("dialog", name="Put records back?")
    expect(asked).to_contain_text("Everything in quarantine")
    expect(asked.get_by_role("table", name="What would be put back").locator("tbody").get_by_role("row")).to_have_count(
        len({(row["reason"], row["agent"]) for row in listed(system) if row["truncated"] is None})
    )
    expect(asked).to_contain_text("1 more is refused: only a part of each is here.")
    seen.check()
    asked.get_by_role("button", name="Cancel").click()
    asked.wait_for(state="detached")
    assert [row["origin"] for row in listed(system) if row["first_origin"] == origin] == [origin]
    seen.button("Put all back")
    asked.get_by_role("button", name="Put 2 back").click()
    expect(asked.get_by_role("status")).to_have_text("2 records put back. 1 refused.")
    expect(asked.get_by_role("table", name="Refused")).to_contain_text(f"only a part of its {3 * TRUNCATED_BYTES}")
    expect(asked.get_by_role("button", name="Close")).to_be_focused()
    seen.check()
    asked.get_by_role("link", name=poison.cut).click()
    seen.has("It cannot be put back")
    asked.wait_for(state="detached")
    system.until(
        lambda: [row for row in listed(system) if row["first_origin"] == origin and row["origin"] != origin],
        "it is in quarantine again",
    )
