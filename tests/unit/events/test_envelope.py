from typing import Any

import orjson
import pytest

from app.events import MAX_EVENT_BYTES, InvalidEvent, decode_structured, encode_structured, new_event

GOOD = {
    "specversion": "1.0",
    "id": "e-1",
    "source": "/vault/datasets",
    "type": "llm.data-vault.dataset.created",
    "subject": "ds-1",
    "time": "2026-01-02T03:04:05.678Z",
    "datacontenttype": "application/json",
    "dataschema": "https://example.com/schemas/dataset",
    "tenantid": "t-1",
    "sequence": 7,
    "dryrun": False,
    "data": {"dataset_id": "ds-1", "name": "claims"},
}


def decode(**changes: Any) -> Any:
    return decode_structured(orjson.dumps({**GOOD, **changes}))


def refusal(**changes: Any) -> InvalidEvent:
    with pytest.raises(InvalidEvent) as caught:
        decode(**changes)
    return caught.value


def without(name: str) -> bytes:
    return orjson.dumps({key: value for key, value in GOOD.items() if key != name})


def test_every_attribute_is_read_as_it_came() -> None:
    event = decode()
    assert (event.id, event.source, event.type) == ("e-1", "/vault/datasets", "llm.data-vault.dataset.created")
    assert (event.subject, event.time) == ("ds-1", "2026-01-02T03:04:05.678Z")
    assert (event.datacontenttype, event.dataschema) == ("application/json", "https://example.com/schemas/dataset")
    assert event.extensions == {"tenantid": "t-1", "sequence": 7, "dryrun": False}
    assert event.data == {"dataset_id": "ds-1", "name": "claims"}


def test_a_structured_event_is_posted_byte_for_byte_as_it_came() -> None:
    raw = b'{ "type":"t", "source":"/s",\n"id":"1" ,"data": {"b": 1.10, "a":"\\u00e9"},"specversion":"1.0" }'
    assert decode_structured(raw).posted == raw


@pytest.mark.parametrize("name", ["specversion", "id", "source", "type"])
def test_a_missing_required_attribute_is_invalid(name: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        decode_structured(without(name))
    assert caught.value.reason == "invalid_envelope"
    assert caught.value.detail.startswith(name)


@pytest.mark.parametrize("name", ["subject", "time", "datacontenttype", "dataschema", "data"])
def test_an_optional_attribute_may_be_missing_or_null(name: str) -> None:
    assert getattr(decode_structured(without(name)), name) is None
    assert getattr(decode(**{name: None}), name) is None


def test_an_extension_may_be_null_and_is_then_absent() -> None:
    assert "tenantid" not in decode(tenantid=None).extensions


@pytest.mark.parametrize("name", ["id", "source", "type", "subject", "datacontenttype", "dataschema"])
@pytest.mark.parametrize("value", ["", 5, True, ["x"], "with\nnewline", "\u0085", "\ufffe", "\U0001ffff"])
def test_an_attribute_that_is_no_text_is_invalid(name: str, value: Any) -> None:
    error = refusal(**{name: value})
    assert error.reason == "invalid_envelope"
    assert error.detail.startswith(name)


@pytest.mark.parametrize("value", ["0.3", "1", 1.0, "1.1"])
def test_another_specversion_is_invalid(value: Any) -> None:
    assert refusal(specversion=value).detail.startswith("specversion")


@pytest.mark.parametrize("value", ["/vault", "urn:uuid:6e8bc430", "https://a.b/c?d#e", "name", "//host", "a%20b"])
def test_a_source_is_any_uri_reference(value: str) -> None:
    assert decode(source=value).source == value


@pytest.mark.parametrize("value", ["with space", "a%2", "<a>", "späti", "a\\b", "{a}"])
def test_a_source_that_is_no_uri_reference_is_invalid(value: str) -> None:
    assert refusal(source=value).detail.startswith("source")


@pytest.mark.parametrize("value", ["/relative", "no-scheme", "1ab:x"])
def test_a_dataschema_needs_a_scheme(value: str) -> None:
    assert refusal(dataschema=value).detail.startswith("dataschema")


@pytest.mark.parametrize("value", ["yesterday", "2026-01-02", "2026-02-30T00:00:00Z", 1767323045678, ""])
@pytest.mark.parametrize("name", ["time", "expirytime"])
def test_a_malformed_time_is_invalid(name: str, value: Any) -> None:
    assert refusal(**{name: value}).detail.startswith(name)


@pytest.mark.parametrize("name", ["Upper", "under_score", "with-dash", "spåce", "", "a" * 21, "a b"])
def test_an_illegal_attribute_name_is_invalid(name: str) -> None:
    assert refusal(**{name: "x"}).detail.startswith("attribute")


def test_an_extension_name_has_at_most_20_characters() -> None:
    assert decode(**{"a" * 20: "x"}).extensions["a" * 20] == "x"


@pytest.mark.parametrize("value", [1.5, {"a": 1}, [1], 2**31, -(2**31) - 1, "control\x00"])
def test_an_extension_that_is_no_scalar_is_invalid(value: Any) -> None:
    assert refusal(tenantid=value).detail.startswith("tenantid")


@pytest.mark.parametrize("value", [2**31 - 1, -(2**31), 0, True, False, "", "text"])
def test_an_extension_is_a_string_a_boolean_or_a_32_bit_integer(value: Any) -> None:
    found = decode(tenantid=value).extensions["tenantid"]
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize("raw", [b"", b"[]", b"5", b"null", b'"text"', b"{"])
def test_a_value_that_is_no_object_is_invalid(raw: bytes) -> None:
    with pytest.raises(InvalidEvent) as caught:
        decode_structured(raw)
    assert caught.value.reason == "invalid_envelope"


def test_a_duplicate_key_anywhere_is_invalid() -> None:
    raw = orjson.dumps(GOOD)[:-1] + b',"id":"e-2"}'
    with pytest.raises(InvalidEvent, match="duplicate key 'id'"):
        decode_structured(raw)


def test_an_integer_beyond_64_bits_is_invalid() -> None:
    raw = orjson.dumps(GOOD)[:-1] + b',"big":18446744073709551616}'
    with pytest.raises(InvalidEvent, match="64 bits"):
        decode_structured(raw)


def test_data_base64_becomes_bytes() -> None:
    assert decode(data=None, data_base64="AAH/").data == b"\x00\x01\xff"


@pytest.mark.parametrize("value", ["AAH", "AA H/", 5, "ÄÄÄÄ"])
def test_data_base64_that_is_none_is_invalid(value: Any) -> None:
    assert refusal(data=None, data_base64=value).detail.startswith("data_base64")


def test_data_and_data_base64_together_are_invalid() -> None:
    assert refusal(data_base64="AAH/").reason == "invalid_envelope"


def test_256_kib_are_read_and_a_byte_more_is_too_large() -> None:
    frame = orjson.dumps({**GOOD, "data": ""})
    full = orjson.dumps({**GOOD, "data": "x" * (MAX_EVENT_BYTES - len(frame))})
    assert decode_structured(full).posted == full
    with pytest.raises(InvalidEvent) as caught:
        decode_structured(full + b" ")
    assert caught.value.reason == "too_large"


def test_a_detail_has_at_most_1_kib_and_shows_no_value() -> None:
    error = InvalidEvent("invalid_data", "ä" * 2000)
    assert len(error.detail.encode()) <= 1024
    assert "secret" not in refusal(source="my secret").detail
    assert "secret" not in refusal(tenantid={"a": "secret"}).detail


def test_an_event_of_our_own_is_checked_by_the_same_rules() -> None:
    event = new_event(id="1", source="/s", type="t", data={"a": 1}, extensions={"zeta": 1, "alpha": "x"})
    assert decode_structured(event.posted) == event
    assert event.posted == (
        b'{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"application/json",'
        b'"alpha":"x","zeta":1,"data":{"a":1}}'
    )
    with pytest.raises(InvalidEvent):
        new_event(id="", source="/s", type="t")


def test_data_that_is_not_json_cannot_be_encoded() -> None:
    with pytest.raises(TypeError):
        new_event(id="1", source="/s", type="t", data={"a": {1, 2}})


def test_bytes_are_encoded_as_data_base64() -> None:
    event = new_event(id="1", source="/s", type="t", datacontenttype="image/png", data=b"\x89PNG")
    assert orjson.loads(encode_structured(event))["data_base64"] == "iVBORw=="
