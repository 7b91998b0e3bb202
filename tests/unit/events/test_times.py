from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.events import format_time, parse_moment_ms, parse_time_ms
from app.events.times import parse_time

ENDS = ("Z", "z", ".5Z", ".123Z", ".000Z", ".123456Z", "+02:00", ".007-00:30", ":7Z", "")


@pytest.mark.parametrize(
    ("text", "time_ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-01-02T03:04:05.678Z", 1767323045678),
        ("2026-01-02t03:04:05.678z", 1767323045678),
        ("2026-01-02T04:04:05.678+01:00", 1767323045678),
        ("2026-01-02T03:04:05.6789999999Z", 1767323045678),
        ("1969-12-31T23:59:59.999Z", -1),
        ("2016-12-31T23:59:60Z", 1483228800000),
        ("2016-12-31T23:59:60.5Z", 1483228800500),
    ],
)
def test_rfc_3339_is_read_to_the_millisecond(text: str, time_ms: int) -> None:
    assert parse_time_ms(text) == time_ms


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-01-02",
        "2026-01-02T03:04:05",
        "2026-01-02 03:04:05Z",
        "2026-02-30T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-01-02T24:00:00Z",
        "2026-01-02T03:60:00Z",
        "2026-01-02T03:04:61Z",
        "2026-01-02T03:04:05.Z",
        "2026-01-02T03:04:05+0100",
        "20260102T030405Z",
        "2026-W01-1T00:00:00Z",
        "٢٠٢٦-01-02T03:04:05Z",
        "0000-01-01T00:00:00Z",
        "9999-12-31T23:59:60Z",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"RFC 3339|years|range|month"):
        parse_time_ms(text)


def test_people_may_give_a_date_for_its_midnight_in_utc() -> None:
    assert parse_moment_ms("2026-01-02") == parse_time_ms("2026-01-02T00:00:00Z")
    assert parse_moment_ms("2026-01-02T03:04:05.678Z") == 1767323045678


@pytest.mark.parametrize("text", ["", "2026-1-2", "2026-02-30", "20260102", "2026-W01-1", "2026-01", "٢٠٢٦-01-02"])
def test_what_is_neither_a_time_nor_a_date_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"RFC 3339|day"):
        parse_moment_ms(text)


def test_times_are_written_in_utc_with_milliseconds() -> None:
    assert format_time(1767323045678) == "2026-01-02T03:04:05.678Z"
    assert format_time(0) == "1970-01-01T00:00:00.000Z"
    assert format_time(-1) == "1969-12-31T23:59:59.999Z"
    assert format_time(-62135596800000) == "0001-01-01T00:00:00.000Z"


def test_a_time_beyond_the_calendar_is_refused() -> None:
    with pytest.raises(ValueError, match="years 1 to 9999"):
        format_time(2**62)


@given(st.datetimes().filter(lambda moment: 1 < moment.year < 9999), st.sampled_from(ENDS))
def test_the_milliseconds_of_a_time_are_those_of_its_moment(moment: datetime, end: str) -> None:
    text = moment.replace(microsecond=0).isoformat() + end
    try:
        expected = (parse_time(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    except ValueError:
        with pytest.raises(ValueError, match="RFC 3339"):
            parse_time_ms(text)
    else:
        assert parse_time_ms(text) == expected
        assert parse_time_ms(text) == expected, "also when it is asked again"


@pytest.mark.parametrize("second", ["2016-12-31T23:59:60", "2016-12-31t23:59:59"])
def test_a_leap_second_is_the_next_minute_with_and_without_its_fraction(second: str) -> None:
    whole = parse_time_ms(second + "Z")
    assert whole == parse_time_ms("2017-01-01T00:00:00Z") - (1000 if second.endswith("59") else 0)
    assert parse_time_ms(second + ".250Z") == whole + 250
