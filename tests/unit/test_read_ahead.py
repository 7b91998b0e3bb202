"""Bytes for ids: none twice, whoever asks."""

from __future__ import annotations

import os
from itertools import count

import pytest

from app.read_ahead import ReadAhead


class Source:
    """Numbers of four bytes, one after another."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self._next = count()

    def __call__(self, size: int) -> bytes:
        self.asked.append(size)
        return b"".join(next(self._next).to_bytes(4, "big") for _ in range(size // 4))


def test_none_is_handed_out_twice_and_the_source_is_asked_a_block_at_a_time() -> None:
    source = Source()
    read = ReadAhead(source)
    found = [read(16) for _ in range(1000)]
    assert {len(one) for one in found} == {16}
    assert len(set(found)) == 1000
    assert len(source.asked) < 10


@pytest.mark.parametrize("size", [1, 10, 4095, 4096, 10_000])
def test_as_many_come_as_were_asked_for(size: int) -> None:
    read = ReadAhead()
    assert {len(read(size)) for _ in range(5)} == {size}


def test_a_fork_does_not_hand_out_what_its_parent_does() -> None:
    read = ReadAhead()
    read(10)
    reading, writing = os.pipe()
    if not (child := os.fork()):
        os.write(writing, read(16))
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        assert read(16) != answer.read()
