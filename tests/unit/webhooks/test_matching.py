from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from app.events import VaultEventType
from app.webhooks.errors import InvalidFilter, NotFound
from app.webhooks.matching import MatchIndex, MatchResult, parse_filter

CREATED = "llm.data-vault.dataset.created"
DELETED = "llm.data-vault.dataset.deleted"


@dataclass
class Event:
    """The three attributes that matching reads."""

    type: str = CREATED
    data: Any = None
    extensions: Mapping[str, str | bool | int] = field(default_factory=dict)


def index_of(**webhooks: tuple[str, ...]) -> MatchIndex:
    index = MatchIndex()
    for webhook_id, patterns in webhooks.items():
        index.set(webhook_id, patterns)
    return index


def accepts(filter_: dict[str, Any], event: Event) -> bool:
    index = MatchIndex()
    index.set("wh", ["*"], parse_filter(filter_))
    return index.match(event) == ["wh"]


class TestPatterns:
    def test_a_type_a_family_and_the_star_match(self) -> None:
        index = index_of(exact=(CREATED,), family=("dataset.*",), star=("*",), other=("version.*", DELETED))

        assert index.match(Event(CREATED)) == ["exact", "family", "star"]

    def test_a_webhook_that_matches_in_several_ways_is_named_once(self) -> None:
        assert index_of(wh=(CREATED, "dataset.*", "*")).match(Event(CREATED)) == ["wh"]

    @pytest.mark.parametrize("type_", list(VaultEventType))
    def test_the_star_matches_all_22_types(self, type_: str) -> None:
        assert index_of(wh=("*",)).match(Event(type_)) == ["wh"]

    def test_a_replaced_webhook_answers_to_its_new_patterns_only(self) -> None:
        index = index_of(wh=(CREATED,))

        index.set("wh", (DELETED,))

        assert index.match(Event(CREATED)) == []
        assert index.match(Event(DELETED)) == ["wh"]

    def test_a_removed_webhook_matches_nothing_and_may_be_removed_again(self) -> None:
        index = index_of(wh=("*",), other=("*",))

        index.remove("wh")
        index.remove("wh")

        assert index.match(Event(CREATED)) == ["other"]
        assert "wh" not in index
        assert len(index) == 1


class TestOurOwnEvents:
    @pytest.mark.parametrize("word", ["failing", "recovered", "disabled"])
    def test_they_match_only_patterns_that_name_webhooks(self, word: str) -> None:
        type_ = f"llm.data-vault.webhook.{word}"
        index = index_of(star=("*",), family=("webhook.*",), exact=(type_,), gaps=("stream.*",))

        assert index.match(Event(type_, {"webhook_id": "wh_x"})) == ["exact", "family"]

    def test_a_gap_matches_only_patterns_that_name_streams(self) -> None:
        index = index_of(star=("*",), webhooks=("webhook.*",), gaps=("stream.*",))

        assert index.match(Event("llm.data-vault.stream.gap", {"topic": "t"})) == ["gaps"]

    def test_they_never_go_to_the_webhook_they_speak_of(self) -> None:
        index = index_of(sick=("webhook.*",), other=("webhook.*",))
        event = Event("llm.data-vault.webhook.failing", {"webhook_id": "sick"})

        assert index.match(event) == ["other"]
        assert index.explain("sick", event) == MatchResult(matched=False, why_not="pattern")

    def test_a_ping_goes_to_its_one_webhook_whatever_that_asks_for(self) -> None:
        index = MatchIndex()
        index.set("addressee", [DELETED], parse_filter({"tenant_id": ["t1"]}))
        index.set("other", ["webhook.*", "*"])
        ping = Event("llm.data-vault.webhook.ping", {"webhook_id": "addressee"})

        assert index.match(ping) == ["addressee"]
        assert index.explain("addressee", ping) == MatchResult(matched=True)
        assert index.explain("other", ping) == MatchResult(matched=False, why_not="pattern")

    @pytest.mark.parametrize("data", [None, {"webhook_id": "unknown"}, {"webhook_id": ["wh"]}, b"wh"])
    def test_a_ping_to_nobody_goes_to_nobody(self, data: Any) -> None:
        assert index_of(wh=("*",)).match(Event("llm.data-vault.webhook.ping", data)) == []

    @pytest.mark.parametrize(
        "type_",
        ["llm.data-vault.webhook.created", "llm.data-vault.operator.replayed", "llm.data-vault.audit.recorded"],
    )
    def test_admin_actions_and_audit_events_go_to_nobody(self, type_: str) -> None:
        assert index_of(wh=("*", "webhook.*", "dataset.*")).match(Event(type_)) == []

    def test_an_event_of_the_vault_may_name_a_webhook_and_still_goes_to_it(self) -> None:
        assert index_of(wh=("*",)).match(Event(CREATED, {"webhook_id": "wh"})) == ["wh"]


class TestFilter:
    def test_all_keys_must_hold(self) -> None:
        filter_ = {"tenant_id": ["t1"], "dataset_id": ["ds-1"], "data": {"classification": ["pii"]}}
        data = {"tenant_id": "t1", "dataset_id": "ds-1", "classification": "pii"}

        assert accepts(filter_, Event(data=data))
        for key in data:
            assert not accepts(filter_, Event(data=data | {key: "another"}))
            assert not accepts(filter_, Event(data={other: data[other] for other in data if other != key}))

    def test_a_list_means_any_of(self) -> None:
        assert accepts({"dataset_id": ["ds-1", "ds-2"]}, Event(data={"dataset_id": "ds-2"}))

    def test_the_tenant_is_the_extensions_before_the_datas(self) -> None:
        filter_ = {"tenant_id": ["t1"]}

        assert accepts(filter_, Event(extensions={"tenantid": "t1"}))
        assert not accepts(filter_, Event(data={"tenant_id": "t1"}, extensions={"tenantid": "t2"}))

    def test_the_dataset_falls_back_to_the_resource(self) -> None:
        filter_ = {"dataset_id": ["ds-1"]}

        assert accepts(filter_, Event(data={"resource_id": "ds-1"}))
        assert not accepts(filter_, Event(data={"dataset_id": "ds-2", "resource_id": "ds-1"}))

    def test_paths_are_dotted(self) -> None:
        filter_ = {"data": {"schema.name": ["x"]}}

        assert accepts(filter_, Event(data={"schema": {"name": "x"}}))
        assert not accepts(filter_, Event(data={"schema.name": "x"}))
        assert not accepts(filter_, Event(data={"schema": "x"}))

    @pytest.mark.parametrize("wanted", [1, 1.0, True, "1", None, "true", ""])
    def test_comparison_is_exact_in_type(self, wanted: Any) -> None:
        values = [1, 1.0, True, "1", None, "true", "", [wanted], {"a": wanted}]

        accepted = [repr(one) for one in values if accepts({"data": {"field": [wanted]}}, Event(data={"field": one}))]

        assert accepted == [repr(wanted)]

    @pytest.mark.parametrize("data", [None, b"raw", [], "text", {}])
    def test_an_absent_field_does_not_match(self, data: Any) -> None:
        assert not accepts({"data": {"field": [None]}}, Event(data=data))

    def test_an_empty_filter_asks_for_nothing(self) -> None:
        assert accepts({}, Event())

    @pytest.mark.parametrize(
        ("raw", "field_"),
        [
            ({"tenant": ["t1"]}, "/filter/tenant"),
            ({"tenant_id": "t1"}, "/filter/tenant_id"),
            ({"tenant_id": []}, "/filter/tenant_id"),
            ({"tenant_id": [1]}, "/filter/tenant_id"),
            ({"dataset_id": ["x"] * 101}, "/filter/dataset_id"),
            ({"data": ["x"]}, "/filter/data"),
            ({"data": {f"p{n}": ["x"] for n in range(21)}}, "/filter/data"),
            ({"data": {"a/b": "x"}}, "/filter/data/a~1b"),
            ({"data": {"a": [["x"]]}}, "/filter/data/a"),
            ({"data": {"a": [{}]}}, "/filter/data/a"),
            ({"data": {"a..b": ["x"]}}, "/filter/data/a..b"),
            ({"data": {"": ["x"]}}, "/filter/data/"),
            ({"data": {"a" * 257: ["x"]}}, "/filter/data/" + "a" * 257),
        ],
    )
    def test_a_bad_filter_is_refused_by_the_place(self, raw: dict[str, Any], field_: str) -> None:
        with pytest.raises(InvalidFilter) as refused:
            parse_filter(raw)

        assert refused.value.field == field_

    def test_20_paths_of_100_values_are_accepted(self) -> None:
        filter_ = {"data": {f"p{n}": list(range(100)) for n in range(20)}}

        assert accepts(filter_, Event(data={f"p{n}": 99 for n in range(20)}))


class TestExplain:
    def test_it_names_the_narrowest_pattern(self) -> None:
        index = index_of(wh=("*", "dataset.*"))

        assert index.explain("wh", Event(CREATED)) == MatchResult(matched=True, pattern="dataset.*")

    def test_it_says_pattern_where_none_fits(self) -> None:
        assert index_of(wh=(DELETED,)).explain("wh", Event(CREATED)) == MatchResult(matched=False, why_not="pattern")

    @pytest.mark.parametrize(
        ("filter_", "why_not"),
        [
            ({"tenant_id": ["t"]}, "filter:tenant_id"),
            ({"dataset_id": ["d"]}, "filter:dataset_id"),
            ({"data": {"name": ["n"], "schema.name": ["x"]}}, "filter:data.schema.name"),
        ],
    )
    def test_it_names_the_first_path_of_the_filter_that_does_not_hold(
        self, filter_: dict[str, Any], why_not: str
    ) -> None:
        index = MatchIndex()
        index.set("wh", ["*"], parse_filter(filter_))

        result = index.explain("wh", Event(data={"name": "n"}))

        assert result == MatchResult(matched=False, pattern="*", why_not=why_not)

    def test_an_unknown_webhook_is_not_found(self) -> None:
        with pytest.raises(NotFound, match="wh_x"):
            MatchIndex().explain("wh_x", Event())
