import json

import pytest

from app.events import JsonRefused, loads_strict


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "b": {"c": [true, false, null, "x"]}}',
        '{"a" : 1,\n "b"\t: 2}',
        '{"quote\\": ": 1, "text": "says \\"a\\": 1"}',
        '{"colon": ":x", ":": 2}',
        "[18446744073709551615, -9223372036854775808]",
        '{"text": "00000000000000000000000000"}',
        "[0.12345678901234567890123]",
        "{}",
        '"alone"',
        '{"a": {"k": 1}, "b": {"k": 2}}',
    ],
)
def test_what_has_one_meaning_is_read_as_the_standard_library_reads_it(text: str) -> None:
    assert loads_strict(text.encode()) == json.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 2}',
        '{"a" : 1, "a" : 2}',
        '{"a"\n: 1, "a": 2}',
        '{"a": 1, "\\u0061": 2}',
        '{"deep": [{"a": 1, "a": {"b": 2}}]}',
        '{"a": ":", "a": 2}',
        '{"a": {"x": 1}, "a": 1}',
        '{"\\"": 1, "\\"": 2}',
    ],
)
def test_a_duplicate_key_is_refused(text: str) -> None:
    with pytest.raises(JsonRefused, match="duplicate key"):
        loads_strict(text.encode())


@pytest.mark.parametrize("digits", ["18446744073709551616", "-9223372036854775809", "9" * 30, "-" + "9" * 300])
def test_an_integer_beyond_64_bits_is_refused(digits: str) -> None:
    with pytest.raises(JsonRefused, match="an integer beyond 64 bits"):
        loads_strict(f'{{"n": {digits}}}'.encode())


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"NaN",
        b"[Infinity]",
        b"[1e400]",
        b"9" * 6000,
        b"{'a': 1}",
        b"[1,]",
        b"\xff",
        b'"\\ud800"',
        b"\xef\xbb\xbf{}",
        b"\0",
    ],
)
def test_what_is_not_json_is_refused(raw: bytes) -> None:
    with pytest.raises(JsonRefused, match="not JSON"):
        loads_strict(raw)


@pytest.mark.parametrize(("opened", "inmost", "closed"), [(b"[", b"", b"]"), (b'{"k":', b"1", b"}")])
def test_64_levels_are_read_and_65_are_refused(opened: bytes, inmost: bytes, closed: bytes) -> None:
    assert loads_strict(opened * 64 + inmost + closed * 64)
    with pytest.raises(JsonRefused, match="nested deeper than 64 levels"):
        loads_strict(opened * 65 + inmost + closed * 65)


def test_depth_that_a_duplicate_key_hides_is_refused() -> None:
    hidden = b'{"a": ' + b"[" * 1000 + b"]" * 1000 + b', "a": 1}'
    with pytest.raises(JsonRefused):
        loads_strict(hidden)


def test_many_brackets_side_by_side_are_not_deep() -> None:
    assert len(loads_strict(b"[" + b",".join([b"{}"] * 500) + b"]")) == 500


def test_a_message_shows_no_value_and_only_the_beginning_of_a_name() -> None:
    with pytest.raises(JsonRefused) as caught:
        loads_strict(b'{"%s": "secret", "%s": "secret"}' % (b"k" * 5000, b"k" * 5000))
    assert "secret" not in str(caught.value)
    assert len(str(caught.value)) < 200
