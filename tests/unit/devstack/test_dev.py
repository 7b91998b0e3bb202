import asyncio
import contextlib
import json
import re
import socket
import stat
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path

import aiohttp
import pytest

from app.devstack import dev, samples
from app.devstack.broker import RunningBroker, running_broker
from app.devstack.dev import DevError, Kept, Wishes, chosen_port, exclusive, run_dev
from app.devstack.processes import Worker, module_command
from app.devstack.samples import sample_event
from app.events import VaultEventType
from app.events.catalog import NAMESPACE
from app.publishing import KafkaConfig, KafkaEventPublisher

ANY_PORT = Wishes(web_port=0)


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningBroker]:
    command = module_command("tests.unit.devstack.naive_worker")
    monkeypatch.setattr(dev, "Worker", lambda settings, folder: Worker(settings, folder, command))
    with running_broker("embedded", Path("unused")) as running:
        yield running


@asynccontextmanager
async def running(
    broker: RunningBroker, folder: Path, wishes: Wishes = ANY_PORT
) -> AsyncIterator[tuple[dict[str, str], list[str]]]:
    """`dev` from when it has printed its addresses until it is ended as Ctrl-C would; what it said goes on to grow."""
    lines: list[str] = []
    complete = asyncio.Event()

    def say(line: str) -> None:
        lines.append(line)
        if line.startswith("Ctrl-C"):
            complete.set()

    task = asyncio.create_task(run_dev(broker, folder, say, wishes))
    try:
        await asyncio.wait({task, saying := asyncio.create_task(complete.wait())}, return_when=asyncio.FIRST_COMPLETED)
        saying.cancel()
        if task.done():
            task.result()
        yield {line.split()[0]: line.split()[-1 if "export" in line else 1] for line in lines}, lines
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, DevError):
            await task


def receiver_of(addresses: Mapping[str, str]) -> str:
    return addresses["receiver"].removesuffix("/hook")


async def test_it_prints_addresses_that_answer_the_console_first_and_nothing_answers_after_its_end(
    broker: RunningBroker, tmp_path: Path
) -> None:
    async with running(broker, tmp_path) as (addresses, lines), aiohttp.ClientSession() as session:
        assert lines[0] == f"console     {addresses['API'].removesuffix('v1/webhooks')}"
        assert addresses["broker"] == broker.bootstrap
        for url in (
            *(addresses[name] for name in ("dashboard", "policy", "registry")),
            f"{receiver_of(addresses)}/observed",
        ):
            async with session.get(url) as response:
                assert response.status == 200
        async with session.get(addresses["API"]) as response:
            (webhook,) = (await response.json())["items"]
        assert (webhook["url"], webhook["events"]) == (addresses["receiver"], ["*"])
    async with aiohttp.ClientSession() as session:
        for url in (addresses["API"], receiver_of(addresses)):
            with pytest.raises(aiohttp.ClientConnectionError):
                await session.get(url)


async def test_the_next_run_serves_the_same_webhook_at_the_same_address(broker: RunningBroker, tmp_path: Path) -> None:
    async with running(broker, tmp_path) as (first, _):
        pass
    async with running(broker, tmp_path) as (second, _):
        assert second["receiver"] == first["receiver"]


async def test_where_the_address_is_taken_meanwhile_the_webhook_follows_the_receiver(
    broker: RunningBroker, tmp_path: Path
) -> None:
    async with running(broker, tmp_path) as (first, _):
        pass
    with socket.create_server(("127.0.0.1", int(receiver_of(first).rpartition(":")[2]))):
        async with running(broker, tmp_path) as (second, _), aiohttp.ClientSession() as session:
            assert second["receiver"] != first["receiver"]
            async with session.get(second["API"]) as response:
                assert [one["url"] for one in (await response.json())["items"]] == [second["receiver"]]


async def test_a_delivery_is_one_line_that_says_what_came_and_whether_its_signature_holds(
    broker: RunningBroker, tmp_path: Path
) -> None:
    async with running(broker, tmp_path) as (_, lines):
        async with KafkaEventPublisher(KafkaConfig(brokers=[broker.bootstrap])) as publisher:
            event = sample_event()
            await publisher.publish(event)
        found = await until_line(lines, event.id)
    assert re.fullmatch(
        rf"received    /hook  dataset.created  event {event.id}  delivery dlv_\w+  \(the signature holds\)", found
    )


async def test_traffic_is_events_of_all_kinds_until_the_broker_has_enough(
    broker: RunningBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dev, "EMBEDDED_EVENTS", samples.A_ROUND)
    async with running(broker, tmp_path, Wishes(web_port=0, traffic_per_s=200)) as (_, lines):
        await until_line(lines, f"traffic     ended after {samples.A_ROUND} events")
        for kind in VaultEventType:
            await until_line(lines, f"  {kind.removeprefix(NAMESPACE)}  event ")


@pytest.mark.parametrize("wishes", [Wishes(web_port=1), Wishes(receiver_port=1)])
async def test_a_port_in_use_is_one_line_that_says_what_to_do(
    broker: RunningBroker, tmp_path: Path, wishes: Wishes
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        named = {name: port for name, wanted in asdict(wishes).items() if wanted == 1}
        option = "--port" if "web_port" in named else "--receiver-port"
        with pytest.raises(DevError, match=rf"port {port} is in use: .* another {option} \(0: any\)"):
            await run_dev(broker, tmp_path, print, Wishes(**named))


def test_a_port_that_nobody_chose_gives_way() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert chosen_port(None, port, "--port") != port
    assert chosen_port(None, port, "--port") == port
    assert chosen_port(0, port, "--port") != 0


async def test_in_a_hurry_the_worker_is_not_waited_for(broker: RunningBroker, tmp_path: Path) -> None:
    class Stubborn(Worker):
        killed = False

        async def stop(self, *, timeout_s: float = 25.0) -> int | None:
            await asyncio.Event().wait()
            return None

        async def kill(self) -> None:
            self.killed = True

    worker, hurry = Stubborn({}, tmp_path), asyncio.Event()
    ending = asyncio.create_task(dev._end(worker, hurry))
    hurry.set()
    async with asyncio.timeout(20):
        await ending
    assert worker.killed


async def until_line(lines: list[str], part: str) -> str:
    async with asyncio.timeout(60):
        while not (found := [line for line in lines if part in line and not line.startswith(" ")]):
            await asyncio.sleep(0.05)
    return found[0]


def test_what_was_kept_and_cannot_be_read_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "dev.json").write_text("{")
    with pytest.raises(DevError, match="cannot be read, and with it the webhooks: remove"):
        Kept.load(tmp_path / "dev.json")


def test_what_is_kept_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "dev.json"
    kept = Kept.load(file)
    kept.save(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert Kept.load(file) == kept
    assert "receiver_port" in json.loads(file.read_text())


def test_a_second_dev_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with exclusive(tmp_path), pytest.raises(DevError, match="end it first"), exclusive(tmp_path):
        pass
    with exclusive(tmp_path):
        pass
