import asyncio
import time
from contextlib import AsyncExitStack

import aiohttp

from app.devstack.neighbours import PORTS, Neighbours, Relay
from app.webhooks.secrets import Secret
from app.webhooks.signing import sign_headers

SECRET = "whsec_ZGV2ZWxvcG1lbnQtb25seS1zZWNyZXQhIQ=="
BODY = b'{"specversion":"1.0","id":"ev-1","source":"/vault/a","type":"llm.data-vault.dataset.created"}'


async def test_a_relay_hands_bytes_on_in_both_directions() -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())
        writer.close()

    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    async with server, Relay("127.0.0.1", 0, server.sockets[0].getsockname()[1]) as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        writer.write(b"who is there?\n")

        assert await reader.read() == b"WHO IS THERE?\n"
        writer.close()


async def test_a_relay_hangs_up_where_nobody_listens_behind_it() -> None:
    async with Relay("127.0.0.1", 0, 1) as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)

        assert await reader.read() == b""
        writer.close()


async def test_every_neighbour_answers_at_its_own_address() -> None:
    neighbours = Neighbours.new("127.0.0.1", "127.0.0.1", SECRET, dict.fromkeys(PORTS, 0))
    async with AsyncExitStack() as stack, aiohttp.ClientSession() as client:
        urls = await neighbours.start(stack)
        answers = {name: (await client.get(f"{url}/observed")).status for name, url in urls.items()}

    assert answers == dict.fromkeys(PORTS, 200)


async def test_a_receiver_takes_what_is_signed_with_the_secret_that_outlives_a_restart() -> None:
    headers = sign_headers(
        BODY,
        webhook_id="wh_1",
        delivery_id="dlv_1",
        event_id="ev-1",
        event_type="llm.data-vault.dataset.created",
        attempt=1,
        timestamp_s=int(time.time()),
        secrets=[Secret(SECRET)],
    )
    neighbours = Neighbours.new("127.0.0.1", "127.0.0.1", SECRET, dict.fromkeys(PORTS, 0))
    async with AsyncExitStack() as stack, aiohttp.ClientSession() as client:
        urls = await neighbours.start(stack)
        answer = await client.post(f"{urls['honest']}/hook", data=BODY, headers=dict(headers))

    assert answer.status == 204
