import pytest

from app.engine import PositionRefused
from app.engine.positions import Bounds, Position, Start, decode_positions, encode_positions, start_of


def bounds(begin: int = 0, end: int = 100, committed: int | None = None, topic_id: str = "id-1") -> Bounds:
    return Bounds(begin, end, committed, topic_id)


def test_a_partition_starts_at_its_position_row_whatever_the_group_says() -> None:
    assert start_of("t", 0, Position("id-1", 40), bounds(committed=90)) == Start(40)


def test_without_a_row_and_without_a_group_offset_it_starts_at_the_beginning() -> None:
    assert start_of("t", 0, None, bounds(begin=7)) == Start(7)


def test_a_lost_changelog_must_not_repeat_or_skip_history() -> None:
    with pytest.raises(PositionRefused, match=r"t/3: the group has offset 40 .* positions reset t/3"):
        start_of("t", 3, None, bounds(committed=40))


def test_a_position_beyond_the_end_is_refused_with_both_numbers_and_the_command() -> None:
    with pytest.raises(PositionRefused, match=r"position 101 is beyond the end 100.*positions reset t/0"):
        start_of("t", 0, Position("id-1", 101), bounds())


def test_a_topic_made_again_is_refused_even_if_it_is_long_enough() -> None:
    with pytest.raises(PositionRefused, match="deleted and made again"):
        start_of("t", 0, Position("id-0", 40), bounds())


def test_a_broker_that_tells_no_topic_ids_refuses_nothing_for_it() -> None:
    assert start_of("t", 0, Position("id-0", 40), bounds(topic_id="")) == Start(40)


def test_records_that_retention_took_are_counted_as_a_gap() -> None:
    assert start_of("t", 0, Position("id-1", 40), bounds(begin=55)) == Start(55, gap=15)


def test_positions_survive_their_encoding() -> None:
    positions = {("b", 11): Position("x", 5), ("a", 0): Position("", 0)}
    assert decode_positions(encode_positions(positions)) == positions
    assert decode_positions(None) == {}
