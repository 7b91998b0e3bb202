"""Whether the spans of one trace are one tree, from what a collector has seen."""

from __future__ import annotations

from collections.abc import Sequence

from tests.support.collector import SeenSpan


def root_of(spans: Sequence[SeenSpan], parent_id: str) -> SeenSpan:
    """The one span under the given parent, from which all others are reached."""
    (root,) = [span for span in spans if span.parent_id == parent_id]
    reached, ways = {root.span_id}, {span.span_id: span.parent_id for span in spans}
    while True:
        more = {span_id for span_id, parent in ways.items() if parent in reached} - reached
        if not more:
            break
        reached |= more
    lost = [span for span in spans if span.span_id not in reached]
    assert not lost, lost
    return root


def workers_of(spans: Sequence[SeenSpan]) -> set[str]:
    return {span.resource["service.instance.id"] for span in spans}
