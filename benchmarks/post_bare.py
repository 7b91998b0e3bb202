"""Contender: an aiohttp client on uvloop that POSTs one signed body, 100 in flight, and does nothing else."""

import asyncio
import json
import sys
import time
from typing import Final

import aiohttp
import uvloop

__all__ = ["IN_FLIGHT"]

IN_FLIGHT: Final = 100


async def main() -> None:
    """Arguments: the URL, seconds, headers as JSON, the body; prints posts and processor seconds as JSON."""
    url, seconds, headers, body = sys.argv[1], float(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4].encode()
    posted = 0
    connector = aiohttp.TCPConnector(limit=IN_FLIGHT)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
        began_s, cpu_s = time.perf_counter(), time.process_time()

        async def post() -> None:
            nonlocal posted
            while time.perf_counter() < began_s + seconds:
                async with session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                    await answer.read()
                posted += 1

        await asyncio.gather(*(post() for _ in range(IN_FLIGHT)))
        elapsed_s = time.perf_counter() - began_s
    print(json.dumps({"events": posted, "elapsed_s": elapsed_s, "cpu_s": time.process_time() - cpu_s}), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
