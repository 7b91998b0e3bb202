"""Deals out numbers, whole: partition q of every topic goes to the owner of number q mod N.

The counts of two members differ by at most one, and a member keeps what it had. Each member claims the numbers it
holds with the generation that gave them; the higher generation wins a number, two equal claims are both dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

from app.engine.ownership import Owner

__all__ = ["Assigned", "Claim", "ColocatedAssignor", "deal"]

log = logging.getLogger("app.engine.assignor")

MAX_REJOINS = 3
# Metadata of two workers differ for a moment after a topic was made or grown; each wait is four times the last.
FIRST_REJOIN_S = 0.5


_NO_METADATA = "no metadata of topic"


class Claim(msgspec.Struct, frozen=True, omit_defaults=True):
    """A member's user data in the join.

    Attributes:
        name: The worker's name.
        url: How other workers reach it.
        numbers: N as it is configured there.
        held: The numbers it holds.
        generation: The generation that gave them; -1 for none.
        again: Raised to make the leader look again.
    """

    name: str
    url: str
    numbers: int
    held: tuple[int, ...] = ()
    generation: int = -1
    again: int = 0


class _Table(msgspec.Struct, frozen=True):
    """User data of each assignment, compact: every member gets a copy."""

    who: tuple[tuple[str, str], ...]
    owner: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Assigned:
    """What this member learnt from an assignment.

    Attributes:
        numbers: Its own.
        owners: Everybody's.
        problem: "" or why the assignment is not whole.
        hopeless: It stayed so however often we joined again.
    """

    generation: int
    numbers: tuple[int, ...]
    owners: Mapping[int, Owner]
    problem: str
    hopeless: bool = False


def deal(count: int, claims: Mapping[str, Claim]) -> dict[int, str]:
    """Number → member: whole, balanced, deterministic, with the least movement.

    Args:
        count: N.
        claims: By member id; at least one.
    """
    order = sorted(claims, key=lambda member: (claims[member].name, member))
    kept = _undisputed(count, claims, order)
    quota, extra = divmod(count, len(order))
    # Members that hold more keep the larger shares, so that nothing moves only to even out.
    larger = set(sorted(order, key=lambda member: -len(kept[member]))[:extra])
    limits = {member: quota + (member in larger) for member in order}
    owners = {number: member for member in order for number in kept[member][: limits[member]]}
    free = (number for number in range(count) if number not in owners)
    for member in order:
        missing = limits[member] - min(limits[member], len(kept[member]))
        for _ in range(missing):
            owners[next(free)] = member
    return owners


def _undisputed(count: int, claims: Mapping[str, Claim], order: list[str]) -> dict[str, list[int]]:
    best: dict[int, tuple[int, list[str]]] = {}
    for member in order:
        claim = claims[member]
        for number in set(claim.held):
            if not 0 <= number < count:
                continue
            generation, holders = best.get(number, (-2, []))
            if claim.generation > generation:
                best[number] = (claim.generation, [member])
            elif claim.generation == generation:
                holders.append(member)
    kept: dict[str, list[int]] = {member: [] for member in order}
    for number in sorted(best):
        holders = best[number][1]
        if len(holders) == 1:
            kept[holders[0]].append(number)
    return kept


class ColocatedAssignor(AbstractPartitionAssignor):  # type: ignore[misc]  # aiokafka ships no types
    """The assignor instance of one consumer; called in the consumer's thread.

    Args:
        claim: Ours, with what was kept from before a restart.
        generation: The coordinator's generation, already the new one when an assignment arrives.
        assigned: Told of each assignment; must not raise, and must not block.
        rejoin: Look at the metadata, and ask the coordinator to join again after so many seconds.
        look: Look at the metadata again and again while `missing`; the client joins again by itself when they change.
    """

    name = "vault-stream-colocated"
    version = 0

    def __init__(
        self,
        claim: Claim,
        generation: Callable[[], int],
        assigned: Callable[[Assigned], None],
        rejoin: Callable[[float], None],
        look: Callable[[], None],
    ) -> None:
        self._claim = claim
        self._generation = generation
        self._assigned = assigned
        self._rejoin = rejoin
        self._look = look
        self._topics: frozenset[str] = frozenset()
        self._counts: Callable[[str], set[int] | None] = lambda _: None
        self.rejoins = 0

    def bind(self, counts: Callable[[str], set[int] | None]) -> None:
        """Give it the client's metadata: the partitions of a topic, None while unknown."""
        self._counts = counts

    @property
    def missing(self) -> bool:
        """Whether a topic that we subscribe has no metadata."""
        return any(self._counts(topic) is None for topic in self._topics)

    def metadata(self, topics: Any) -> Any:
        """At each join: what we subscribe, and our claim."""
        self._topics = frozenset(topics)
        claim = msgspec.structs.replace(self._claim, again=self.rejoins)
        return ConsumerProtocolMemberMetadata(self.version, sorted(topics), msgspec.json.encode(claim))

    def assign(self, cluster: Any, members: Mapping[str, Any]) -> dict[str, Any]:
        """On the leader: everybody's assignment. A topic that a number's owner does not read waits for it."""
        claims = {member: _claim_of(member, metadata) for member, metadata in members.items()}
        count = self._claim.numbers
        owners = deal(count, claims)
        order = sorted(members)
        index = {member: at for at, member in enumerate(order)}
        table = _Table(
            tuple((claims[member].name, claims[member].url) for member in order),
            tuple(index[owners[number]] for number in range(count)),
        )
        data = msgspec.json.encode(table)
        answer = {}
        for member, metadata in members.items():
            parts = []
            for topic in sorted(metadata.subscription):
                partitions = cluster.partitions_for_topic(topic)
                if partitions is None:
                    log.error("topic %s has no metadata; nobody reads it until the next assignment", topic)
                    continue
                own = [p for p in sorted(partitions) if owners[p % count] == member]
                if own:
                    parts.append((topic, own))
            answer[member] = ConsumerProtocolMemberAssignment(self.version, parts, data)
        return answer

    def on_assignment(self, assignment: Any) -> None:
        """On every member, before the listeners; never raises, for that ends aiokafka's coordinator in silence."""
        try:
            got = self._read(assignment)
        except Exception:
            log.exception("an assignment cannot be read")
            got = Assigned(self._generation(), (), {}, "unreadable")
        self._claim = msgspec.structs.replace(self._claim, held=got.numbers, generation=got.generation)
        if not got.problem:
            self.rejoins = 0
        elif got.problem.startswith(_NO_METADATA):
            # It waits in the log until there is metadata; that is nobody's end, and no reason to stop all the others.
            self._look()
        elif self.rejoins < MAX_REJOINS:
            log.warning("joining again: %s", got.problem)
            self._rejoin(FIRST_REJOIN_S * 4**self.rejoins)
            self.rejoins += 1
        else:
            got = replace(got, hopeless=True)
        self._assigned(got)

    def _read(self, assignment: Any) -> Assigned:
        table = msgspec.json.decode(assignment.user_data, type=_Table)
        owners = {number: Owner(*table.who[at]) for number, at in enumerate(table.owner)}
        got: dict[str, set[int]] = {topic: set(partitions) for topic, partitions in assignment.assignment}
        numbers = tuple(n for n, owner in owners.items() if owner.name == self._claim.name)
        return Assigned(self._generation(), numbers, owners, self._problem(owners, numbers, got))

    def _problem(self, owners: Mapping[int, Owner], numbers: tuple[int, ...], got: Mapping[str, set[int]]) -> str:
        count = self._claim.numbers
        if len(owners) != count:
            return f"the group works with PARTITIONS={len(owners)}, this worker with {count}"
        if any(owners[n].url != self._claim.url for n in numbers):
            return f"the owner table shows an old URL of {self._claim.name}"
        for topic in sorted(self._topics):
            partitions = self._counts(topic)
            if partitions is None:
                return f"{_NO_METADATA} {topic}"
            mine = got.get(topic, set())
            # The leader may know of partitions that we have not heard of yet, never less.
            missing = {p for p in partitions if p % count in numbers} - mine
            strays = {p for p in mine if p % count not in numbers}
            if missing or strays:
                return f"topic {topic} is not whole: {sorted(missing)} missing, {sorted(strays)} of other numbers"
        return ""


def _claim_of(member: str, metadata: Any) -> Claim:
    try:
        return msgspec.json.decode(metadata.user_data, type=Claim)
    except (msgspec.DecodeError, TypeError):
        return Claim(member, "", 0)
