"""Random claims, members and zombies against `deal`: whole, balanced, deterministic, least movement."""

from hypothesis import given
from hypothesis import strategies as st

from app.engine.assignor import Claim, deal


@st.composite
def groups(draw: st.DrawFn) -> tuple[int, dict[str, Claim]]:
    count = draw(st.sampled_from([1, 2, 3, 4, 8, 12, 16, 64]))
    members = draw(st.integers(1, 9))
    claims = {}
    for at in range(members):
        held = draw(st.lists(st.integers(-1, count + 2), max_size=count, unique=True))
        name = f"w{draw(st.sampled_from([at, at, 0]))}"
        claims[f"member-{at}"] = Claim(name, "", count, tuple(held), draw(st.sampled_from([-1, 3, 4, 5])))
    return count, claims


def undisputed(count: int, claims: dict[str, Claim]) -> dict[int, str]:
    best: dict[int, list[tuple[int, str]]] = {}
    for member, claim in claims.items():
        for number in claim.held:
            if 0 <= number < count:
                best.setdefault(number, []).append((claim.generation, member))
    winners = {}
    for number, found in best.items():
        top = max(generation for generation, _ in found)
        holders = [member for generation, member in found if generation == top]
        if len(holders) == 1:
            winners[number] = holders[0]
    return winners


@given(groups())
def test_every_number_has_one_owner_and_counts_differ_by_at_most_one(group: tuple[int, dict[str, Claim]]) -> None:
    count, claims = group
    owners = deal(count, claims)

    assert sorted(owners) == list(range(count))
    assert set(owners.values()) <= set(claims)
    counts = [list(owners.values()).count(member) for member in claims]
    assert max(counts) - min(counts) <= 1


@given(groups(), st.randoms())
def test_the_order_of_members_changes_nothing(group: tuple[int, dict[str, Claim]], random: object) -> None:
    count, claims = group
    items = list(claims.items())
    random.shuffle(items)
    assert deal(count, dict(items)) == deal(count, claims)


@given(groups())
def test_nothing_moves_that_the_balance_lets_stay(group: tuple[int, dict[str, Claim]]) -> None:
    count, claims = group
    owners = deal(count, claims)
    winners = undisputed(count, claims)
    held = [list(winners.values()).count(member) for member in claims]
    quota, extra = divmod(count, len(claims))
    most = sum(min(n, quota) for n in held) + min(extra, sum(n > quota for n in held))

    assert sum(owners[number] == member for number, member in winners.items()) >= most


@given(groups())
def test_a_stale_claim_takes_a_number_only_from_a_winner_over_its_quota(group: tuple[int, dict[str, Claim]]) -> None:
    count, claims = group
    owners = deal(count, claims)
    for number, winner in undisputed(count, claims).items():
        if owners[number] != winner:
            assert list(owners.values()).count(winner) >= count // len(claims)
