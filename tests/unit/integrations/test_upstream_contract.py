"""What every `Upstream` promises: the real client and the scripted one that agents are tested with, held alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest

from app.integrations.upstream import HttpUpstream, Malformed, Rejected, Unavailable, Upstream, UpstreamConfig
from tests.support.bytewise import bytewise, saying
from tests.support.scripted_upstream import ScriptedUpstream

REJECTED = {400, 409, 413, 415, 422}


@dataclass
class Made:
    """Upstreams that give one answer.

    Attributes:
        stack: Ends them.
    """

    kind: str
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def answering(self, status: int | None, body: bytes = b"", retry_after_s: int | None = None) -> Upstream:
        """One; without a status it does not answer."""
        if self.kind == "scripted":
            return ScriptedUpstream(judge=lambda _: status, body=lambda _: body, retry_after_s=retry_after_s)
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        if retry_after_s is not None:
            head += f"Retry-After: {retry_after_s}\r\n"
        said = b"" if status is None else f"{head}\r\n".encode() + body
        url = await self.stack.enter_async_context(bytewise(saying(said)))
        return await self.stack.enter_async_context(_closing(HttpUpstream(UpstreamConfig(url, 20.0))))


@asynccontextmanager
async def _closing(client: HttpUpstream) -> AsyncIterator[HttpUpstream]:
    try:
        yield client
    finally:
        await client.close()


@pytest.fixture(params=["real", "scripted"])
async def made(request: pytest.FixtureRequest) -> AsyncIterator[Made]:
    made = Made(request.param)
    async with made.stack:
        yield made


@pytest.mark.parametrize("status", [200, 201, 202, 299])
async def test_2xx_is_an_answer(made: Made, status: int) -> None:
    upstream = await made.answering(status, b'{"id":"x"}')
    answer = await upstream.send("POST", "/", b"{}")
    assert (answer.status, answer.object()) == (status, {"id": "x"})


@pytest.mark.parametrize("status", sorted(REJECTED))
async def test_what_is_never_taken_is_rejected(made: Made, status: int) -> None:
    upstream = await made.answering(status, b'{"why":"x"}')
    with pytest.raises(Rejected) as caught:
        await upstream.send("POST", "/", b"{}")
    assert (caught.value.status, caught.value.answer.json()) == (status, {"why": "x"})


@pytest.mark.parametrize("status", [300, 302, 307, 401, 403, 404, 405, 407, 408, 410, 425, 429, 500, 502, 503, 504])
async def test_every_other_status_is_unavailable(made: Made, status: int) -> None:
    upstream = await made.answering(status, retry_after_s=7)
    with pytest.raises(Unavailable) as caught:
        await upstream.send("POST", "/", b"{}")
    assert (caught.value.status, caught.value.retry_after_s) == (status, 7.0)


async def test_no_answer_is_unavailable_without_a_status(made: Made) -> None:
    upstream = await made.answering(None)
    with pytest.raises(Unavailable) as caught:
        await upstream.send("GET", "/")
    assert (caught.value.status, caught.value.retry_after_s) == (None, None)


@pytest.mark.parametrize("status", [404, 409, 503])
async def test_a_status_that_is_accepted_is_an_answer(made: Made, status: int) -> None:
    upstream = await made.answering(status)
    assert (await upstream.send("DELETE", "/", accept={status})).status == status


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"a":1,"a":2}'])
async def test_a_success_without_its_object_is_malformed_where_it_is_read(made: Made, body: bytes) -> None:
    upstream = await made.answering(200, body)
    answer = await upstream.send("GET", "/")
    with pytest.raises(Malformed):
        answer.object()
