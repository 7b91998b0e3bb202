import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.integrations.redaction import REDACTED, may_hold_secrets, redact, redact_text


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "token",
        "secret",
        "api_key",
        "authorization",
        "credit_card",
        "ssn",
        "Password",
        "DB_PASSWORD",
        "apiKey",
        "x-api-key",
        "client_secret",
        "accessToken",
        "refresh.token",
        "Authorization",
        "creditCard",
        "customer_ssn",
    ],
)
def test_a_value_under_the_name_of_a_secret_is_replaced_in_any_spelling(key: str) -> None:
    assert redact({key: "s3cr3t"}) == {key: REDACTED}
    assert redact({key: {"nested": ["s3cr3t"]}}) == {key: REDACTED}
    assert may_hold_secrets({key: "s3cr3t"})
    assert may_hold_secrets({"deep": [{key: "s3cr3t"}]})
    assert may_hold_secrets({"deep": {key: "s3cr3t"}})
    assert may_hold_secrets({key: "}{["})


def test_secrets_are_found_at_any_depth() -> None:
    assert redact({"a": [{"b": {"password": "x", "c": 1}}]}) == {"a": [{"b": {"password": REDACTED, "c": 1}}]}


@pytest.mark.parametrize("key", ["max_tokens", "token_count"])
def test_a_number_under_a_name_that_contains_token_is_a_count_and_stays(key: str) -> None:
    assert redact({key: 42}) == {key: 42}
    assert redact({key: "abc"}) == {key: REDACTED}


def test_a_number_under_the_name_of_a_secret_is_replaced() -> None:
    assert redact({"ssn": 123456789, "token": 1}) == {"ssn": REDACTED, "token": REDACTED}


@pytest.mark.parametrize("key", ["name", "classname", "keyword", "passenger", "assn", "record_count"])
def test_other_names_keep_their_values(key: str) -> None:
    assert redact({key: "value"}) == {key: "value"}


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("write to alice.b+x@example.co.uk today", "write to [redacted:email] today"),
        ("ssn 123-45-6789.", "ssn [redacted:ssn]."),
        ("card 4111 1111 1111 1111!", "card [redacted:card]!"),
        ("card 4111111111111111", "card [redacted:card]"),
        ("amex 3782-822463-10005", "amex [redacted:card]"),
        ("call +49 170 1234567 now", "call [redacted:phone] now"),
        ("call (555) 123-4567 or 555.123.4567", "call [redacted:phone] or [redacted:phone]"),
    ],
)
def test_personal_data_in_a_text_is_replaced_by_its_form(text: str, clean: str) -> None:
    assert redact_text(text) == clean
    assert redact({"note": [text]}) == {"note": [clean]}
    assert may_hold_secrets({"note": text})
    assert may_hold_secrets({"deep": [{"note": text}]})
    assert may_hold_secrets({text: 1})
    assert may_hold_secrets(text)


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31T23:59:59.123+02:00",
        "0f8fad5b-d9cb-469f-a165-70867728950e",
        "4111 1111 1111 1112",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "1750000000000",
        "v1.2.3",
        "",
    ],
)
def test_times_ids_hashes_and_numbers_without_a_check_digit_stay(text: str) -> None:
    assert redact_text(text) == text


def test_personal_data_in_a_key_is_replaced_and_no_entry_is_lost() -> None:
    assert redact({"a@example.com": 1, "b@example.com": 2}) == {"[redacted:email]": 1, "[redacted:email]'": 2}


def test_the_argument_is_left_as_it_is() -> None:
    data = {"password": "x", "list": ["a@example.com"]}
    redact(data)
    assert data == {"password": "x", "list": ["a@example.com"]}


def test_an_ordinary_event_is_not_suspected() -> None:
    data = {
        "dataset_id": "ds-1",
        "job_id": "7d444840-9dc0-11d1-b245-5ffdce74fad2",
        "at": "2026-01-31T23:59:59.123456789Z",
        "record_count": 500,
        "keyword": "x",
    }
    assert not may_hold_secrets(data)
    assert not may_hold_secrets({**data, "tags": [{"key": "team", "value": "a"}]})


_texts = st.text() | st.sampled_from(
    ["+1 (555) 123 4567", "123 45-6789", "4111-1111-1111-1111", "a@b.c", "pass-word", "API KEY", "to ken", "\u212a"]
)
_documents = st.recursive(
    _texts | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=8,
)


@given(_documents)
@example({"to\u212aen": "x"})
@example({"api:key": "x"})
@example("(555)123.4567")
def test_what_would_be_redacted_is_always_suspected(document: object) -> None:
    try:
        orjson.dumps(document)
    except orjson.JSONEncodeError:
        return
    if redact(document) != document:
        assert may_hold_secrets(document)
