"""The ways in which a stand-in can be told to misbehave."""

import asyncio
import gzip
import json
from dataclasses import dataclass
from typing import Final, Literal, Self

import msgspec
from aiohttp import web

BodyKind = Literal["error", "malformed", "mistyped", "oversized", "dripping", "compressed", "redirect"]

OVERSIZED_BYTES: Final = 5 * 1024 * 1024
"""More than any client of ours reads of an answer."""
DRIP_GAP_S: Final = 0.05
_CHUNK: Final = b" " * 65_536


@dataclass(frozen=True, slots=True)
class Fault:
    """How to misbehave.

    Attributes:
        status: Answer with it.
        times: So many requests, then behave; None: until told otherwise.
        retry_after_s: In a Retry-After header.
        delay_s: Wait before the answer.
        drop: Close the connection instead of an answer.
        accept: Do what was asked for first, and misbehave after that.
        body: What the answer has in it. `error`: a JSON object that says so; `malformed`: JSON that breaks off;
            `mistyped`: a web page; `oversized`: 5 MiB of JSON; `dripping`: JSON, a byte at a time, without an end;
            `compressed`: gzip that nobody asked for; `redirect`: nothing, and a Location on another path.
        over_items: Only for a JSON list with more items than this.
        naming: Only for a body that has this text in it.
        path: Only for a path that has this text in it.
    """

    status: int = 503
    times: int | None = None
    retry_after_s: int | None = None
    delay_s: float = 0.0
    drop: bool = False
    accept: bool = False
    body: BodyKind = "error"
    over_items: int | None = None
    naming: str | None = None
    path: str | None = None

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """The fault that a control request asks for.

        Raises:
            ValueError: It is no JSON object, or has a field that no fault has, or a value of a wrong type.
        """
        given = json.loads(body)
        if not isinstance(given, dict) or given.keys() - set(cls.__slots__):
            raise ValueError(f"expected a JSON object with some of: {', '.join(cls.__slots__)}")
        try:
            return msgspec.convert(given, cls)
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from None

    def concerns(self, path: str, body: bytes) -> bool:
        """Whether a request for this path, with this body, is to be mistreated."""
        if self.path is not None and self.path not in path:
            return False
        if self.naming is not None and self.naming.encode() not in body:
            return False
        if self.over_items is None:
            return True
        items = json.loads(body)
        return isinstance(items, list) and len(items) > self.over_items

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """The answer, after the delay."""
        await asyncio.sleep(self.delay_s)
        if self.drop and request.transport is not None:
            request.transport.abort()
        headers = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        if self.body in {"dripping", "oversized"}:
            return await self._stream(request, headers)
        content, more = _CONTENT[self.body]
        return web.Response(status=self.status, body=content, headers={**headers, **more})

    async def _stream(self, request: web.Request, headers: dict[str, str]) -> web.StreamResponse:
        response = web.StreamResponse(status=self.status, headers={**headers, "Content-Type": "application/json"})
        await response.prepare(request)
        if self.body == "oversized":
            for _ in range(OVERSIZED_BYTES // len(_CHUNK)):
                await response.write(_CHUNK)
            await response.write(b"{}")
            return response
        while True:  # until the client has had enough
            await response.write(b" ")
            await asyncio.sleep(DRIP_GAP_S)


_JSON: Final = {"Content-Type": "application/json"}
_CONTENT: Final[dict[str, tuple[bytes, dict[str, str]]]] = {
    "error": (b'{"error": "as told"}', _JSON),
    "malformed": (b'{"id": "x", "allowed": true, ', _JSON),
    "mistyped": (b"<html><body>Welcome! Please log in.</body></html>", {"Content-Type": "text/html"}),
    "compressed": (gzip.compress(b'{"id": "x", "allowed": true}'), _JSON | {"Content-Encoding": "gzip"}),
    "redirect": (b"", {"Location": "/elsewhere"}),
}
