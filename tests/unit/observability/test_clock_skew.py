from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.observability import clock_skew, metrics
from app.observability.clock_skew import PeerClock

NOW_S = 1_750_000_000.0


class Monotonic:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 10
        return self.now_s


def skew_s(peer: str = "policy") -> float:
    found = metrics.REGISTRY.get_sample_value("vault_stream_clock_skew_seconds", {"peer": peer})
    assert found is not None
    return found


@pytest.fixture
def clock() -> PeerClock:
    return PeerClock("policy", Monotonic())


@pytest.mark.parametrize(
    ("peer_s", "shown_s"),
    [(NOW_S + 0.2, 0), (NOW_S - 3, 3), (NOW_S + 4, -3), (NOW_S, 0), (NOW_S + 1, 0)],
)
def test_what_the_way_there_and_back_explains_is_no_skew(clock: PeerClock, peer_s: float, shown_s: float) -> None:
    clock.told(peer_s, NOW_S, NOW_S + 1)
    assert skew_s() == pytest.approx(shown_s)


@given(skew=st.floats(-100, 100), there=st.floats(0, 30), back=st.floats(0, 30), resolution=st.sampled_from([0.0, 1.0]))
def test_never_more_is_shown_than_there_is_and_never_the_wrong_way(
    skew: float, there: float, back: float, resolution: float
) -> None:
    received_s = NOW_S + there - skew
    told_s = received_s // resolution * resolution if resolution else received_s
    clock = PeerClock("registry", Monotonic())
    clock.told(told_s, NOW_S, NOW_S + there + back, resolution)
    shown = skew_s("registry")
    assert abs(shown) <= abs(skew) + 1e-6
    assert shown * skew >= -1e-6
    assert abs(shown) >= abs(skew) - there - back - resolution - 1e-6


def test_the_date_of_an_answer_tells_the_second(clock: PeerClock) -> None:
    clock.told_by_date(formatdate(NOW_S - 5, usegmt=True), NOW_S, NOW_S + 0.1)
    assert skew_s() == pytest.approx(4, abs=0.2)
    clock.told_by_date(formatdate(NOW_S, usegmt=True), NOW_S + 0.5, NOW_S + 0.7)
    assert skew_s() == 0


@pytest.mark.parametrize("date", [None, "", "yesterday", "Tue, 99 Foo 2026 00:00:00 GMT", "9" * 1000, "\x00"])
def test_a_date_that_is_none_changes_nothing(clock: PeerClock, date: str | None) -> None:
    clock.told(NOW_S - 3, NOW_S, NOW_S)
    clock.told_by_date(date, NOW_S, NOW_S)
    assert skew_s() == 3


def test_what_was_long_ago_is_not_shown_any_more_until_the_peer_is_heard_again(
    clock: PeerClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.told(NOW_S - 3, NOW_S, NOW_S)
    began_s = clock_skew.time.monotonic()
    monkeypatch.setattr(clock_skew, "FORGET_AFTER_S", -1.0)
    assert metrics.REGISTRY.get_sample_value("vault_stream_clock_skew_seconds", {"peer": "policy"}) is None
    monkeypatch.setattr(clock_skew, "FORGET_AFTER_S", clock_skew.time.monotonic() - began_s + 900)
    clock.told(NOW_S - 4, NOW_S, NOW_S)
    assert skew_s() == 4


def test_one_look_a_second_is_enough() -> None:
    clock = PeerClock("policy", lambda: 100.0)
    clock.told(NOW_S - 3, NOW_S, NOW_S)
    clock.told(NOW_S - 7, NOW_S, NOW_S)
    assert skew_s() == 3
