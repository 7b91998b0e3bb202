"""Any history of a group: members come, go, restart and sleep; topics are made, grown and read by some only.

Numbers are always whole and balanced, what need not move stays, and every member knows the owners, or says that
something is wrong.
"""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from hypothesis import strategies as st
from hypothesis.stateful import initialize

from app.engine import assignor as assignor_module
from app.engine.assignor import MAX_REJOINS, Assigned, Claim, ColocatedAssignor, deal
from app.engine.ownership import Owner
from tests.support.machines import Machine, action, caught, play

NAMES = ("a", "b", "c", "d", "e", "f")
TOPICS = ("audit", "events", "intents")
Disk = dict[str, tuple[tuple[int, ...], int]]


@dataclass
class Worker:
    """One process, with what it knows of the topics."""

    name: str
    url: str
    topics: set[str]
    known: dict[str, set[int]]
    kept: tuple[tuple[int, ...], int]
    assignor: ColocatedAssignor | None = None
    seen: list[Assigned] = field(default_factory=list)
    asked_to_join: int = 0
    wrong_in_a_row: int = 0

    def claim(self) -> Claim:
        """What it has to say of itself, by what it was told."""
        held, generation = (self.seen[-1].numbers, self.seen[-1].generation) if self.seen else self.kept
        return Claim(self.name, self.url, 0, held, generation)


class GroupMachine(Machine):
    def __init__(self) -> None:
        super().__init__()
        self.group: dict[str, Worker] = {}
        self.asleep: list[Worker] = []
        self.disk: Disk = {}
        self.topics: dict[str, set[int]] = {}
        self.generation = 0
        self.ids = 0

    @initialize(numbers=st.integers(1, 9), counts=st.lists(st.integers(1, 14), min_size=2, max_size=2))
    def begin(self, numbers: int, counts: list[int]) -> None:
        self.numbers = numbers
        self.topics = {topic: set(range(count)) for topic, count in zip(TOPICS, counts, strict=False)}
        self._start("a", set(TOPICS[:2]))

    # -- workers

    def _start(self, name: str, topics: set[str]) -> Worker:
        self.ids += 1
        held, generation = self.disk.get(name, ((), -1))
        worker = Worker(name, f"http://{name}:{self.ids}", topics, self._metadata(), (held, generation))

        def rejoin(delay_s: float) -> None:
            assert delay_s > 0
            worker.asked_to_join += 1

        def assigned(got: Assigned) -> None:
            worker.seen.append(got)
            self.disk[name] = (got.numbers, got.generation)

        claim = Claim(name, worker.url, self.numbers, held, generation)
        worker.assignor = ColocatedAssignor(
            # The client joins again by itself once it has other metadata.
            claim,
            lambda: self.generation,
            assigned,
            rejoin,
            lambda: rejoin(1.0),
        )
        worker.assignor.bind(lambda topic, w=worker: w.known.get(topic))
        self.group[f"{self.ids}-{name}"] = worker
        return worker

    def _metadata(self) -> dict[str, set[int]]:
        return {topic: set(partitions) for topic, partitions in self.topics.items()}

    def _free_names(self) -> list[str]:
        used = {worker.name for worker in [*self.group.values(), *self.asleep]}
        return [name for name in NAMES if name not in used]

    @action(2, when=lambda self: self._free_names())
    def a_worker_starts(self, data: st.DataObject) -> None:
        """Perhaps one that was here before, and perhaps of a version that reads other topics."""
        name = data.draw(st.sampled_from(self._free_names()))
        if data.draw(st.integers(0, 4)) == 0:
            self.disk[name] = ((0, self.numbers, self.numbers + 2, -1), self.generation)
        self._start(name, data.draw(st.sets(st.sampled_from(TOPICS), min_size=1)))

    @action(when=lambda self: len(self.group) > 1)
    def a_worker_ends(self, data: st.DataObject) -> None:
        del self.group[data.draw(st.sampled_from(sorted(self.group)))]

    @action(2)
    def a_worker_is_killed_and_restarts(self, data: st.DataObject) -> None:
        """It takes its dead self out of the group first."""
        old = self.group.pop(data.draw(st.sampled_from(sorted(self.group))))
        self._start(old.name, old.topics)

    @action(when=lambda self: len(self.group) > 1)
    def a_worker_falls_asleep(self, data: st.DataObject) -> None:
        """The group goes on without it."""
        self.asleep.append(self.group.pop(data.draw(st.sampled_from(sorted(self.group)))))

    @action(when=lambda self: self.asleep)
    def a_worker_wakes(self, data: st.DataObject) -> None:
        """It joins again, with the claims of the generation that it knew."""
        worker = self.asleep.pop(data.draw(st.integers(0, len(self.asleep) - 1)))
        self.ids += 1
        self.group[f"{self.ids}-{worker.name}"] = worker

    @action(when=lambda self: len({w.name for w in self.group.values()}) == len(self.group) < len(NAMES))
    def a_name_is_given_twice(self, data: st.DataObject) -> None:
        twin = self.group[data.draw(st.sampled_from(sorted(self.group)))]
        self._start(twin.name, twin.topics)

    # -- topics

    @action()
    def a_topic_is_made_or_grows(self, data: st.DataObject) -> None:
        topic = data.draw(st.sampled_from(TOPICS))
        more = data.draw(st.integers(1, 5))
        self.topics[topic] = set(range(len(self.topics.get(topic, ())) + more))

    @action(2)
    def metadata_arrives(self, data: st.DataObject) -> None:
        for worker in data.draw(st.lists(st.sampled_from(list(self.group.values())), unique_by=id)):
            worker.known = self._metadata()

    # -- the group

    @action(6)
    def the_group_rebalances(self, data: st.DataObject) -> None:
        leader = data.draw(st.sampled_from(sorted(self.group)))
        fresh = data.draw(st.booleans(), label="the leader's metadata is fresh")
        if fresh:
            self.group[leader].known = self._metadata()
        # The next rebalance may begin before everybody has heard of this one.
        deaf = data.draw(st.just(set()) | st.sets(st.sampled_from(sorted(self.group))), label="deaf")
        self._rebalance(leader, deaf)

    def _rebalance(self, leader: str, deaf: set[str]) -> None:
        claims = {member: worker.claim() for member, worker in self.group.items()}
        joined = {
            member: ConsumerProtocolMemberMetadata.decode(worker.assignor.metadata(worker.topics).encode())
            for member, worker in self.group.items()
        }
        self.generation += 1
        known = self.group[leader].known
        answer = self.group[leader].assignor.assign(SimpleNamespace(partitions_for_topic=known.get), joined)
        owners = self._owners(answer)
        assert_balanced(self.numbers, list(self.group), owners)
        assert_least_movement(self.numbers, claims, owners)
        assert_whole(self.numbers, {m: w.topics for m, w in self.group.items()}, known, owners, answer)
        assert dict(sorted(owners.items())) == dict(
            sorted(deal(self.numbers, dict(reversed(claims.items()))).items())
        ), "another leader would deal otherwise"
        for member in self.group.keys() - deaf:
            self._told(member, ConsumerProtocolMemberAssignment.decode(answer[member].encode()), owners)

    def _owners(self, answer: dict[str, object]) -> dict[int, str]:
        """As the table says that every member gets."""
        (data,) = {one.user_data for one in answer.values()}
        table = assignor_module.msgspec.json.decode(data, type=assignor_module._Table)
        order = sorted(self.group)
        assert [tuple(who) for who in table.who] == [(self.group[m].name, self.group[m].url) for m in order]
        return {number: order[at] for number, at in enumerate(table.owner)}

    def _told(self, member: str, assignment: object, owners: dict[int, str]) -> None:
        worker = self.group[member]
        heard, joins = len(worker.seen), worker.asked_to_join
        worker.assignor.on_assignment(assignment)
        assert len(worker.seen) == heard + 1
        got = worker.seen[-1]
        assert got.generation == self.generation
        assert got.owners == {n: Owner(self.group[m].name, self.group[m].url) for n, m in owners.items()}
        mine = {number for number, owner in owners.items() if owner == member}
        twins = any(w is not worker and w.name == worker.name for w in self.group.values())
        assert mine == set(got.numbers) if not twins else mine <= set(got.numbers)
        self._assert_that_it_says_what_is_wrong(worker, assignment, got)
        assert (worker.asked_to_join > joins) == (bool(got.problem) and not got.hopeless)
        self._assert_hopeless_in_time(worker, got)

    def _assert_that_it_says_what_is_wrong(self, worker: Worker, assignment: object, got: Assigned) -> None:
        given = {(topic, p) for topic, partitions in assignment.assignment for p in partitions}
        unknown = worker.topics - worker.known.keys()
        wanted = {
            (topic, p)
            for topic in worker.topics - unknown
            for p in worker.known[topic]
            if p % self.numbers in got.numbers
        }
        strays = {(topic, p) for topic, p in given if p % self.numbers not in got.numbers}
        whole = not unknown and wanted <= given and not strays
        old_url = any(
            owner.name == worker.name and owner.url != worker.url for owner in got.owners.values()
        )  # of a twin's
        assert (got.problem == "") == (whole and not old_url)

    def _assert_hopeless_in_time(self, worker: Worker, got: Assigned) -> None:
        if not got.problem:
            worker.wrong_in_a_row = 0
        elif "no metadata" not in got.problem:
            worker.wrong_in_a_row += 1
        assert got.hopeless == ("no metadata" not in got.problem and worker.wrong_in_a_row > MAX_REJOINS)

    @action()
    def garbage_arrives(self, data: st.DataObject) -> None:
        """From a leader of another version, or with a bug."""
        worker = self.group[data.draw(st.sampled_from(sorted(self.group)))]
        table = assignor_module._Table(
            ((worker.name, worker.url), ("other", "http://other")), (0, *[1] * (self.numbers - 1))
        )
        right = assignor_module.msgspec.json.encode(table)
        wrong = [b"", b"\xff", b"{}", b'{"who":[],"owner":[0]}', b'{"who":[["a","b"]],"owner":[5]}', None, right]
        # Beside the table that says number 0, a partition of number 1 (or 0, all alone).
        user_data = data.draw(st.sampled_from(wrong))
        topic = min(worker.topics)
        heard = len(worker.seen)
        mine = [p for p in worker.known.get(topic, ()) if p % self.numbers == 0]
        stray = [1] if self.numbers > 1 else []
        parts = [(t, [p for p in worker.known.get(t, ()) if p % self.numbers == 0]) for t in worker.topics - {topic}]
        # No assignment comes to a member that has not joined.
        worker.assignor.metadata(worker.topics)
        worker.assignor.on_assignment(SimpleNamespace(user_data=user_data, assignment=[*parts, (topic, mine + stray)]))
        assert len(worker.seen) == heard + 1
        if stray or user_data is not right:
            assert worker.seen[-1].problem
        self._assert_hopeless_in_time(worker, worker.seen[-1])

    def teardown(self) -> None:
        """Left alone, the group settles: everybody is content with the second assignment at the latest."""
        twins = len({worker.name for worker in self.group.values()}) < len(self.group)
        if not self.group or twins:
            return
        for worker in self.group.values():
            worker.topics &= self.topics.keys()
        for _ in range(2):
            for worker in self.group.values():
                worker.known = self._metadata()
            self._rebalance(min(self.group), set())
        assert {worker.seen[-1].problem for worker in self.group.values()} == {""}
        before = {member: worker.seen[-1].numbers for member, worker in self.group.items()}
        self._rebalance(max(self.group), set())
        assert {member: worker.seen[-1].numbers for member, worker in self.group.items()} == before


def assert_balanced(numbers: int, members: list[str], owners: dict[int, str]) -> None:
    assert set(owners) == set(range(numbers))
    counts = [sum(owner == member for owner in owners.values()) for member in members]
    assert sum(counts) == numbers
    assert max(counts) - min(counts) <= 1


def assert_least_movement(numbers: int, claims: dict[str, Claim], owners: dict[int, str]) -> None:
    """Nobody can keep more; and nobody keeps what another holds of a higher generation."""
    rightful: dict[str, set[int]] = {member: set() for member in claims}
    for number in range(numbers):
        holders = {member: claim.generation for member, claim in claims.items() if number in claim.held}
        newest = [member for member, generation in holders.items() if generation == max(holders.values())]
        if len(newest) == 1:
            rightful[newest[0]].add(number)
    quota, extra = divmod(numbers, len(claims))
    larger = sum(len(held) > quota for held in rightful.values())
    possible = sum(min(len(held), quota) for held in rightful.values()) + min(extra, larger)
    kept = sum(owners[number] == member for member, held in rightful.items() for number in held)
    assert kept == possible


def assert_whole(
    numbers: int,
    subscriptions: dict[str, set[str]],
    known: dict[str, set[int]],
    owners: dict[int, str],
    answer: dict[str, object],
) -> None:
    """A partition is its number's owner's, who reads its topic; or it waits."""
    given = [(topic, p, member) for member, one in answer.items() for topic, ps in one.assignment for p in ps]
    wanted = [
        (topic, p, owners[p % numbers])
        for topic, partitions in known.items()
        for p in partitions
        if topic in subscriptions[owners[p % numbers]]
    ]
    assert sorted(given) == sorted(wanted)


@pytest.mark.parametrize(
    "histories", [pytest.param(100, id="short"), pytest.param(5_000, id="full", marks=pytest.mark.prove)]
)
def test_numbers_are_whole_and_balanced_and_stay_where_they_were_in_any_history(histories: int) -> None:
    play(GroupMachine, histories, 40, "Model: assignments")


def _round_robin(count: int, claims: dict[str, Claim]) -> dict[int, str]:
    """Whole and balanced; but everything moves."""
    order = sorted(claims)
    return {number: order[number % len(order)] for number in range(count)}


def _greedy(count: int, claims: dict[str, Claim]) -> dict[int, str]:
    """Everybody keeps everything."""
    order = sorted(claims)
    held = {number: member for member in order for number in claims[member].held if number < count}
    return {number: held.get(number, order[0]) for number in range(count)}


@pytest.mark.parametrize("broken", [_round_robin, _greedy])
def test_a_deal_that_moves_everything_or_nothing_is_caught(broken: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assignor_module, "deal", broken)

    assert caught(GroupMachine, 50, 40) is not None
