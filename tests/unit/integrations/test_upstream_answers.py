"""What counts as JSON in an answer, and what is Malformed."""

from __future__ import annotations

import pytest

from app.integrations.upstream import Answer, Malformed

BODY = b'{"id":"x"}'


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON; charset=UTF-8",
        'application/json;charset="utf-8"',
        "application/problem+json",
    ],
)
def test_a_body_that_says_that_it_is_json_is_read(content_type: str) -> None:
    assert Answer(200, BODY, content_type=content_type).object() == {"id": "x"}


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/html",
        "text/plain",
        "application/jsonp",
        "application/json; charset=utf-16",
        "application/octet-stream",
    ],
)
def test_a_body_that_does_not_say_so_is_malformed_even_if_it_is_json(content_type: str) -> None:
    with pytest.raises(Malformed, match="Content-Type"):
        Answer(200, BODY, content_type=content_type).json()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"<html>",
        b'{"allowed":false,"allowed":true}',
        b'{"ttl_s":NaN}',
        b'{"ttl_s":Infinity}',
        b'{"ttl_s":18446744073709551616}',
        b'{"ttl_s":1e999}',
        b'{"a":"\xff"}',
        b'{"a":1}{"a":2}',
        b"[" * 65 + b"]" * 65,
    ],
)
def test_what_two_parsers_could_read_in_two_ways_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed, match="one way"):
        Answer(200, body).json()


def test_a_cut_body_is_malformed_even_if_what_is_there_is_json() -> None:
    with pytest.raises(Malformed, match="too large, or broke off"):
        Answer(200, BODY, complete=False).json()


def test_a_compressed_body_is_malformed_as_none_was_asked_for() -> None:
    with pytest.raises(Malformed, match="compressed"):
        Answer(200, BODY, content_encoding="gzip").json()
    assert Answer(200, BODY, content_encoding="identity").json() == {"id": "x"}


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"null", b"true", b"1"])
def test_another_value_is_no_object(body: bytes) -> None:
    with pytest.raises(Malformed, match="not a JSON object") as caught:
        Answer(201, body).object()
    assert caught.value.status == 201


def test_neither_an_answer_nor_what_is_said_of_it_shows_its_body() -> None:
    answer = Answer(200, b'{"principal":"jane@example.com"')
    with pytest.raises(Malformed) as caught:
        answer.json()
    assert "jane" not in f"{answer!r}{caught.value}"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
