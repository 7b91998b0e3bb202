"""The group's offsets follow the positions, in one request for all numbers, and never overtake them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest

from app.engine import offset_copies
from app.engine.offset_copies import OffsetCopies
from tests.support.number import until

TP = tuple[str, int]


class Group:
    """Takes commits; the next ones are refused, with something that happens meanwhile."""

    def __init__(self) -> None:
        self.commits: list[dict[TP, int]] = []
        self.refusals: list[Callable[[], None]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def commit(self, offsets: Mapping[TP, int]) -> None:
        if self.refusals:
            self.refusals.pop()()
            raise OSError("no coordinator")
        self.commits.append(dict(offsets))
        await self.gate.wait()


@pytest.fixture
def group() -> Group:
    return Group()


@pytest.fixture
async def copies(group: Group, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OffsetCopies]:
    monkeypatch.setattr(offset_copies, "EVERY_S", 0.02)
    monkeypatch.setattr(offset_copies, "LAST_DEADLINE_S", 0.2)
    copies = OffsetCopies(group.commit)
    task = asyncio.create_task(copies.run())
    yield copies
    task.cancel()


async def test_many_checkpoints_are_one_commit_of_the_newest_positions(group: Group, copies: OffsetCopies) -> None:
    for offset in range(1, 11):
        copies.add({("in", 0): offset, ("in", 1): 10 * offset})

    await until(lambda: group.commits)

    assert group.commits == [{("in", 0): 10, ("in", 1): 100}]


async def test_nothing_new_commits_nothing(group: Group, copies: OffsetCopies) -> None:
    copies.add({("in", 0): 1})
    await until(lambda: group.commits)

    await asyncio.sleep(0.1)

    assert len(group.commits) == 1


async def test_a_refused_copy_is_tried_again_and_never_replaces_a_newer_one(group: Group, copies: OffsetCopies) -> None:
    group.refusals.append(lambda: copies.add({("in", 0): 2}))
    copies.add({("in", 0): 1, ("in", 1): 1})

    await until(lambda: group.commits)

    assert group.commits == [{("in", 0): 2, ("in", 1): 1}]


async def test_the_last_positions_are_copied_at_the_end(group: Group, copies: OffsetCopies) -> None:
    copies.add({("in", 0): 7})

    await copies.finish(lost=False)

    assert group.commits == [{("in", 0): 7}]


async def test_numbers_that_somebody_else_may_own_are_not_copied(group: Group, copies: OffsetCopies) -> None:
    copies.add({("in", 0): 7})

    await copies.finish(lost=True)
    await asyncio.sleep(0.1)

    assert group.commits == []


async def test_a_coordinator_that_does_not_answer_does_not_hold_up_the_end(group: Group, copies: OffsetCopies) -> None:
    group.gate.clear()
    copies.add({("in", 0): 7})

    async with asyncio.timeout(5):
        await copies.finish(lost=False)


async def test_a_copy_that_fails_after_the_end_is_not_tried_again_in_another_assignment(
    group: Group, copies: OffsetCopies
) -> None:
    async def refuse_late(offsets: Mapping[TP, int]) -> None:
        copies._commit = group.commit
        await copies.finish(lost=True)
        raise OSError("the session is over")

    copies._commit = refuse_late
    copies.add({("gone", 0): 7})
    await until(lambda: copies._finished == 1)
    copies.add({("mine", 0): 1})

    await until(lambda: group.commits)

    assert group.commits == [{("mine", 0): 1}]
