import orjson
import pytest

from app.events import MAX_EVENT_BYTES, InvalidEvent, decode_record, encode_binary, new_event

ENVELOPE = {"specversion": "1.0", "id": "e-1", "source": "/s", "type": "t"}
STRUCTURED = orjson.dumps({**ENVELOPE, "data": {"a": 1}})
CE = [("ce_specversion", b"1.0"), ("ce_id", b"e-1"), ("ce_source", b"/s"), ("ce_type", b"t")]
JSON = ("content-type", b"application/json")


def refusal(value: bytes | None, headers: list[tuple[str, bytes]]) -> InvalidEvent:
    with pytest.raises(InvalidEvent) as caught:
        decode_record(value, headers)
    return caught.value


@pytest.mark.parametrize(
    "content_type",
    [b"application/cloudevents+json", b"application/cloudevents+json; charset=utf-8", b"Application/CloudEvents+JSON"],
)
def test_the_content_type_of_cloudevents_means_structured(content_type: bytes) -> None:
    event = decode_record(STRUCTURED, [("content-type", content_type)])
    assert event.data == {"a": 1}
    assert event.posted == STRUCTURED


def test_no_content_type_and_an_object_with_specversion_is_structured() -> None:
    assert decode_record(STRUCTURED, []).posted == STRUCTURED
    assert decode_record(STRUCTURED, [("trace", b"x")]).posted == STRUCTURED


def test_the_content_type_decides_and_not_the_presence_of_ce_headers() -> None:
    event = decode_record(STRUCTURED, [("content-type", b"application/cloudevents+json"), ("ce_id", b"other")])
    assert event.id == "e-1"
    assert decode_record(STRUCTURED, [("ce_id", b"other")]).id == "e-1"


def test_another_content_type_means_binary_even_around_a_structured_event() -> None:
    event = decode_record(STRUCTURED, [*CE, JSON])
    assert event.data["specversion"] == "1.0"
    assert refusal(STRUCTURED, [JSON]).reason == "invalid_envelope"


def test_ce_headers_without_a_content_type_are_binary_json() -> None:
    event = decode_record(b'{"a": 1}', CE)
    assert event.datacontenttype is None
    assert event.data == {"a": 1}


@pytest.mark.parametrize("content_type", [b"application/cloudevents-batch+json", b"application/cloudevents+avro"])
def test_a_structured_format_that_is_not_json_is_invalid(content_type: bytes) -> None:
    assert refusal(STRUCTURED, [("content-type", content_type)]).reason == "invalid_envelope"


def test_a_binary_event_is_rebuilt_with_its_data_as_it_came() -> None:
    headers = [
        *CE,
        JSON,
        ("ce_subject", b"ds-1"),
        ("ce_time", b"2026-01-02T03:04:05Z"),
        ("ce_dataschema", b"https://example.com/s"),
        ("ce_zeta", b"1"),
        ("ce_alpha", "ä".encode()),
        ("other", b"kept out"),
    ]
    event = decode_record(b'{ "b" : 1.10 }', headers)
    assert event.posted.decode() == (
        '{"specversion":"1.0","id":"e-1","source":"/s","type":"t","subject":"ds-1","time":"2026-01-02T03:04:05Z",'
        '"datacontenttype":"application/json","dataschema":"https://example.com/s","alpha":"ä","zeta":"1",'
        '"data":{ "b" : 1.10 }}'
    )
    assert event.extensions == {"alpha": "ä", "zeta": "1"}


@pytest.mark.parametrize(
    "media_type", [b"text/json", b"application/vnd.vault+json", b"APPLICATION/JSON; charset=utf-8"]
)
def test_every_json_media_type_is_json(media_type: bytes) -> None:
    assert decode_record(b"[1]", [*CE, ("content-type", media_type)]).data == [1]


@pytest.mark.parametrize("media_type", [b"text/plain", b"application/octet-stream", b"application/jsonish"])
def test_data_of_another_media_type_is_bytes_and_posted_as_base64(media_type: bytes) -> None:
    headers = [*CE, ("content-type", media_type)]
    event = decode_record(b"\x00\x01\xff", headers)
    assert event.data == b"\x00\x01\xff"
    assert event.posted.endswith(b',"data_base64":"AAH/"}')


@pytest.mark.parametrize("value", [None, b""])
def test_a_binary_record_without_a_value_has_no_data(value: bytes | None) -> None:
    event = decode_record(value, [*CE, JSON])
    assert event.data is None
    assert b'"data"' not in event.posted


@pytest.mark.parametrize("headers", [[], [("content-type", b"application/cloudevents+json")]])
def test_a_structured_record_without_a_value_is_invalid(headers: list[tuple[str, bytes]]) -> None:
    assert refusal(None, headers).reason == "invalid_envelope"
    assert refusal(b"", headers).reason == "invalid_envelope"


@pytest.mark.parametrize("value", [b"{", b'{"a": 1, "a": 2}', b"NaN", b"18446744073709551616", b"[" * 64 + b"]" * 64])
def test_binary_data_that_is_not_strict_json_is_invalid_data(value: bytes) -> None:
    assert refusal(value, [*CE, JSON]).reason == "invalid_data"


def test_the_structured_form_of_the_deepest_binary_event_can_be_read_again() -> None:
    event = decode_record(b"[" * 63 + b"]" * 63, [*CE, JSON])
    assert decode_record(event.posted, []).data == event.data


@pytest.mark.parametrize("missing", [name for name, _ in CE])
def test_a_missing_header_is_invalid(missing: str) -> None:
    headers = [JSON, *(header for header in CE if header[0] != missing)]
    error = refusal(b"{}", headers)
    assert error.reason == "invalid_envelope"
    assert missing.removeprefix("ce_") in error.detail


@pytest.mark.parametrize(
    "header",
    [
        ("ce_id", b"e-2"),
        ("ce_Tenant", b"x"),
        ("CE_with-dash", b"x"),
        ("ce_", b"x"),
        ("ce_data", b"x"),
        ("ce_datacontenttype", b"text/plain"),
        ("ce_tenantid", b"\xff"),
        ("ce_time", b"yesterday"),
        ("content-type", b"text/plain"),
    ],
)
def test_a_header_that_breaks_the_rules_is_invalid(header: tuple[str, bytes]) -> None:
    assert refusal(b"{}", [*CE, JSON, header]).reason == "invalid_envelope"


def test_a_record_beyond_256_kib_is_too_large_in_either_mode() -> None:
    value = b'"' + b"x" * MAX_EVENT_BYTES + b'"'
    assert refusal(value, []).reason == "too_large"
    assert refusal(value, [*CE, JSON]).reason == "too_large"


def test_a_binary_record_whose_structured_form_is_beyond_256_kib_is_too_large() -> None:
    headers = [*CE, ("content-type", b"application/octet-stream")]
    assert refusal(b"x" * (MAX_EVENT_BYTES * 4 // 5), headers).reason == "too_large"


def test_an_event_is_encoded_as_headers_and_data() -> None:
    event = new_event(id="e-1", source="/s", type="t", subject="x", data={"a": 1}, extensions={"flag": True, "n": 7})
    headers, value = encode_binary(event)
    assert sorted(headers) == sorted([*CE, JSON, ("ce_subject", b"x"), ("ce_flag", b"true"), ("ce_n", b"7")])
    assert value == b'{"a":1}'


def test_text_of_another_media_type_is_its_utf_8() -> None:
    event = new_event(id="e-1", source="/s", type="t", datacontenttype="text/plain", data="grüße")
    assert encode_binary(event)[1] == "grüße".encode()


def test_without_a_media_type_the_header_says_what_the_data_is() -> None:
    assert ("content-type", b"application/octet-stream") in encode_binary(
        new_event(id="e-1", source="/s", type="t", datacontenttype=None, data=b"\x00")
    )[0]
    assert JSON in encode_binary(new_event(id="e-1", source="/s", type="t", datacontenttype=None, data={}))[0]
