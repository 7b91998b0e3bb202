"""What workers say of the numbers that were dealt to them, held against what it must be."""

from collections import Counter
from collections.abc import Mapping, Sequence

from tests.support.fold import FoldGroup, FoldWorker


def dealt(group: FoldGroup, workers: Sequence[FoldWorker]) -> list[int]:
    """Sizes, largest first, once all are ready and their owner tables say what each of them has; empty before."""
    statuses = {worker.name: worker.status for worker in workers}
    if not all(status.get("ready") for status in statuses.values()):
        return []
    holders = {str(n): name for name, status in statuses.items() for n in status["numbers"]}
    held = [n for status in statuses.values() for n in status["numbers"]]
    if sorted(held) != list(range(group.numbers)):
        return []
    if any(status["owners"] != holders for status in statuses.values()):
        return []
    sizes = Counter(dict.fromkeys(statuses, 0)) + Counter(holders.values())
    return sorted((sizes[name] for name in statuses), reverse=True)


def even(numbers: int, workers: int) -> list[int]:
    """The sizes of fair shares, largest first."""
    share, larger = divmod(numbers, workers)
    return [share + 1] * larger + [share] * (workers - larger)


def split(group: FoldGroup, workers: Sequence[FoldWorker]) -> list[str]:
    """Numbers with several workers; partitions that are not with the one that has their number, or with nobody."""
    topics = {"in": group.wide, "small": 3, "relay": group.numbers}
    found: Counter[tuple[str, int]] = Counter()
    holders: Counter[str] = Counter()
    wrong = []
    for worker in workers:
        for number, partitions in worker.status["partitions"].items():
            holders[number] += bool(partitions)
            for topic, partition in partitions:
                found[topic.rsplit(".", 1)[1], partition] += 1
                if partition % group.numbers != int(number):
                    wrong.append(f"{worker.name} has {topic}/{partition} in number {number}")
    wrong += [f"number {number} is with {count} workers" for number, count in holders.items() if count > 1]
    wanted = Counter((topic, p) for topic, count in topics.items() for p in range(count))
    read = Counter({place: count for place, count in found.items() if place[0] in topics})
    return wrong + [f"{place} is read {read[place]} times" for place in wanted | read if wanted[place] != read[place]]


def moved_needlessly(before: Mapping[str, set[int]], after: Mapping[str, set[int]]) -> list[str]:
    """Members that were there before and after, and neither kept what they had nor only gave away."""
    return [
        f"{name}: {sorted(had)}, then {sorted(after[name])}"
        for name, had in before.items()
        if name in after and not (had <= after[name] or after[name] <= had)
    ]


def holdings(workers: Sequence[FoldWorker]) -> dict[str, set[int]]:
    """Which numbers each of them has."""
    return {worker.name: set(worker.numbers) for worker in workers}
