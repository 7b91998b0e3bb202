"""What a replay asks for, and what it sends: the router's own intents, but for the reason and the request id."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.router import route_handler
from app.engine import Slice
from app.events import (
    STRUCTURED_HEADERS,
    AdminEventType,
    InvalidEvent,
    OperatorEventType,
    VaultEventType,
    encode_binary,
    new_event,
)
from app.webhooks.errors import InvalidField
from app.webhooks.intents import IntentReason, decode_intent
from app.webhooks.matching import MatchIndex, parse_filter
from app.webhooks.model import DeliveryRow, Reason, Status
from app.webhooks.replay import Aim, DisabledTime, ReplayIntent, Selection
from app.webhooks.replay_request import DEFAULT_RATE_PER_S, Only, ReplayLimits, ReplayRequest, read_replay, show_request
from tests.support.memory_unit import START_MS, FakeRecord, MemoryUnit
from tests.support.webhooks import TOPICS, webhook_row

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
NOW = START_MS + 30 * DAY_MS
LIMITS = ReplayLimits(TOPICS.vault, DAY_MS)
SINCE = "2026-01-01T00:00:00Z"


KEYS = st.sampled_from(["since", "from_offset", "since_disabled", "until", "only"]) | st.text()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(SINCE),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
)


def read(body: Any, now_ms: int = 1_800_000_000_000) -> ReplayRequest:
    return read_replay(body, LIMITS, now_ms, lambda: "made")


def event_record(
    type_: str = "llm.data-vault.dataset.created",
    data: Mapping[str, Any] | None = None,
    *,
    id_: str = "e1",
    offset: int = 5,
    timestamp: int = START_MS,
    **extensions: Any,
) -> FakeRecord:
    data = {"dataset_id": "ds-1", "name": "n"} if data is None else data
    event = new_event(id=id_, source="/vault", type=type_, subject="ds-1", data=dict(data), **extensions)
    return FakeRecord("vault.events", 3, offset, timestamp, b"k", event.posted, STRUCTURED_HEADERS)


def aim(row: Any = None, **request: Any) -> Aim:
    found = Aim(ReplayRequest(**({"since_ms": 0, "request_id": "r1"} | request)))
    found.use(webhook_row() if row is None else row)
    return found


def headers_of(intent: ReplayIntent) -> dict[str, bytes]:
    return dict(intent.headers)


class TestARequest:
    @pytest.mark.parametrize(
        "body",
        [{"since": SINCE}, {"from_offset": {"vault.events/0": 42}}, {"since_disabled": True}],
    )
    def test_begins_at_one_place_and_gets_an_id_and_a_rate(self, body: dict[str, Any]) -> None:
        request = read(body)
        assert (request.request_id, request.rate_per_s, request.only) == ("made", DEFAULT_RATE_PER_S, None)

    def test_keeps_what_was_asked_for(self) -> None:
        body = {
            "since": SINCE,
            "until": "2026-01-02T00:00:00Z",
            "event_types": ["dataset.created", "access.*"],
            "only": "all",
            "rate_per_s": 20,
            "request_id": "again-1",
        }
        shown = show_request(read(body))
        assert shown == body | {
            "since": "2026-01-01T00:00:00.000Z",
            "until": "2026-01-02T00:00:00.000Z",
            "event_types": ["llm.data-vault.dataset.created", "access.*"],
            "rate_per_s": 20.0,
        }

    def test_names_partitions_of_the_log(self) -> None:
        request = read({"from_offset": {"vault.events/0": 42, "vault.llm-data-vault-dataset-created/11": 0}})
        assert request.offsets == {("vault.events", 0): 42, ("vault.llm-data-vault-dataset-created", 11): 0}

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ([], ""),
            ({}, ""),
            ({"since_disabled": False}, ""),
            ({"since": SINCE, "since_disabled": True}, "/since_disabled"),
            ({"since": SINCE, "from_offset": {"vault.events/0": 1}}, "/from_offset"),
            ({"since": SINCE, "limit": 5}, "/limit"),
            ({"since": "yesterday"}, "/since"),
            ({"since": 5}, "/since"),
            ({"since": None}, "/since"),
            ({"since": "2999-01-01T00:00:00Z"}, "/since"),
            ({"since_disabled": "yes"}, "/since_disabled"),
            ({"since": SINCE, "until": SINCE}, "/until"),
            ({"since": SINCE, "until": "tomorrow"}, "/until"),
            ({"from_offset": {}}, "/from_offset"),
            ({"from_offset": 5}, "/from_offset"),
            ({"from_offset": {"vault.webhook.deliveries/0": 1}}, "/from_offset/vault.webhook.deliveries~10"),
            ({"from_offset": {"vault.events": 1}}, "/from_offset/vault.events"),
            ({"from_offset": {"vault.events/01": 1}}, "/from_offset/vault.events~101"),
            ({"from_offset": {"vault.events/-1": 1}}, "/from_offset/vault.events~1-1"),
            ({"from_offset": {f"vault.events/{'9' * 5000}": 1}}, f"/from_offset/vault.events~1{'9' * 5000}"),
            ({"from_offset": {"vault.events/0": -1}}, "/from_offset/vault.events~10"),
            ({"from_offset": {"vault.events/0": True}}, "/from_offset/vault.events~10"),
            ({"from_offset": {"vault.events/0": 2**63}}, "/from_offset/vault.events~10"),
            ({"since": SINCE, "event_types": []}, "/event_types"),
            ({"since": SINCE, "event_types": "dataset.*"}, "/event_types"),
            ({"since": SINCE, "event_types": ["dataset.*", "nothing"]}, "/event_types/1"),
            ({"since": SINCE, "only": "delivered"}, "/only"),
            ({"since": SINCE, "only": {}}, "/only"),
            ({"since": SINCE, "rate_per_s": 0}, "/rate_per_s"),
            ({"since": SINCE, "rate_per_s": True}, "/rate_per_s"),
            ({"since": SINCE, "rate_per_s": float("nan")}, "/rate_per_s"),
            ({"since": SINCE, "request_id": ""}, "/request_id"),
            ({"since": SINCE, "request_id": "\n"}, "/request_id"),
            ({"since": SINCE, "request_id": "x" * 256}, "/request_id"),
        ],
    )
    def test_that_is_wrong_is_refused_by_field(self, body: Any, field: str) -> None:
        with pytest.raises(InvalidField) as refused:
            read(body)
        assert refused.value.field == field

    @pytest.mark.parametrize("only", ["missed", "failed"])
    def test_for_rows_that_are_forgotten_is_refused(self, only: str) -> None:
        with pytest.raises(InvalidField) as refused:
            read({"since": SINCE, "only": only})
        assert refused.value.field == "/only"
        recent = read({"since": SINCE, "only": only}, now_ms=read({"since": SINCE}).since_ms or 0)
        assert recent.only == only
        assert read({"since_disabled": True, "only": only}).only == only

    @given(body=JSON)
    def test_of_any_shape_is_read_or_refused(self, body: Any) -> None:
        try:
            refused = None if read(body) else ""
        except InvalidField as error:
            refused = error.field
        assert refused in {None, ""} or str(refused).startswith("/")


TYPES = [*VaultEventType, *OperatorEventType, *AdminEventType, "llm.data-vault.unheard.of"]
PATTERNS = ["*", "dataset.*", "webhook.*", "stream.*", "llm.data-vault.dataset.created", "policy.*"]
DATA: dict[str, Any] = {
    "dataset_id": "ds-1", "name": "n", "version_id": "v", "tag": "t", "branch": "b", "source_branch": "s",
    "target_branch": "t", "record_count": 1, "job_id": "j", "pii_types": ["email"], "principal_id": "p",
    "resource_id": "r", "action": "read", "policy_id": "p", "framework": "gdpr", "severity": "high", "message": "m",
    "component": "c", "reason": "failures", "since": SINCE, "topic": "t", "partition": 0, "from": 0, "to": 1,
}  # fmt: skip


@st.composite
def records(draw: st.DrawFn) -> FakeRecord:
    """Events of every kind, whole or damaged, in both modes."""
    data = {name: value for name, value in DATA.items() if draw(st.integers(0, 30))}
    data["webhook_id"] = draw(st.sampled_from(["wh_a", "wh_b"]))
    extensions = {"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"} if draw(st.booleans()) else {}
    event = new_event(
        id=draw(st.sampled_from(["e1", "e2"])),
        source="/vault",
        type=str(draw(st.sampled_from(TYPES))),
        subject="ds-1",
        data=data,
        extensions=extensions,
    )
    headers, value = list(STRUCTURED_HEADERS), event.posted
    if draw(st.booleans()):
        headers, value = encode_binary(event)
    if not draw(st.integers(0, 9)):
        value = value[: draw(st.integers(0, len(value)))]
    timestamp = draw(st.sampled_from([START_MS, START_MS + 1, 2**62]))
    return FakeRecord("vault.events", 3, draw(st.integers(0, 2**40)), timestamp, b"k", value, headers)


class TestAnIntent:
    @given(record=records(), patterns=st.lists(st.sampled_from(PATTERNS), min_size=1), filtered=st.booleans())
    async def test_is_the_routers_but_for_its_reason_and_request_id(
        self, record: FakeRecord, patterns: list[str], filtered: bool
    ) -> None:
        filter_ = parse_filter({"data": {"severity": ["high"]}}) if filtered else None
        row = webhook_row(events=tuple(patterns), filter=filter_)
        index = MatchIndex()
        index.set("wh_a", row.events, row.filter)
        unit = MemoryUnit()
        await route_handler(TOPICS, index)(Slice(0, [record]), unit.unit)
        routed = [sent for sent in unit.sent if sent.topic == TOPICS.deliveries]
        try:
            intent = aim(row).intent(record)
        except InvalidEvent:
            assert unit.quarantined
            return
        assert not unit.quarantined
        pings = json.loads(routed[0].value or b"")["type"].endswith("webhook.ping") if routed else False
        assert (intent is None) == (not routed or pings)
        if intent is not None:
            assert (intent.key, intent.value) == (routed[0].key, routed[0].value)
            own = headers_of(intent)
            assert own.pop("vs-request-id").startswith(b"rpl_")
            assert own.pop("vs-reason") == b"replay"
            assert own == {name: value for name, value in routed[0].headers if name != "vs-reason"}

    def test_is_one_that_its_owner_understands(self) -> None:
        intent = aim().intent(event_record())
        assert intent is not None
        read_back = decode_intent(intent.value, intent.headers, 9)
        assert (read_back.reason, read_back.delivery_id) == (IntentReason.REPLAY, intent.delivery_id)
        assert (read_back.origin, read_back.body) == ("vault.events/3/5", event_record().value)

    @pytest.mark.parametrize(("value", "text"), [(7, "7"), (True, "true"), ("seven", "seven")])
    def test_is_read_back_whatever_type_its_extensions_are_of(self, value: object, text: str) -> None:
        extensions = {"correlationid": value, "traceparent": value}
        intent = aim().intent(event_record(extensions=extensions))
        assert intent is not None
        read_back = decode_intent(intent.value, intent.headers, 9)
        assert (read_back.correlation_id, read_back.traceparent) == (text, text)

    def test_has_a_request_id_of_its_own_which_is_the_same_each_time(self) -> None:
        def request_id(request: str, event: str) -> bytes:
            intent = aim(request_id=request).intent(event_record(id_=event))
            assert intent is not None
            return headers_of(intent)["vs-request-id"]

        assert request_id("r1", "e1") == request_id("r1", "e1")
        assert len({request_id(request, event) for request in ("r1", "r2") for event in ("e1", "e2")}) == 4

    def test_is_of_the_types_and_times_that_were_asked_for(self) -> None:
        narrow = aim(since_ms=START_MS, until_ms=START_MS + 10, event_types=("dataset.*",))
        assert narrow.intent(event_record(timestamp=START_MS)) is not None
        assert narrow.intent(event_record(timestamp=START_MS + 9)) is not None
        assert narrow.intent(event_record(timestamp=START_MS - 1)) is None
        assert narrow.intent(event_record(timestamp=START_MS + 10)) is None
        assert narrow.intent(event_record("llm.data-vault.health.degraded", {"component": "c"})) is None

    def test_is_for_what_the_webhook_asks_for_now(self) -> None:
        one = aim(webhook_row(events=("access.*",)))
        assert one.intent(event_record()) is None
        one.use(webhook_row(events=("dataset.*",)))
        assert one.intent(event_record()) is not None

    def test_is_never_of_a_ping_and_never_of_an_event_about_the_webhook_itself(self) -> None:
        everything = aim(webhook_row(events=("*", "webhook.*")))
        ping = event_record(OperatorEventType.WEBHOOK_PING, {"webhook_id": "wh_a"})
        data = {"webhook_id": "wh_a", "reason": "failures", "since": SINCE}
        assert everything.intent(ping) is None
        assert everything.intent(event_record(OperatorEventType.WEBHOOK_FAILING, data)) is None
        other = event_record(OperatorEventType.WEBHOOK_FAILING, data | {"webhook_id": "wh_b"})
        assert everything.intent(other) is not None
        assert aim(webhook_row(events=("*",))).intent(other) is None

    def test_is_never_of_a_replay(self) -> None:
        data = {"id": "w.1", "webhook_id": "wh_b", "actor": "ops"}
        everything = aim(webhook_row(events=("*", "webhook.*", "stream.*")))
        assert everything.intent(event_record(AdminEventType.OPERATOR_REPLAYED, data)) is None


def row(status: Status, ended_ms: int = NOW, history_ms: int = DAY_MS) -> DeliveryRow:
    return DeliveryRow(
        delivery_id="dlv_1",
        webhook_id="wh_a",
        event_id="e1",
        event_source="/vault",
        event_type="llm.data-vault.dataset.created",
        status=status,
        created_at_ms=ended_ms,
        waiting_since_ms=ended_ms,
        expires_at_ms=ended_ms + history_ms,
    )


def selection(only: Only | None = None, disabled: DisabledTime | None = None, **request: Any) -> Selection:
    wanted = ReplayRequest(**({"request_id": "r", "only": only} | request))
    return Selection.of(wanted, disabled, DAY_MS)


class TestTheSelection:
    def test_takes_everything_unless_asked(self) -> None:
        chosen = selection(since_ms=0)
        assert not chosen.needs_rows
        assert all(chosen.takes(found, NOW) for found in (None, *map(row, Status)))

    @pytest.mark.parametrize(("only", "status"), [(Only.MISSED, Status.MISSED), (Only.FAILED, Status.FAILED)])
    def test_goes_by_rows_where_only_is_given(self, only: Only, status: Status) -> None:
        chosen = selection(only, since_ms=0)
        assert chosen.needs_rows
        assert [found for found in Status if chosen.takes(row(found), NOW)] == [status]
        assert not chosen.takes(None, NOW)

    @pytest.mark.parametrize(
        ("only", "taken"), [(None, True), (Only.ALL, True), (Only.FAILED, True), (Only.MISSED, False)]
    )
    def test_takes_what_a_410_has_failed_unless_what_was_missed_is_asked_for(
        self, only: Only | None, *, taken: bool
    ) -> None:
        gone = msgspec.structs.replace(row(Status.FAILED), reason=Reason.GONE)
        assert selection(only, since_ms=0).takes(gone, NOW) is taken
        assert selection(only, from_offset={("vault.events", 0): 0}).takes(gone, NOW) is taken

    def test_leaves_out_the_410_that_disabled_the_webhook_from_what_it_missed_since_then(self) -> None:
        gone = msgspec.structs.replace(row(Status.FAILED), reason=Reason.GONE)
        assert not selection(disabled=DisabledTime(NOW, NOW + HOUR_MS), since_disabled=True).takes(gone, NOW)

    def test_takes_what_was_missed_since_the_webhook_was_disabled(self) -> None:
        disabled = DisabledTime(NOW - HOUR_MS, NOW - HOUR_MS // 2)
        chosen = selection(disabled=disabled, since_disabled=True)
        assert [found for found in Status if chosen.takes(row(found), NOW)] == [Status.MISSED]
        # It waited when the webhook was disabled, so its record is older than that.
        assert chosen.takes(row(Status.MISSED, ended_ms=disabled.from_ms), NOW - 5 * DAY_MS)
        assert not chosen.takes(row(Status.MISSED, ended_ms=disabled.from_ms - 5 * HOUR_MS), NOW - 6 * HOUR_MS)
        # Routed while it was enabled, or not routed yet: it goes the common way.
        assert not chosen.takes(None, disabled.until_ms)

    def test_goes_by_time_where_rows_are_forgotten(self) -> None:
        disabled = DisabledTime(NOW - 7 * DAY_MS, NOW - 3 * DAY_MS)
        chosen = selection(disabled=disabled, since_disabled=True)
        assert chosen.takes(None, disabled.from_ms)
        assert chosen.takes(None, disabled.until_ms - 1)
        assert not chosen.takes(None, disabled.from_ms - 1)
        assert not chosen.takes(None, disabled.until_ms)

    def test_takes_everything_since_then_if_told_to(self) -> None:
        disabled = DisabledTime(NOW - 7 * DAY_MS, NOW - 3 * DAY_MS)
        chosen = selection(Only.ALL, disabled=disabled, since_disabled=True)
        assert chosen.takes(row(Status.DELIVERED), NOW)

    @given(
        created_ms=st.integers(0, 20 * DAY_MS),
        waited_ms=st.integers(0, 5 * DAY_MS),
        disabled_ms=st.integers(0, 20 * DAY_MS),
        enabled_after_ms=st.integers(1, 10 * DAY_MS),
        asked_after_ms=st.integers(0, 10 * DAY_MS),
        remembered_ms=st.sampled_from([HOUR_MS, DAY_MS, 7 * DAY_MS]),
    )
    def test_leaves_out_nothing_that_came_while_the_webhook_was_disabled_however_long_rows_were_remembered(
        self,
        created_ms: int,
        waited_ms: int,
        disabled_ms: int,
        enabled_after_ms: int,
        asked_after_ms: int,
        remembered_ms: int,
    ) -> None:
        disabled = DisabledTime(disabled_ms, disabled_ms + enabled_after_ms)
        now_ms = disabled.until_ms + asked_after_ms
        came = disabled.from_ms <= created_ms < disabled.until_ms
        waited = created_ms < disabled.from_ms <= created_ms + waited_ms
        missed_ms = created_ms if came else disabled.from_ms
        found = None
        if (came or waited) and now_ms < missed_ms + remembered_ms:
            found = row(Status.MISSED, ended_ms=missed_ms, history_ms=remembered_ms)
            found = msgspec.structs.replace(found, created_at_ms=created_ms)
        chosen = selection(disabled=disabled, since_disabled=True)
        if came or (waited and found is not None and remembered_ms >= DAY_MS):
            assert chosen.takes(found, created_ms)
        if created_ms >= disabled.until_ms:
            assert not chosen.takes(row(Status.DELIVERED), created_ms)
            assert not chosen.takes(None, created_ms)


def test_the_request_survives_its_own_answer() -> None:
    request = read({"from_offset": {"vault.events/0": 42}, "only": "all", "request_id": "r"})
    assert read(orjson.loads(orjson.dumps(show_request(request)))) == request
