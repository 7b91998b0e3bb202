from hypothesis import given
from hypothesis import strategies as st

from app.integrations.recent import Recent


@given(st.lists(st.integers(0, 30), max_size=80), st.integers(1, 8))
def test_the_last_things_are_remembered_and_never_more_than_twice_as_many(keys: list[int], at_least: int) -> None:
    recent: Recent[int, int] = Recent(at_least)
    for place, key in enumerate(keys):
        recent.put(key, place)
        assert len(recent) <= 2 * at_least
        for late in set(keys[max(0, place + 1 - at_least) : place + 1]):
            assert keys[recent.get(late) or 0] == late
        newest = recent.get(key)
        assert newest == place
