"""A server that reads a question and answers what it was told to, in a process of its own: the least that one costs.

The argument is the body of each answer. Prints its port.
"""

import asyncio
import sys

import orjson
import uvloop
from aiohttp import web

from benchmarks.decision_load import PATH


async def main() -> None:
    body = sys.argv[1].encode()

    async def evaluate(request: web.Request) -> web.Response:
        orjson.loads(await request.read())
        return web.Response(body=body, content_type="application/json")

    app = web.Application()
    app.add_routes([web.post(PATH, evaluate)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
