import pytest

from app.events import format_time, parse_moment_ms, parse_time_ms


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
