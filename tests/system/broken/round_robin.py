"""Partitions are dealt out one by one over all topics, as Kafka's own assignors do."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import msgspec
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment

from app.engine import assignor
from app.engine.assignor import ColocatedAssignor


def apply() -> None:
    def assign(self: ColocatedAssignor, cluster: Any, members: Mapping[str, Any]) -> dict[str, Any]:
        claims = {member: assignor._claim_of(member, metadata) for member, metadata in members.items()}
        order = sorted(members)
        topics = sorted({topic for metadata in members.values() for topic in metadata.subscription})
        places = [(topic, p) for topic in topics for p in sorted(cluster.partitions_for_topic(topic))]
        dealt: dict[str, defaultdict[str, list[int]]] = {member: defaultdict(list) for member in order}
        for at, (topic, partition) in enumerate(places):
            dealt[order[at % len(order)]][topic].append(partition)
        owners = tuple(number % len(order) for number in range(self._claim.numbers))
        table = assignor._Table(tuple((claims[m].name, claims[m].url) for m in order), owners)
        data = msgspec.json.encode(table)
        return {m: ConsumerProtocolMemberAssignment(self.version, list(dealt[m].items()), data) for m in order}

    ColocatedAssignor.assign = assign
