import asyncio
import contextlib
import json
import stat
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from app.devstack import dev
from app.devstack.broker import RunningBroker, running_broker
from app.devstack.dev import DevError, Kept, exclusive, run_dev
from app.devstack.processes import Worker, module_command


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningBroker]:
    command = module_command("tests.unit.devstack.naive_worker")
    monkeypatch.setattr(dev, "Worker", lambda settings, folder: Worker(settings, folder, command))
    with running_broker("embedded", Path("unused")) as running:
        yield running


async def until_addresses(broker: RunningBroker, folder: Path) -> dict[str, str]:
    """Runs `dev` until it has printed its addresses and they answer, then ends it as Ctrl-C would."""
    lines: list[str] = []
    complete = asyncio.Event()

    def say(line: str) -> None:
        lines.append(line)
        if line.startswith("worker log"):
            complete.set()

    running = asyncio.create_task(run_dev(broker, folder, say))
    try:
        async with asyncio.timeout(20):
            await complete.wait()
        addresses = dict(line.split(maxsplit=1) for line in lines)
        async with aiohttp.ClientSession() as session:
            for name in ("dashboard", "policy", "registry", "receiver"):
                async with session.get(addresses[name]) as response:
                    assert response.status == 200
            assert addresses["health"].endswith("/health")
            assert "console" not in addresses
            async with session.get(addresses["API"]) as response:
                (webhook,) = (await response.json())["items"]
                assert webhook["url"].rpartition("/")[0] == addresses["receiver"].rpartition("/")[0]
        return addresses
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def test_it_prints_addresses_that_answer_and_nothing_answers_after_its_end(
    broker: RunningBroker, tmp_path: Path
) -> None:
    addresses = await until_addresses(broker, tmp_path)
    assert addresses["broker"] == f"{broker.bootstrap} (embedded)"
    async with aiohttp.ClientSession() as session:
        for name in ("API", "receiver"):
            with pytest.raises(aiohttp.ClientConnectionError):
                await session.get(addresses[name])


async def test_the_next_run_serves_the_same_webhook_at_the_same_address(broker: RunningBroker, tmp_path: Path) -> None:
    first = await until_addresses(broker, tmp_path)
    second = await until_addresses(broker, tmp_path)
    assert second["receiver"] == first["receiver"]


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
