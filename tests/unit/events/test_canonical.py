import struct
from decimal import Decimal
from typing import Any

import pytest

from app.events import VaultEventType, canonical_json

# RFC 8785, appendix B: IEEE 754 bits and the JSON text of the number.
APPENDIX_B = [
    ("0000000000000000", "0"),
    ("8000000000000000", "0"),
    ("0000000000000001", "5e-324"),
    ("8000000000000001", "-5e-324"),
    ("7fefffffffffffff", "1.7976931348623157e+308"),
    ("ffefffffffffffff", "-1.7976931348623157e+308"),
    ("4340000000000000", "9007199254740992"),
    ("c340000000000000", "-9007199254740992"),
    ("4430000000000000", "295147905179352830000"),
    ("44b52d02c7e14af5", "9.999999999999997e+22"),
    ("44b52d02c7e14af6", "1e+23"),
    ("44b52d02c7e14af7", "1.0000000000000001e+23"),
    ("444b1ae4d6e2ef4e", "999999999999999700000"),
    ("444b1ae4d6e2ef4f", "999999999999999900000"),
    ("444b1ae4d6e2ef50", "1e+21"),
    ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
    ("3eb0c6f7a0b5ed8d", "0.000001"),
    ("41b3de4355555553", "333333333.3333332"),
    ("41b3de4355555554", "333333333.33333325"),
    ("41b3de4355555555", "333333333.3333333"),
    ("41b3de4355555556", "333333333.3333334"),
    ("41b3de4355555557", "333333333.33333343"),
    ("becbf647612f3696", "-0.0000033333333333333333"),
    ("43143ff3c1cb0959", "1424953923781206.2"),
]


@pytest.mark.parametrize(("bits", "text"), APPENDIX_B)
def test_numbers_are_written_as_in_appendix_b_of_rfc_8785(bits: str, text: str) -> None:
    (number,) = struct.unpack(">d", bytes.fromhex(bits))
    assert canonical_json(number) == text.encode()


def test_the_example_of_rfc_8785_section_3_2_2() -> None:
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/",
        "literals": [None, True, False],
    }
    expected = (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    assert canonical_json(value) == expected.encode()


def test_keys_are_sorted_by_utf_16_units_as_in_section_3_2_3() -> None:
    value = {
        "\u20ac": "Euro Sign",
        "\r": "Carriage Return",
        "\ufb33": "Hebrew Letter Dalet With Dagesh",
        "1": "One",
        "\U0001f600": "Emoji: Grinning Face",
        "\u0080": "Control",
        "\u00f6": "Latin Small Letter O With Diaeresis",
    }
    written = canonical_json(value).decode()
    order = ["Carriage Return", "One", "Control", "Latin", "Euro Sign", "Emoji", "Hebrew"]
    places = [written.index(name) for name in order]
    assert places == sorted(places)


@pytest.mark.parametrize("number", [2**53 + 1, 2**64 - 1, 2**64, -(2**63) - 1, 10**40])
def test_integers_keep_all_their_digits(number: int) -> None:
    assert canonical_json({"n": number}) == b'{"n":%d}' % number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({}, b"{}"),
        ([], b"[]"),
        ([{}, []], b"[{},[]]"),
        ([1.0, []], b"[1,[]]"),
        ({"b": 1.5, "a": {}}, b'{"a":{},"b":1.5}'),
        ((1, 2), b"[1,2]"),
        (VaultEventType.DATASET_CREATED, b'"llm.data-vault.dataset.created"'),
        ([True, 1.5], b"[true,1.5]"),
    ],
)
def test_small_values(value: Any, text: bytes) -> None:
    assert canonical_json(value) == text


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_of_json_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON"):
        canonical_json([number])


@pytest.mark.parametrize("value", [{1: 2}, {"a": Decimal(1)}, [b"bytes"], {"set"}])
def test_what_is_not_json_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="JSON"):
        canonical_json(value)


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogate"):
        canonical_json([1.5, "\ud800"])
    with pytest.raises(ValueError, match="surrogate"):
        canonical_json(["\ud800"])
