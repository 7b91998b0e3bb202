"""`vault-stream dev`: everything on this machine, until somebody has seen enough.

On the real broker the folder keeps everything from one run to the next: the log, the worker's tables, the encryption
key, the receiver with its address and secret. On the embedded one nothing outlives the run.
"""

import asyncio
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from app.devstack.broker import RunningBroker
from app.devstack.embedded import EMBEDDED_PARTITIONS
from app.devstack.kafka import free_port, port_is_free
from app.devstack.processes import Worker
from app.devstack.receivers import Receiver
from app.devstack.stack import Upstreams, WorkerApi, encryption_key, listening, worker_settings
from app.devstack.standins import Observations
from app.topics import Topics, plan

__all__ = ["DevError", "dev_folder", "exclusive", "run_dev"]

APP_ID: Final = "vault-stream"
WEB_PORT: Final = 8088


class DevError(Exception):
    """`dev` cannot run; one line says why and what to do."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What must be the same in the next run, or a kept webhook would lead nowhere."""

    encryption_key: str
    receiver_port: int
    receiver_secret: str = ""

    @classmethod
    def load(cls, file: Path) -> "Kept":
        """What an earlier run kept, else something new."""
        try:
            kept = cls(**json.loads(file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return cls(encryption_key(), free_port())
        return kept if port_is_free(kept.receiver_port) else cls(kept.encryption_key, free_port())

    def save(self, file: Path) -> None:
        """Keeps it, readable by its owner only."""
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
            json.dump(asdict(self), out)


def dev_folder() -> Path:
    """`$XDG_STATE_HOME/vault-stream/dev`, by default `~/.local/state/vault-stream/dev`."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "vault-stream" / "dev"


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keeps a second `dev` away from the same folder.

    Raises:
        DevError: One runs there already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DevError(f"another `vault-stream dev` runs in {folder}: end it first") from None
        yield


async def run_dev(broker: RunningBroker, folder: Path, say: Callable[[str], None]) -> None:
    """Runs until cancelled; everything that it started is gone when it returns.

    Args:
        broker: Running already.
        folder: For the worker's data and log, and what is kept.
        say: Told the addresses, one line each.

    Raises:
        ProcessEndedError: The worker ended by itself.
        ApiRefusedError: The worker's API refused something.
    """
    kept = Kept.load(folder / "dev.json")
    broker.create_topics(plan(Topics("vault", APP_ID), partitions=EMBEDDED_PARTITIONS, replication=1))
    observations = Observations()
    upstreams, receiver = Upstreams.new(observations), Receiver("honest", observations)
    chosen = os.environ.get("VAULT_STREAM_WEB_PORT", "")
    wanted = int(chosen) if chosen.isdecimal() else WEB_PORT
    web_port = wanted if port_is_free(wanted) else free_port()
    async with listening(*upstreams.all, receiver, ports={receiver: kept.receiver_port}):
        settings = worker_settings(
            brokers=broker.bootstrap,
            app_id=APP_ID,
            data_dir=folder / "worker",
            web_port=web_port,
            encryption_key=kept.encryption_key,
            upstreams=upstreams,
        )
        worker = Worker(settings, folder)
        async with WorkerApi(f"http://127.0.0.1:{web_port}") as api:
            try:
                await worker.start()
                await worker.while_alive(api.ready())
                kept = await worker.while_alive(_with_webhook(api, receiver, kept))
                kept.save(folder / "dev.json")
                for line in _addresses(broker, api, upstreams, receiver, worker):
                    say(line)
                await worker.while_alive(_for_ever())
            finally:
                await worker.stop()


async def _with_webhook(api: WorkerApi, receiver: Receiver, kept: Kept) -> Kept:
    known = any(webhook["url"] == receiver.hook_url for webhook in await api.webhooks())
    if not (known and kept.receiver_secret):
        webhook = await api.create_webhook(receiver.hook_url, ["*"])
        kept = Kept(kept.encryption_key, kept.receiver_port, webhook["secret"])
    receiver.trust(kept.receiver_secret)
    return kept


def _addresses(
    broker: RunningBroker, api: WorkerApi, upstreams: Upstreams, receiver: Receiver, worker: Worker
) -> Iterator[str]:
    yield f"broker      {broker.bootstrap} ({broker.kind})"
    yield f"API         {api.url}/v1/webhooks"
    yield f"health      {api.url}/health"
    yield f"metrics     {api.url}/metrics"
    yield f"dashboard   {upstreams.dashboard.url}/observed"
    yield f"policy      {upstreams.policy.url}/observed"
    yield f"registry    {upstreams.registry.url}/observed"
    yield f"receiver    {receiver.url}/observed"
    yield f"worker log  {worker.log}"
    yield "For the other commands, in another terminal:"
    yield f"  export VAULT_STREAM_BROKERS={broker.bootstrap} VAULT_STREAM_API__URL={api.url}"


async def _for_ever() -> None:
    await asyncio.Event().wait()
