"""The reader of answers: the letter of RFC 9112, limits, and h11 as another reading of the same bytes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.webhooks.http.answers import MAX_BODY_BYTES, MAX_HEAD_BYTES, MAX_INTERIM, MAX_RAW_BYTES, AnswerReader
from app.webhooks.http.errors import AnswerTooLarge, HungUp, MalformedAnswer

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@dataclass(frozen=True)
class Read:
    """What became of some bytes: an answer, or the name of what was raised."""

    error: str | None = None
    status: int | None = None
    fields: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    flooded: bool = False


def read(*pieces: bytes, closes: bool = True, reader: AnswerReader | None = None) -> tuple[Read, bool]:
    """Feed the pieces up to the end of the answer, then perhaps close; also whether the connection can go on."""
    reader = reader or AnswerReader()
    try:
        done = any(reader.feed(piece) for piece in pieces if piece)
        if not done and closes:
            reader.end()
    except (MalformedAnswer, AnswerTooLarge, HungUp) as error:
        return Read(type(error).__name__), False
    if reader.answer is None:
        return Read(flooded=reader.flooded), False
    answer = reader.answer
    return Read(None, answer.status, tuple(answer.fields), answer.body), reader.reusable


def status(*pieces: bytes) -> int | None:
    return read(*pieces)[0].status


class TestFraming:
    @pytest.mark.parametrize(
        ("raw", "body", "reusable"),
        [
            (OK + b"Content-Length: 2\r\n\r\nok", b"ok", True),
            (OK + b"Content-Length: 0\r\n\r\n", b"", True),
            (OK + b"CONTENT-LENGTH:2 \t\r\n\r\nok", b"ok", True),
            (OK + b"Content-Length: 2\r\nConnection: close\r\n\r\nok", b"ok", False),
            (OK + b"Content-Length: 2\r\nConnection: a, Close\r\n\r\nok", b"ok", False),
            (OK + b"\r\nuntil it closes", b"until it closes", False),
            (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
            (b"HTTP/1.1 204\r\n\r\n", b"", True),
            (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"", True),
            (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok", False),
            (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", b"ok", True),
            (b"HTTP/1.0 200 OK\r\n\r\nok", b"ok", False),
            (CHUNKED + b"2\r\nok\r\n0\r\n\r\n", b"ok", True),
            (CHUNKED + b'1;a=b;c="d;\\"e"\r\no\r\n01\r\nk\r\n000;last\r\n\r\n', b"ok", True),
            (CHUNKED + b"2\r\nok\r\n0\r\nX-Trailer: 1\r\n\r\n", b"ok", True),
            (CHUNKED + b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", b"0123456789" * 2, True),
            (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok", True),
            (OK + b"Transfer-Encoding: gzip\r\n\r\nok", b"ok", False),
            (OK + b"Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nok", b"ok", True),
        ],
    )
    def test_the_body_ends_where_the_head_says(self, raw: bytes, body: bytes, reusable: bool) -> None:
        answer, again = read(raw)

        assert (answer.error, answer.body, again) == (None, body, reusable)

    @pytest.mark.parametrize(
        "raw",
        [
            OK + b"Content-Length: 3\r\n\r\nok",
            OK + b"Content-Length: 3\r\nConnection: close\r\n\r\nok",
            CHUNKED + b"2\r\nok\r\n",
            CHUNKED + b"2\r\no",
            CHUNKED + b"2\r\nok\r\n0\r\n",
            CHUNKED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + b"2\r\nok\r\n",
            OK + b"Content-Length: 0\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"HTT",
            b"",
        ],
    )
    def test_one_that_breaks_off_is_no_answer(self, raw: bytes) -> None:
        assert read(raw)[0].error == "HungUp"

    @pytest.mark.parametrize("extra", [b"x", b"H", OK + b"Content-Length: 0\r\n\r\n", b"\0" * 100])
    def test_what_follows_unasked_ends_the_connection_and_not_the_answer(self, extra: bytes) -> None:
        assert read(OK + b"Content-Length: 2\r\n\r\nok" + extra) == (
            Read(None, 200, ((b"Content-Length", b"2"),), b"ok"),
            False,
        )

    def test_interim_answers_are_passed_by_and_leave_nothing_behind(self) -> None:
        raw = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nContent-Length: 9\r\n\r\n" * 3
        answer, again = read(b"HTTP/1.1 100 Continue\r\n\r\n" + raw + OK + b"Content-Length: 2\r\n\r\nok")

        assert (answer, again) == (Read(None, 200, ((b"Content-Length", b"2"),), b"ok"), True)

    def test_the_reader_takes_one_answer_after_the_other(self) -> None:
        reader = AnswerReader()
        for number in range(5):
            reader.begin()
            assert reader.feed(OK + b"Content-Length: 1\r\nX-N: %d\r\n\r\n%d" % (number, number))
            assert reader.answer is not None
            assert (reader.answer.body, reader.answer.field("x-n")) == (b"%d" % number, str(number))
            assert reader.reusable

    def test_of_a_head_alone_no_body_is_waited_for(self) -> None:
        reader = AnswerReader()
        reader.begin(head_only=True)

        assert reader.feed(OK + b"Content-Length: 100\r\n\r\n")
        assert not reader.reusable


class TestRefused:
    @pytest.mark.parametrize(
        "raw",
        [
            OK + b"X-A: a\r\n folded\r\nContent-Length: 0\r\n\r\n",
            OK + b"X-A: a\r\n\tfolded\r\nContent-Length: 0\r\n\r\n",
            OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok",
            OK + b"Content-Length: 2, 3\r\n\r\nok",
            OK + b"Content-Length: +2\r\n\r\nok",
            OK + b"Content-Length: -2\r\n\r\nok",
            OK + b"Content-Length: 0x2\r\n\r\nok",
            OK + b"Content-Length: 99999999999999999999999\r\n\r\nok",
            OK + b"Content-Length : 2\r\n\r\nok",
            OK + b" Content-Length: 2\r\n\r\nok",
            OK + b"X A: 2\r\n\r\n",
            OK + b": 2\r\n\r\n",
            OK + b"no colon\r\n\r\n",
            OK + b"X-A: a\0b\r\n\r\n",
            OK + b"X-A: a\nX-B: b\r\n\r\n",
            OK + b"X-A: a\rX-B: b\r\n\r\n",
            b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            b"HTTP/2 200 OK\r\n\r\n",
            b"HTTP/2.0 200 OK\r\n\r\n",
            b"HTTP/0.9 200 OK\r\n\r\n",
            b"HTTP/1.2 200 OK\r\n\r\n",
            b"http/1.1 200 OK\r\n\r\n",
            b"RTSP/1.0 200 OK\r\n\r\n",
            b"ICE/1.0 200 OK\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\nRTSP/1.0 200 OK\r\n\r\n",
            b"HTTP/1.1  200 OK\r\n\r\n",
            b"HTTP/1.1 20 OK\r\n\r\n",
            b"HTTP/1.1 2000 OK\r\n\r\n",
            b"HTTP/1.1 099 OK\r\n\r\n",
            b"HTTP/1.1 abc OK\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
            b"\r\nHTTP/1.1 200 OK\r\n\r\n",
            b"<html>",
            b"\x16\x03\x01",
            CHUNKED + b"2 \r\nok\r\n0\r\n\r\n",
            CHUNKED + b"2\nok\r\n0\r\n\r\n",
            CHUNKED + b"2\r\nok0\r\n\r\n",
            CHUNKED + b"-2\r\nok\r\n0\r\n\r\n",
            CHUNKED + b"0x2\r\nok\r\n0\r\n\r\n",
            CHUNKED + b"\r\nok\r\n0\r\n\r\n",
            CHUNKED + b"fffffffffffffffff\r\nok",
            CHUNKED + b"2\r\nok\r\n0\r\nno colon\r\n\r\n",
            CHUNKED + b"2\r\nok\r\n0\r\nContent-Length: 7\r\n\r\n",
        ],
    )
    def test_what_can_be_read_in_two_ways_or_in_none(self, raw: bytes) -> None:
        assert read(raw)[0].error == "MalformedAnswer"
        assert read(*(raw[at : at + 1] for at in range(len(raw))))[0].error == "MalformedAnswer"


class TestLimits:
    def test_no_more_of_a_body_is_kept_and_the_connection_is_not_used_again(self) -> None:
        long = b"x" * (MAX_BODY_BYTES + 1)
        for raw in (OK + b"Content-Length: 1000000\r\n\r\n" + long, OK + b"\r\n" + long, CHUNKED + b"9999\r\n" + long):
            answer, reusable = read(raw, closes=False)
            assert (answer.status, answer.body, reusable) == (200, long[:-1], False)

    @pytest.mark.parametrize("piece_bytes", [97, 10_000, 10**9])
    @pytest.mark.parametrize(
        ("start", "again"),
        [
            (OK, b"X-A: a\r\n"),
            (OK + b"X-A: ", b"a"),
            (OK + b"X", b"a"),
            (b"HTTP/1.1 200 ", b"a"),
            (CHUNKED + b"2;", b"ext;"),
            (CHUNKED + b"2\r\nok\r\n0\r\n", b"X-A: a\r\n"),
            (CHUNKED + b"2\r\nok\r\n0\r\nX-A: ", b"a"),
        ],
    )
    def test_what_has_no_end_is_not_read_for_ever(self, start: bytes, again: bytes, piece_bytes: int) -> None:
        raw = start + again * (MAX_RAW_BYTES // len(again))

        pieces = (raw[at : at + piece_bytes] for at in range(0, len(raw), piece_bytes))
        assert read(*pieces, closes=False)[0].error == "AnswerTooLarge"

    def test_a_head_of_what_receivers_send_passes(self) -> None:
        head = b"".join(b"X-%04d: %s\r\n" % (at, b"v" * 90) for at in range(MAX_HEAD_BYTES // 110))

        assert status(OK + head + b"Content-Length: 0\r\n\r\n") == 200

    def test_as_many_chunks_as_the_body_has_bytes_pass(self) -> None:
        answer, _ = read(CHUNKED + b"1\r\nx\r\n" * (MAX_BODY_BYTES - 1) + b"0\r\n\r\n")

        assert len(answer.body) == MAX_BODY_BYTES - 1

    def test_a_flood_of_interim_answers_is_read_no_further(self) -> None:
        some = b"HTTP/1.1 100 Continue\r\n\r\n" * MAX_INTERIM
        assert status(some + OK + b"Content-Length: 0\r\n\r\n") == 200
        reader = AnswerReader()
        assert reader.feed(some * 1000)
        assert (reader.flooded, reader.answer) == (True, None)


# -- what hypothesis thinks of

TOKENS = st.text("abcXYZ019-_!#$%&'*+.^`|~", min_size=1, max_size=12).filter(
    lambda name: name.lower() not in {"content-length", "transfer-encoding", "connection", "upgrade"}
)
VALUES = st.text(
    st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=30
).map(lambda text: text.encode("latin-1").strip(b" \t"))  # fmt: skip
FIELDS = st.lists(st.tuples(TOKENS.map(str.encode), VALUES), max_size=6)
BODIES = st.binary(max_size=200) | st.integers(0, 2 * MAX_BODY_BYTES).map(lambda size: b"ab\n" * (size // 3))
EXTENSIONS = st.sampled_from([b"", b";a", b";a=b", b';a="b\\"c;d"', b";x=y;z"])
SPLITS = st.lists(st.integers(0, 400), max_size=8)


def in_pieces(raw: bytes, at: list[int]) -> list[bytes]:
    cuts = [0, *sorted({min(one, len(raw)) for one in at}), len(raw)]
    return [raw[begin:end] for begin, end in pairwise(cuts)]


@st.composite
def chunks(draw: st.DrawFn, body: bytes) -> bytes:
    raw, rest = b"", body
    while rest:
        size = draw(st.integers(1, max(1, min(len(rest), 5000))))
        number = draw(st.sampled_from([b"%x", b"%X", b"00%x"])) % size
        raw += number + draw(EXTENSIONS) + b"\r\n" + rest[:size] + b"\r\n"
        rest = rest[size:]
    trailer = b"".join(
        b"%s: %s\r\n" % one for one in draw(st.lists(st.tuples(TOKENS.map(str.encode), VALUES), max_size=2))
    )
    return raw + b"0" + draw(EXTENSIONS) + b"\r\n" + trailer + b"\r\n"


@st.composite
def valid_answers(draw: st.DrawFn) -> bytes:
    """Bytes of one answer as a receiver may send it, perhaps with interim ones before it."""
    interim = b"".join(
        b"HTTP/1.1 %d Wait\r\nX-I: 1\r\n\r\n" % one
        for one in draw(st.lists(st.sampled_from([100, 102, 103]), max_size=2))
    )
    number = draw(st.integers(200, 599))
    version = b"1.1" if interim else draw(st.sampled_from([b"1.1", b"1.1", b"1.0"]))
    fields, body = draw(FIELDS), draw(BODIES)
    framing = draw(st.sampled_from(["length", "chunked", "close"]))
    if number in {204, 304}:
        body, framing = b"", "none"
    if framing == "chunked" and version == b"1.1":
        fields.insert(
            draw(st.integers(0, len(fields))), (b"Transfer-Encoding", draw(st.sampled_from([b"chunked", b"Chunked"])))
        )
        body = draw(chunks(body))
    elif framing == "length":
        fields.insert(draw(st.integers(0, len(fields))), (b"Content-Length", b"%d" % len(body)))
    if draw(st.booleans()):
        fields.append((b"Connection", draw(st.sampled_from([b"close", b"keep-alive", b"Close, x"]))))
    spaces = draw(st.sampled_from([b" ", b"", b"\t ", b"  "]))
    head = b"HTTP/%s %d %s\r\n" % (version, number, draw(st.sampled_from([b"OK", b"", b"So \xe9 it is"])))
    return interim + head + b"".join(name + b":" + spaces + value + b"\r\n" for name, value in fields) + b"\r\n" + body


def read_by_h11(raw: bytes) -> Read:
    """The same bytes, with the end of the connection after them; what h11 refuses is `RemoteProtocolError`."""
    client = h11.Connection(our_role=h11.CLIENT, max_incomplete_event_size=1 << 20)
    client.send(h11.Request(method="POST", target="/", headers=[("Host", "x"), ("Content-Length", "0")]))
    client.send(h11.EndOfMessage())
    found, body = None, b""
    try:
        client.receive_data(raw)
        closed = not raw
        while True:
            event = client.next_event()
            if event is h11.NEED_DATA and not closed:
                client.receive_data(b"")
                closed = True
            elif isinstance(event, h11.Response):
                found = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
            elif not isinstance(event, h11.InformationalResponse):
                return Read("RemoteProtocolError")
    except h11.RemoteProtocolError:
        return Read("RemoteProtocolError")
    assert found is not None
    fields = tuple((bytes(name).lower(), bytes(value)) for name, value in found.headers)
    return Read(None, found.status_code, fields, body)


def comparable(one: Read) -> Read:
    return Read(one.error, one.status, tuple((name.lower(), value) for name, value in one.fields), one.body)


class TestAgainstAnotherReader:
    @given(valid_answers(), SPLITS)
    def test_every_valid_answer_is_read_as_h11_reads_it_however_it_comes(self, raw: bytes, at: list[int]) -> None:
        answer, _ = read(*in_pieces(raw, at))
        oracle = read_by_h11(raw)

        assert oracle.error is None
        expected = Read(None, oracle.status, oracle.fields, oracle.body[:MAX_BODY_BYTES])
        # h11 writes a coding in lower case.
        lower = {b"transfer-encoding"}
        assert comparable(answer).status == expected.status
        assert comparable(answer).body == expected.body
        assert [(n, v.lower() if n in lower else v) for n, v in comparable(answer).fields] == list(expected.fields)

    @given(valid_answers(), SPLITS, st.data())
    def test_of_a_damaged_one_both_read_the_same_or_one_of_them_nothing(
        self, raw: bytes, at: list[int], data: st.DataObject
    ) -> None:
        place = data.draw(st.integers(0, max(0, min(len(raw) - 1, 400))))
        patch = data.draw(
            st.sampled_from([b"", b"\r", b"\n", b"\r\n", b" ", b"\0", b":", b"0", b"\xff", b"Content-Length: 1\r\n"])
            | st.binary(max_size=4)
        )
        damaged = raw[:place] + patch + raw[place + data.draw(st.integers(0, 3)) :]
        ours, theirs = read(*in_pieces(damaged, at))[0], read_by_h11(damaged)

        if ours.error is None and theirs.error is None:
            assert (ours.status, ours.body) == (theirs.status, theirs.body[:MAX_BODY_BYTES])

    @given(st.binary(max_size=300) | st.binary(max_size=100).map(lambda more: OK + more) | valid_answers(), SPLITS)
    @example(OK + b"Content-Length: 0\r\n\r\nHTTP/1.1 2", [])
    def test_whatever_comes_is_read_alike_in_one_piece_and_in_many(self, raw: bytes, at: list[int]) -> None:
        whole, _ = read(raw)
        pieces, _ = read(*in_pieces(raw, at))
        by_byte, _ = read(*(raw[at : at + 1] for at in range(len(raw))))

        assert whole == pieces == by_byte

    @given(valid_answers(), st.binary(min_size=1, max_size=20))
    def test_a_connection_with_something_unread_is_never_used_again(self, raw: bytes, extra: bytes) -> None:
        complete, reusable = read(raw, closes=False)
        _, again = read(raw + extra, closes=False)

        if reusable and complete.error is None and extra.strip(b"\r\n"):
            assert not again


class TestAnswerAfterAnswer:
    @given(valid_answers(), valid_answers(), st.lists(st.tuples(st.booleans(), st.just([]) | SPLITS), max_size=5))
    def test_each_is_read_as_if_it_were_the_first(
        self, one: bytes, other: bytes, asked: list[tuple[bool, list[int]]]
    ) -> None:
        reader = AnswerReader()
        for again, at in asked:
            pieces = in_pieces(one if again else other, at)
            reader.begin()
            answer, reusable = read(*pieces, closes=False, reader=reader)

            assert (answer, reusable) == read(*pieces, closes=False)
            if not reusable:
                break

    def test_what_was_read_before_is_not_taken_for_an_answer_without_a_body(self) -> None:
        reader = AnswerReader()
        raw = OK + b"Content-Length: 2\r\n\r\nok"
        assert read(raw, reader=reader) == (Read(None, 200, ((b"Content-Length", b"2"),), b"ok"), True)
        reader.begin(head_only=True)

        assert read(raw, reader=reader) == (Read(None, 200, ((b"Content-Length", b"2"),), b""), False)
