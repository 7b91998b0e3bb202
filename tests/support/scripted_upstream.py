"""An upstream that answers by script, and remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from app.integrations.upstream import Answer, Rejected, Unavailable

REJECTING = frozenset({400, 409, 413, 415, 422})


@dataclass(frozen=True, slots=True)
class Call:
    """One request."""

    method: str
    path: str
    body: bytes
    headers: Mapping[str, str]

    @property
    def key(self) -> str:
        return self.headers["Idempotency-Key"]


@dataclass(eq=False)
class ScriptedUpstream:
    """`Upstream` without a network.

    Attributes:
        script: Statuses of the next answers; then `judge` decides.
        judge: The status for a call.
        retry_after_s: What an unavailable answer asks for.
        gate: While it is not set, calls wait in `under_way`.
    """

    script: deque[int | None] = field(default_factory=deque)
    judge: Callable[[Call], int | None] = lambda _: 200
    body: Callable[[Call], bytes] = lambda _: b""
    content_type: str = "application/json"
    content_encoding: str = ""
    retry_after_s: float | None = None
    calls: list[Call] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        accept: Collection[int] = (),
    ) -> Answer:
        call = Call(method, path, body or b"", dict(headers or {}))
        self.calls.append(call)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.gate.wait()
        finally:
            self.under_way -= 1
        status = self.script.popleft() if self.script else self.judge(call)
        if status is None:
            raise Unavailable("no answer: connect")
        answer = Answer(status, self.body(call), content_type=self.content_type, content_encoding=self.content_encoding)
        if 200 <= status < 300 or status in accept:
            return answer
        if status in REJECTING:
            raise Rejected(f"answered {status}", answer=answer)
        raise Unavailable(f"answered {status}", status=status, retry_after_s=self.retry_after_s)
