"""A wire between a worker and a broker that can be late, break, refuse and go silent, at the request that is named.

It reads the header of each request, so a fault hits exactly one step: the commit of one number, not "the network". The
broker's own address in its answers is replaced by the proxy's; everything else passes untouched.
"""

import asyncio
import contextlib
import struct
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from enum import Enum, IntEnum
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

_HOST = b"127.0.0.1"
_THREAD_DEADLINE_S = 20.0


class Api(IntEnum):
    """Requests of Kafka's protocol, by their keys."""

    PRODUCE = 0
    FETCH = 1
    METADATA = 3
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    INIT_PRODUCER_ID = 22
    ADD_PARTITIONS_TO_TXN = 24
    END_TXN = 26


_WITH_ADDRESSES = {Api.METADATA, Api.FIND_COORDINATOR}


class Deed(Enum):
    """What becomes of a request."""

    CUT_BEFORE = "the connection breaks before the broker sees it"
    CUT_AFTER = "the broker does it, and the connection breaks before its answer"
    LATE = "the broker does it, and its answer comes late"
    HELD = "it reaches the broker only when it is released"
    REFUSED = "it is answered with an error, and the broker never sees it"


@dataclass
class Rule:
    """What to do to the next requests of a kind.

    Attributes:
        client: The end of the client id that they come from; a changelog's is `{app id}-{number}`.
        times: How many.
        seconds: How late.
        error: Of Kafka's protocol; only for requests whose answer is a throttle time and an error.
        acted: How many it has met.
    """

    api: Api
    deed: Deed
    client: str = ""
    times: int = 1
    seconds: float = 0.0
    error: int = 0
    acted: int = 0

    def meets(self, api: int, client: str) -> bool:
        """Whether this request is one of them; then it counts."""
        if api != self.api or not client.endswith(self.client) or self.acted >= self.times:
            return False
        self.acted += 1
        return True


class _Broken(Exception):
    """A rule breaks the connection."""


class _Link:
    """One connection through the proxy."""

    def __init__(self, proxy: "KafkaProxy", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.proxy, self.reader, self.writer = proxy, reader, writer
        self.broker: asyncio.StreamWriter | None = None
        self.waiting: dict[int, tuple[int, Rule | None]] = {}

    async def run(self) -> None:
        try:
            answers, self.broker = await asyncio.open_connection(*self.proxy.upstream)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._requests(self.broker))
                tasks.create_task(self._answers(answers))
        except* (OSError, EOFError, _Broken):
            pass
        finally:
            self.abort()

    def abort(self) -> None:
        """Break it, at both ends, with whatever is on its way."""
        for writer in (self.writer, self.broker):
            if writer is not None:
                writer.transport.abort()

    async def _requests(self, broker: asyncio.StreamWriter) -> None:
        while True:
            frame = await _frame(self.reader)
            api, _, correlation, length = struct.unpack_from(">hhih", frame)
            client = frame[10 : 10 + max(0, length)].decode()
            rule = self.proxy.rule_of(api, client)
            deed = rule.deed if rule is not None else None
            await self.proxy.open.wait()
            if deed is Deed.CUT_BEFORE:
                raise _Broken
            if rule is not None and deed is Deed.REFUSED:
                _send(self.writer, struct.pack(">iih", correlation, 0, rule.error))
                continue
            if deed is Deed.HELD:
                await self.proxy.released.wait()
            self.waiting[correlation] = (api, rule)
            _send(broker, frame)
            await broker.drain()

    async def _answers(self, answers: asyncio.StreamReader) -> None:
        while True:
            frame = await _frame(answers)
            api, rule = self.waiting.pop(struct.unpack_from(">i", frame)[0], (-1, None))
            deed = rule.deed if rule is not None else None
            if deed is Deed.CUT_AFTER:
                raise _Broken
            if rule is not None and deed is Deed.LATE:
                await asyncio.sleep(rule.seconds)
            await self.proxy.open.wait()
            _send(self.writer, self.proxy.readdressed(frame) if api in _WITH_ADDRESSES else frame)
            await self.writer.drain()


class KafkaProxy:
    """Use it as a context manager; its methods may be called from any thread but its own.

    Args:
        bootstrap: `host:port` of the one broker.
    """

    def __init__(self, bootstrap: str) -> None:
        host, _, port = bootstrap.partition(":")
        self.upstream = (host, int(port))
        self.address = ""
        self.rules: list[Rule] = []
        self._links: set[_Link] = set()
        self._port = 0
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kafka-proxy")

    def __enter__(self) -> Self:
        self._thread.start()
        self._in_thread(self._start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._in_thread(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_THREAD_DEADLINE_S)
        self._loop.close()

    def add(self, rule: Rule) -> Rule:
        """From now on."""
        self.rules.append(rule)
        return rule

    def clear(self) -> None:
        """No rules; what is held goes on its way."""
        self.rules.clear()
        self._in_thread(self._release())

    def silence(self) -> None:
        """Nothing passes in either direction; connections stay, and what is sent waits, as on a real network."""
        self._in_thread(self._silence())

    def refuse(self) -> None:
        """Break all connections and accept no new one."""
        self._in_thread(self._refuse())

    def heal(self) -> None:
        """Everything passes; what waited arrives late."""
        self._in_thread(self._heal())

    def rule_of(self, api: int, client: str) -> Rule | None:
        """The rule that meets this request, if any."""
        return next((rule for rule in list(self.rules) if rule.meets(api, client)), None)

    def readdressed(self, frame: bytes) -> bytes:
        """An answer in which the broker's address is ours."""
        return frame.replace(_HOST + struct.pack(">i", self.upstream[1]), _HOST + struct.pack(">i", self._port))

    def _in_thread(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_THREAD_DEADLINE_S)

    async def _start(self) -> None:
        self.open, self.released = asyncio.Event(), asyncio.Event()
        self.open.set()
        await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, _HOST.decode(), self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        self.address = f"{_HOST.decode()}:{self._port}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(self, reader, writer)
        self._links.add(link)
        try:
            # The end of the proxy: whoever ends a server's task by cancellation reads of it in the log.
            with contextlib.suppress(asyncio.CancelledError):
                await link.run()
        finally:
            self._links.discard(link)

    async def _release(self) -> None:
        self.released.set()
        self.released = asyncio.Event()

    async def _silence(self) -> None:
        self.open.clear()

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for link in list(self._links):
            link.abort()

    async def _heal(self) -> None:
        self.open.set()
        if self._server is None:
            await self._listen()

    async def _stop(self) -> None:
        await self._refuse()
        self.open.set()
        self.released.set()
        mine = asyncio.current_task()
        tasks = [task for task in asyncio.all_tasks() if task is not mine]
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)


async def _frame(reader: asyncio.StreamReader) -> bytes:
    (length,) = struct.unpack(">i", await reader.readexactly(4))
    return await reader.readexactly(length)


def _send(writer: asyncio.StreamWriter, frame: bytes) -> None:
    writer.write(struct.pack(">i", len(frame)) + frame)
