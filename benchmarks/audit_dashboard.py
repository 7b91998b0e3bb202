"""A governance dashboard that costs next to nothing, in a process of its own; `python -m benchmarks.audit_dashboard`.

It knows a batch that comes again by its Idempotency-Key, and takes every other one. Prints its port. `GET /stats` says
how many entries and batches it has accepted so far, and how many came again.
"""

import asyncio
from typing import Final

import orjson
import uvloop
from aiohttp import web

MAX_BODY_BYTES: Final = 64 << 20


class Dashboard:
    def __init__(self) -> None:
        self._keys: set[str] = set()
        self._entries = 0
        self._repeated = 0

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        key = request.headers["Idempotency-Key"]
        if key in self._keys:
            self._repeated += 1
            return web.Response(status=409)
        self._keys.add(key)
        self._entries += len(orjson.loads(body))
        return web.Response(status=202)

    async def stats(self, _request: web.Request) -> web.Response:
        return web.json_response({"entries": self._entries, "batches": len(self._keys), "repeated": self._repeated})


async def main() -> None:
    dashboard = Dashboard()
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.add_routes([web.post("/api/v1/audit/events/batch", dashboard.take), web.get("/stats", dashboard.stats)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
