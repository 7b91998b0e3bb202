"""A registry without a network: `Upstream` over a `RegistryBook`, with failures by script."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

import orjson

from app.devstack.registry_standin import RegistryBook
from app.integrations.upstream import Answer, Rejected, Unavailable

REJECTING = frozenset({400, 409, 413, 415, 422})


@dataclass(eq=False)
class FakeRegistry:
    """Attributes:
    failures: For the next requests: `before` and `after` it is taken, or None: it is answered.
    down: Nothing is answered.
    gate: While it is not set, requests wait before they are taken.
    answer_gate: While it is not set, answers wait on their way.
    asked: Method and path of every request.
    """

    book: RegistryBook = field(default_factory=RegistryBook)
    failures: deque[str | None] = field(default_factory=deque)
    down: bool = False
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    answer_gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[tuple[str, str]] = field(default_factory=list)
    answers: deque[bytes] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.gate.set()
        self.answer_gate.set()

    @property
    def pages(self) -> list[str]:
        """The queries of the pulls."""
        return [urlsplit(path).query for method, path in self.asked if method == "GET"]

    @property
    def pushes(self) -> list[tuple[str, str]]:
        """Everything that the vault told."""
        return [call for call in self.asked if call[0] != "GET"]

    async def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        accept: Collection[int] = (),
    ) -> Answer:
        self.asked.append((method, path))
        await self.gate.wait()
        failure = self.failures.popleft() if self.failures else None
        if self.down or failure == "before":
            raise Unavailable("no answer: connect")
        if method == "GET" and self.answers:
            return Answer(200, self.answers.popleft())
        status, answer = self._ask(method, path, body or b"", (headers or {}).get("Idempotency-Key"))
        await self.answer_gate.wait()
        if failure == "after":
            raise Unavailable("no answer: reset")
        if 200 <= status < 300 or status in accept:
            return Answer(status, answer)
        if status in REJECTING:
            raise Rejected(f"answered {status}", answer=Answer(status, answer))
        raise Unavailable(f"answered {status}", status=status)

    def _ask(self, method: str, path: str, body: bytes, key: str | None) -> tuple[int, bytes]:
        url, book = urlsplit(path), self.book
        parts = [unquote(part) for part in url.path.removeprefix("/api/v1/").split("/")]
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if method == "GET":
            status, answer = book.page(query.get("updated_since"), query.get("cursor"))
        elif method == "DELETE":
            status, answer = book.once(key, b"", lambda: book.delete(parts[1]))
        elif parts[0] == "models":
            status, answer = book.once(key, body, lambda: book.link(parts[1], orjson.loads(body)))
        else:
            status, answer = book.once(key, body, lambda: book.upsert(orjson.loads(body)))
        return status, orjson.dumps(answer)
