from types import SimpleNamespace

import msgspec
import pytest

from app.engine.assignor import MAX_REJOINS, Assigned, Claim, ColocatedAssignor
from app.engine.ownership import Owner

COUNTS = {"wide": set(range(12)), "narrow": set(range(3)), "even": set(range(8))}


class Member:
    def __init__(
        self, name: str, topics: tuple[str, ...] = ("wide", "narrow", "even"), url: str = "", numbers: int = 8
    ) -> None:
        self.seen: list[Assigned] = []
        self.rejoined = 0
        self.looked = 0
        self.topics = topics
        self.assignor = ColocatedAssignor(
            Claim(name, url or f"http://{name}", numbers), lambda: 5, self.seen.append, self.rejoin, self.look
        )
        self.assignor.bind(COUNTS.get)

    def rejoin(self, delay_s: float) -> None:
        assert delay_s > 0
        self.rejoined += 1

    def look(self) -> None:
        self.looked += 1

    def metadata(self) -> object:
        return self.assignor.metadata(set(self.topics))


CLUSTER = SimpleNamespace(partitions_for_topic=COUNTS.get)


def assign(*members: Member) -> list[object]:
    ids = {f"id-{at}": member for at, member in enumerate(members)}
    given = members[0].assignor.assign(CLUSTER, {i: m.metadata() for i, m in ids.items()})
    for i, member in ids.items():
        member.assignor.on_assignment(given[i])
    return [given[i] for i in ids]


def test_a_number_is_whole_on_one_member_whatever_the_topics_partition_counts() -> None:
    members = [Member("a"), Member("b"), Member("c")]

    given = assign(*members)

    where: dict[int, set[int]] = {}
    for at, one in enumerate(given):
        for _, partitions in one.assignment:
            for partition in partitions:
                where.setdefault(partition % 8, set()).add(at)
    assert all(len(owners) == 1 for owners in where.values())
    wide = [p for one in given for topic, partitions in one.assignment if topic == "wide" for p in partitions]
    assert sorted(wide) == list(range(12))
    assert sorted(len(m.seen[-1].numbers) for m in members) == [2, 3, 3]


def test_every_member_learns_the_same_owner_table() -> None:
    members = [Member("a"), Member("b")]

    assign(*members)

    assert members[0].seen[-1].owners == members[1].seen[-1].owners
    assert members[0].seen[-1].owners[members[0].seen[-1].numbers[0]] == Owner("a", "http://a")
    assert [m.seen[-1].problem for m in members] == ["", ""]


def test_a_topic_that_the_owner_does_not_read_waits_and_goes_to_nobody_else() -> None:
    old, new = Member("a", ("wide",)), Member("b")

    given = assign(old, new)

    read = {p for one in given for t, ps in one.assignment if t == "even" for p in ps}
    assert read == set(new.seen[-1].numbers)


def test_a_member_keeps_its_numbers_when_another_joins() -> None:
    first = Member("a")
    assign(first)
    before = set(first.seen[-1].numbers)

    second = Member("b")
    assign(first, second)

    assert set(first.seen[-1].numbers) <= before
    assert len(first.seen[-1].numbers) == 4


def test_another_partition_count_in_the_group_is_said_and_joined_again_at_most_three_times() -> None:
    leader, other = Member("a"), Member("b", numbers=12)

    for _ in range(MAX_REJOINS + 2):
        assign(leader, other)

    assert other.seen[-1].problem == "the group works with PARTITIONS=8, this worker with 12"
    assert other.rejoined == MAX_REJOINS
    assert leader.rejoined == 0


def test_a_missing_topic_makes_the_member_look_again_and_stops_nobody() -> None:
    member = Member("a", ("wide", "absent"))

    assign(member)

    assert member.seen[-1].problem == "no metadata of topic absent"
    assert member.assignor.missing
    assert (member.looked, member.rejoined) == (1, 0)


def test_an_unreadable_assignment_never_raises_into_the_coordinator() -> None:
    member = Member("a")

    member.assignor.on_assignment(SimpleNamespace(user_data=b"\xff", assignment=[]))

    assert member.seen[-1].problem == "unreadable"
    assert member.rejoined == 1


@pytest.mark.parametrize(("numbers", "workers", "limit"), [(64, 20, 90_000), (12, 3, 2_000)])
def test_the_owner_table_of_all_members_stays_small(numbers: int, workers: int, limit: int) -> None:
    members = [
        Member(f"worker-{i}", url=f"http://vault-stream-{i}.vault-stream:8088", numbers=numbers) for i in range(workers)
    ]

    given = assign(*members)

    assert sum(len(one.user_data) for one in given) < limit


def test_the_counter_in_the_metadata_moves_so_that_the_leader_looks() -> None:
    leader, member = Member("a"), Member("b", numbers=12)
    before = msgspec.json.decode(member.metadata().user_data).get("again", 0)

    assign(leader, member)

    assert msgspec.json.decode(member.metadata().user_data)["again"] == before + 1


def test_a_member_that_stays_wrong_is_hopeless_only_after_the_last_join() -> None:
    leader, member = Member("a"), Member("b", numbers=12)

    for _ in range(MAX_REJOINS + 1):
        assign(leader, member)

    assert [got.hopeless for got in member.seen] == [False] * MAX_REJOINS + [True]


def test_a_topic_without_metadata_is_waited_for_and_never_hopeless() -> None:
    member = Member("a", ("wide", "absent"))

    for _ in range(MAX_REJOINS + 3):
        assign(member)

    assert not any(got.hopeless for got in member.seen)
    assert (member.looked, member.rejoined) == (MAX_REJOINS + 3, 0)


def test_a_leader_that_knows_more_partitions_than_we_do_is_right() -> None:
    member = Member("a")
    member.assignor.bind({**COUNTS, "narrow": {0}}.get)

    assign(member)

    assert member.seen[-1].problem == ""
