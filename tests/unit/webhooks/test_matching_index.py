"""The index of webhooks: it finds whom a look at every webhook would find, and looks at few."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.webhooks.matching import MatchIndex, parse_filter
from app.webhooks.model import WebhookFilter

CREATED = "llm.data-vault.dataset.created"
DELETED = "llm.data-vault.dataset.deleted"
IDS = ["wh_a", "wh_b", "wh_c", "wh_d", "wh_e"]
PATTERNS = {CREATED: {CREATED, "dataset.*", "*"}, DELETED: {DELETED, "dataset.*", "*"}}

values = st.sampled_from([1, 1.0, True, "1", None, "x"])
names = st.sampled_from(["t1", "t2", "d1"])
filters = st.fixed_dictionaries(
    {},
    optional={
        "tenant_id": st.lists(names, min_size=1, max_size=3),
        "dataset_id": st.lists(names, min_size=1, max_size=3),
        "data": st.dictionaries(st.sampled_from(["a", "b.c"]), st.lists(values, min_size=1, max_size=3)),
    },
)
asks = st.tuples(
    st.sampled_from(IDS),
    st.lists(st.sampled_from([CREATED, DELETED, "dataset.*", "*", "version.*"]), min_size=1, unique=True),
    st.none() | filters,
)
Others = Callable[[int], tuple[list[str], WebhookFilter | None]]
changes = st.lists(asks | st.sampled_from(IDS), max_size=20)


@dataclass
class Event:
    type: str = CREATED
    data: Any = None
    extensions: Mapping[str, str | bool | int] = field(default_factory=dict)


events = st.builds(
    Event,
    st.sampled_from([CREATED, DELETED]),
    st.fixed_dictionaries(
        {}, optional={"tenant_id": names, "dataset_id": names, "a": values, "b": st.fixed_dictionaries({"c": values})}
    ),
    st.fixed_dictionaries({}, optional={"tenantid": names}),
)


def holds(filter_: Mapping[str, Any], event: Event) -> bool:
    """The filter by the words of the contract, without any index."""

    def same(value: Any, wanted: list[Any]) -> bool:
        return any(type(value) is type(one) and value == one for one in wanted)

    missing = object()
    data = event.data
    tenant = event.extensions.get("tenantid", data.get("tenant_id", missing))
    found = {"a": data.get("a", missing), "b.c": data.get("b", {}).get("c", missing)}
    return (
        ("tenant_id" not in filter_ or same(tenant, filter_["tenant_id"]))
        and ("dataset_id" not in filter_ or same(data.get("dataset_id", missing), filter_["dataset_id"]))
        and all(same(found[path], wanted) for path, wanted in filter_.get("data", {}).items())
    )


@given(changes, st.lists(events, min_size=1, max_size=5))
def test_it_finds_whom_a_look_at_every_webhook_would_find(made: list[Any], asked: list[Event]) -> None:
    index = MatchIndex()
    webhooks: dict[str, tuple[list[str], Mapping[str, Any]]] = {}
    for change in made:
        if isinstance(change, str):
            index.remove(change)
            webhooks.pop(change, None)
        else:
            webhook_id, patterns, filter_ = change
            index.set(webhook_id, patterns, None if filter_ is None else parse_filter(filter_))
            webhooks[webhook_id] = patterns, filter_ or {}
        for event in asked:
            expected = sorted(
                webhook_id
                for webhook_id, (patterns, filter_) in webhooks.items()
                if PATTERNS[event.type] & set(patterns) and holds(filter_, event)
            )
            assert index.match(event) == expected
            assert [id_ for id_ in sorted(webhooks) if index.explain(id_, event).matched] == expected


@given(changes)
def test_what_was_removed_leaves_nothing_behind(made: list[Any]) -> None:
    index = MatchIndex()
    for change in made:
        if not isinstance(change, str):
            webhook_id, patterns, filter_ = change
            index.set(webhook_id, patterns, None if filter_ is None else parse_filter(filter_))
    for webhook_id in IDS:
        index.remove(webhook_id)

    assert index._by_pattern == {}
    assert len(index) == 0


class Counted(dict[str, Any]):
    """Data of an event that counts how often it is looked into."""

    looks = 0

    def get(self, key: str, default: Any = None) -> Any:
        Counted.looks += 1
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        Counted.looks += 1
        return super().__contains__(key)


def looks(webhooks: int, others: Others) -> int:
    """How often an event is looked into, among so many webhooks of which the same ten get it."""
    index = MatchIndex()
    for number in range(10):
        index.set(f"wh-{number}", ["dataset.*"], WebhookFilter(dataset_id=("mine",)))
    for number in range(10, webhooks):
        patterns, filter_ = others(number)
        index.set(f"wh-{number}", patterns, filter_)
    Counted.looks = 0
    event = Event(data=Counted(dataset_id="mine", tenant_id="all", kind="this"))
    assert len(index.match(event)) == 10
    return Counted.looks


@pytest.mark.parametrize(
    "others",
    [
        pytest.param(lambda _: ([DELETED, "version.*", "health.*"], None), id="of other types"),
        pytest.param(lambda n: (["dataset.*"], WebhookFilter(dataset_id=(f"ds-{n}",))), id="for other datasets"),
        pytest.param(
            lambda n: (["dataset.*"], WebhookFilter(tenant_id=("all",), dataset_id=(f"ds-{n}",))),
            id="of one tenant and for other datasets",
        ),
        pytest.param(
            lambda n: (["dataset.*"], WebhookFilter(dataset_id=("mine",), data={"kind": (f"k-{n}",)})),
            id="for the same dataset and other kinds",
        ),
        pytest.param(
            lambda n: (["dataset.*"], WebhookFilter(data={"kind": tuple(f"k-{n}-{m}" for m in range(5))})),
            id="for other kinds, five each",
        ),
    ],
)
def test_ten_thousand_webhooks_that_do_not_get_an_event_are_not_looked_at(others: Others) -> None:
    few = looks(10, others)

    # A look at one more field, where the others filter by another one, and at the few that came before that was known.
    assert looks(10_000, others) <= few + 12
