"""Reading an answer (RFC 9112) as its bytes come, in whatever pieces.

The grammar is llhttp's, by httptools, in its strict mode: it refuses a line that ends without CR, a field that goes on
in a second line, a space before a colon, Content-Length beside Transfer-Encoding or twice, and a size that is no
number. What it leaves open is here: how much is read, and which messages are an answer to us.
"""

from __future__ import annotations

from typing import Final

import httptools
import msgspec

from app.webhooks.http.errors import AnswerTooLarge, HungUp, MalformedAnswer

__all__ = ["MAX_BODY_BYTES", "MAX_HEAD_BYTES", "MAX_INTERIM", "MAX_RAW_BYTES", "Answer", "AnswerReader"]

MAX_BODY_BYTES: Final = 16 * 1024
MAX_HEAD_BYTES: Final = 32 * 1024
# All of an answer: as many bytes of body one a chunk are 96 KiB.
MAX_RAW_BYTES: Final = 160 * 1024
MAX_INTERIM: Final = 32
# So that what comes in one piece is judged as if it came in many.
_PIECE_BYTES: Final = 16 * 1024
# An answer of no more than that is remembered, the last one of each connection.
_SMALL_BYTES: Final = 1024

_START: Final = b"HTTP/1."
_OLD: Final = "1.0"
_VERSIONS: Final = frozenset({_OLD, "1.1"})
_SWITCHING: Final = 101
_FIRST_FINAL: Final = 200
_LENGTH: Final = b"content-length"
_CODING: Final = b"transfer-encoding"
_CHUNKED: Final = b"chunked"

Fields = list[tuple[bytes, bytes]]


class Answer(msgspec.Struct, frozen=True, gc=False):
    """An answer, as far as it was read.

    Attributes:
        status: From 200.
        fields: Names and values of its header, in their order.
        body: Its first 16 KiB at most, as they came: nothing is unpacked.
    """

    status: int
    fields: Fields
    body: bytes

    def field(self, name: str) -> str | None:
        """The value of the first header field of this name; None without one."""
        wanted = name.lower().encode()
        return next((value.decode("latin-1") for one, value in self.fields if one.lower() == wanted), None)


class AnswerReader:
    """Reads the answers of one connection, one after the other.

    Attributes:
        answer: The answer, once all of it that is wanted has come.
        reusable: Whether the connection can carry another exchange; only with an answer.
        flooded: Whether more interim answers (1xx) came than anybody sends; nothing is read any more then.
    """

    __slots__ = (
        "_body", "_fields", "_head_bytes", "_head_only", "_in_body", "_interim", "_last", "_last_data", "_parser",
        "_raw_bytes", "_start", "_status", "answer", "flooded", "reusable",
    )  # fmt: skip

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        # A receiver says the same again and again, and the same bytes mean the same.
        self._last: Answer | None = None
        self._last_data: bytes | None = None
        self.begin()

    def begin(self, *, head_only: bool = False) -> None:
        """The next answer is awaited.

        Args:
            head_only: Its body is not wanted, or it has none though it says so (an answer to CONNECT).
        """
        self._head_only = head_only
        self._in_body = False
        self._fields: Fields = []
        self._body = b""
        self._status = 0
        self._start = b""
        self._raw_bytes = self._head_bytes = self._interim = 0
        self.answer: Answer | None = None
        self.reusable = False
        self.flooded = False

    def feed(self, data: bytes) -> bool:
        """More has come.

        Returns:
            Whether there is nothing more to read: the answer is there, or `flooded`.

        Raises:
            MalformedAnswer: It is no HTTP.
            AnswerTooLarge: It has no end in sight.
        """
        at_once = not self._raw_bytes and not self._head_only
        if at_once and data == self._last_data:
            self.answer = self._last
            self.reusable = True
            return True
        if self._start != _START:
            self._check_start(data)
        if len(data) <= _PIECE_BYTES:
            done = self._feed(data)
            if at_once and self.reusable and len(data) <= _SMALL_BYTES:
                self._last, self._last_data = self.answer, data
            return done
        return any(self._feed(data[at : at + _PIECE_BYTES]) for at in range(0, len(data), _PIECE_BYTES))

    def end(self) -> Answer:
        """The connection was closed, which ends an answer of unknown length.

        Raises:
            HungUp: The answer says that there is more.
        """
        if self.answer is not None:
            return self.answer
        if not self._in_body or self._says_its_length():
            raise HungUp("closed before the end of the answer")
        return self._finish(reusable=False)

    def close(self) -> None:
        """The connection is gone; the parser and this reader hold each other."""
        del self._parser

    def _check_start(self, data: bytes) -> None:
        # The parser takes RTSP and ICE, and line breaks before the first line, too.
        self._start = (self._start + data)[: len(_START)]
        if not _START.startswith(self._start):
            raise MalformedAnswer("not HTTP/1.x")

    def _feed(self, data: bytes) -> bool:
        self._raw_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self.answer is None:
                raise MalformedAnswer("not as RFC 9112 has it") from error
            self.reusable = False
        if self.answer is not None or self.flooded:
            return True
        if self._raw_bytes > MAX_RAW_BYTES or (not self._in_body and self._raw_bytes > self._head_bytes):
            raise AnswerTooLarge("longer than is read of it")
        return False

    # -- called by the parser

    def on_message_begin(self) -> None:
        """The first byte of a message."""
        # Whatever follows an answer unasked must not be taken for the next one.
        self.reusable = False
        self._head_bytes = self._raw_bytes + MAX_HEAD_BYTES

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the header, or of the trailer."""
        if not self._in_body:
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """The end of the header."""
        if self.answer is not None:
            return
        parser = self._parser
        status, version = parser.get_status_code(), parser.get_http_version()
        if version not in _VERSIONS or (version == _OLD and (self._interim or self._has(_CODING))):
            raise MalformedAnswer("a version or framing that is not for us")
        self._status = status
        if status >= _FIRST_FINAL:
            self._in_body = True
            if self._head_only:
                self._finish(reusable=False)
        elif status == _SWITCHING or status < 100:  # noqa: PLR2004 - the first status that there is
            raise MalformedAnswer("a status that is not for us")

    def on_body(self, body: bytes) -> None:
        """A piece of the body, its framing removed."""
        if self.answer is None:
            self._body += body
            if len(self._body) >= MAX_BODY_BYTES:
                self._body = self._body[:MAX_BODY_BYTES]
                self._finish(reusable=False)
        else:
            self.reusable = False

    def on_message_complete(self) -> None:
        """The end of a message."""
        if self._in_body:
            if self.answer is None:
                self._finish(reusable=self._parser.should_keep_alive())
            return
        self._interim += 1
        self._fields = []
        self.flooded = self._interim > MAX_INTERIM

    def _finish(self, *, reusable: bool) -> Answer:
        self.reusable = reusable
        self.answer = Answer(self._status, self._fields, self._body)
        return self.answer

    def _has(self, name: bytes) -> bool:
        return any(one.lower() == name for one, _ in self._fields)

    def _says_its_length(self) -> bool:
        codings = [value for name, value in self._fields if name.lower() == _CODING]
        if codings:
            return codings[-1].rpartition(b",")[2].strip().lower() == _CHUNKED
        return self._has(_LENGTH)
