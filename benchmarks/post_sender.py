"""The sender of webhooks alone, on uvloop: signs and POSTs one body, 100 in flight, and does nothing else."""

import asyncio
import json
import sys
import time
from typing import Final

import uvloop

from app.webhooks.guard import TargetGuard
from app.webhooks.secrets import Secret, new_secret
from app.webhooks.sender import OutgoingRequest, Sender
from app.webhooks.signing import sign_headers

__all__ = ["IN_FLIGHT"]

IN_FLIGHT: Final = 100


async def main() -> None:
    """Arguments: the URL, seconds, the body; prints posts and processor seconds as JSON."""
    url, seconds, body = sys.argv[1], float(sys.argv[2]), sys.argv[3].encode()
    secret: Secret = new_secret(lambda count: bytes(range(count)))
    guard = TargetGuard(["127.0.0.1"], allow_http=True)
    posted = 0
    async with Sender(guard, max_connections=IN_FLIGHT, max_connections_per_host=IN_FLIGHT) as sender:
        began_s, cpu_s = time.perf_counter(), time.process_time()

        async def post() -> None:
            nonlocal posted
            while time.perf_counter() < began_s + seconds:
                headers = sign_headers(
                    body,
                    webhook_id="wh_alone",
                    delivery_id="dlv_alone",
                    event_id="alone-0",
                    event_type="alone",
                    attempt=1,
                    timestamp_s=1_790_000_000,
                    secrets=[secret],
                )
                outcome = await sender.post(OutgoingRequest(url, body, headers))
                assert outcome.delivered, outcome.error
                posted += 1

        await asyncio.gather(*(post() for _ in range(IN_FLIGHT)))
        elapsed_s = time.perf_counter() - began_s
    print(json.dumps({"events": posted, "elapsed_s": elapsed_s, "cpu_s": time.process_time() - cpu_s}), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
