"""Whatever the event, it comes back as it went; whatever the bytes, the answer is an event or `InvalidEvent`."""

import json
import math
from base64 import b32encode
from hashlib import blake2b
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.events import (
    CloudEvent,
    InvalidEvent,
    JsonRefused,
    canonical_json,
    decode_payload,
    decode_record,
    delivery_id,
    encode_binary,
    encode_structured,
    extension_text,
    format_time,
    loads_strict,
    murmur2,
    parse_time_ms,
    record_key,
)
from app.events.envelope import clean_text
from app.events.kafka_binding import STRUCTURED_HEADERS

text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).filter(lambda value: clean_text(value) == value)
sources = st.from_regex(r"[a-z]{1,8}:[A-Za-z0-9./_~-]{0,30}|/[A-Za-z0-9./_~-]{0,30}", fullmatch=True)
times = st.integers(-(10**12), 10**13).map(format_time)
integers = st.integers(-(2**63), 2**64 - 1)
scalars = st.none() | st.booleans() | integers | st.floats(allow_nan=False, allow_infinity=False) | text
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=20,
)
RESERVED = {"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data"}
names = st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True).filter(lambda name: name not in RESERVED | {"expirytime"})
extensions = st.dictionaries(names, text | st.booleans() | st.integers(-(2**31), 2**31 - 1), max_size=5)


@st.composite
def events(draw: st.DrawFn) -> CloudEvent:
    media_type, data = draw(
        st.tuples(st.sampled_from([None, "application/json", "application/vnd.vault+json"]), values)
        | st.tuples(st.sampled_from(["image/png", "application/octet-stream"]), st.binary(min_size=1, max_size=100))
    )
    return CloudEvent(
        id=draw(text),
        source=draw(sources),
        type=draw(text),
        subject=draw(st.none() | text),
        time=draw(st.none() | times),
        datacontenttype=media_type,
        dataschema=draw(st.none() | st.just("https://example.com/schema")),
        data=data,
        extensions=draw(extensions),
        posted=b"",
    )


def fields(event: CloudEvent) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__struct_fields__ if name != "posted"}


@given(events())
def test_a_structured_event_comes_back_as_it_went(event: CloudEvent) -> None:
    value = encode_structured(event)
    back = decode_record(value, STRUCTURED_HEADERS)
    assert fields(back) == fields(event)
    assert back.posted == value
    assert record_key(back) == record_key(event)


@given(events())
def test_a_binary_event_comes_back_as_it_went_with_its_extensions_as_text(event: CloudEvent) -> None:
    headers, value = encode_binary(event)
    back = decode_record(value, headers)
    expected = fields(event) | {
        "datacontenttype": event.datacontenttype or "application/json",
        "extensions": {name: extension_text(found) for name, found in event.extensions.items()},
    }
    assert fields(back) == expected


@given(events())
def test_what_is_posted_of_a_binary_event_is_the_same_event(event: CloudEvent) -> None:
    headers, value = encode_binary(event)
    back = decode_record(value, headers)
    assert fields(decode_record(back.posted, STRUCTURED_HEADERS)) == fields(back)


def survives(value: bytes | None, headers: list[tuple[str, bytes]]) -> None:
    detail = "none"
    try:
        decode_payload(decode_record(value, headers))
    except InvalidEvent as error:
        detail = error.detail
    assert 0 < len(detail.encode()) <= 1024


header_names = st.sampled_from(["content-type", "ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_x"])
header_values = st.sampled_from([b"1.0", b"application/json", b"application/cloudevents+json", b"/s"]) | st.binary()
headers = st.lists(st.tuples(header_names | st.text(max_size=8), header_values), max_size=8)


@settings(max_examples=300)
@given(st.none() | st.binary(max_size=200), headers)
def test_no_byte_string_crashes_the_decoder(value: bytes | None, found: list[tuple[str, bytes]]) -> None:
    survives(value, found)


@settings(max_examples=300)
@given(events(), st.data())
def test_no_damaged_event_crashes_the_decoder(event: CloudEvent, data: st.DataObject) -> None:
    raw = bytearray(encode_structured(event))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    survives(bytes(raw), [])


tokens = st.sampled_from(
    ["{", "}", "[", "]", ":", ",", " ", "\n", '"a"', '"a"', '"b"', '"\\""', '":"', "1", "9" * 19, "9" * 21, "null"]
)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("duplicate")
    return dict(pairs)


def _integer(digits: str) -> int:
    if not -(2**63) <= int(digits) < 2**64:
        raise ValueError("overflow")
    return int(digits)


@settings(max_examples=500)
@given(
    st.lists(tokens, max_size=30).map("".join)
    | st.lists(st.tuples(tokens, tokens), max_size=6).map(lambda m: "{" + ",".join(f"{k}:{v}" for k, v in m) + "}")
    | st.lists(st.tuples(tokens, tokens), max_size=6).map(lambda m: "{" + ",".join(f"{k} :{v}" for k, v in m) + "}")
)
def test_the_fast_parser_agrees_with_a_slow_exact_one(document: str) -> None:
    try:
        expected = json.loads(document, object_pairs_hook=_pairs, parse_int=_integer)
    except ValueError:
        with pytest.raises(JsonRefused):
            loads_strict(document.encode())
    else:
        assert loads_strict(document.encode()) == expected


@given(values)
def test_canonical_json_is_the_same_value_in_one_form(value: Any) -> None:
    written = canonical_json(value)
    assert json.loads(written, parse_int=float) == json.loads(json.dumps(value), parse_int=float)
    assert canonical_json(json.loads(written)) == written
    assert canonical_json(orjson.loads(orjson.dumps(value))) == written


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_canonical_number_is_the_shortest_that_reads_back(number: float) -> None:
    written = canonical_json(number).decode()
    assert float(written) == number
    significant = written.lstrip("-").partition("e")[0].replace(".", "").strip("0")
    shortest = repr(abs(number)).partition("e")[0].replace(".", "").strip("0")
    assert significant == shortest
    assert math.copysign(1, float(written)) == math.copysign(1, number) or number == 0


@given(st.integers(-62135596800000, 253402300799999))
def test_a_time_comes_back_to_the_millisecond(time_ms: int) -> None:
    assert parse_time_ms(format_time(time_ms)) == time_ms


@given(text, sources, text)
def test_a_delivery_id_has_30_characters_of_a_closed_alphabet(webhook_id: str, source: str, event_id: str) -> None:
    found = delivery_id(webhook_id, source, event_id)
    assert len(found) == 30
    assert set(found.removeprefix("dlv_")) <= set("abcdefghijklmnopqrstuvwxyz234567")


@given(text, sources, text)
def test_a_delivery_id_is_the_hash_of_its_webhook_and_a_digest_in_base32(
    webhook_id: str, source: str, event_id: str
) -> None:
    digest = blake2b(f"{source}\0{event_id}\0{webhook_id}".encode(), digest_size=12).digest()
    encoded = b32encode(murmur2(webhook_id.encode()).to_bytes(4, "big") + digest)
    assert delivery_id(webhook_id, source, event_id) == f"dlv_{encoded.decode().rstrip('=').lower()}"
