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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from app.devstack.broker import RunningBroker
from app.devstack.embedded import EMBEDDED_PARTITIONS
from app.devstack.inbox import Inbox
from app.devstack.kafka import free_port, port_is_free
from app.devstack.processes import Worker
from app.devstack.samples import trickle
from app.devstack.stack import Upstreams, WorkerApi, encryption_key, listening, worker_settings
from app.devstack.standins import Observations
from app.topics import Topics, plan

__all__ = ["DevError", "Kept", "Wishes", "chosen_port", "dev_folder", "exclusive", "run_dev"]

APP_ID: Final = "vault-stream"
WEB_PORT: Final = 8088
EMBEDDED_EVENTS: Final = 1000
"""What the embedded broker holds of a trickle, with room to spare (architecture 9)."""


class DevError(Exception):
    """`dev` cannot run; one line says why and what to do."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What must be the same in the next run, or a kept webhook would lead nowhere."""

    encryption_key: str
    receiver_port: int
    receiver_secret: str = ""
    webhook_id: str = ""

    @classmethod
    def load(cls, file: Path) -> "Kept":
        """What an earlier run kept, else something new.

        Raises:
            DevError: It cannot be read.
        """
        try:
            return cls(**json.loads(file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return cls(encryption_key(), free_port())
        except (ValueError, TypeError):
            raise DevError(f"{file} cannot be read, and with it the webhooks: remove {file.parent}") from None

    def save(self, file: Path) -> None:
        """Keeps it, readable by its owner only."""
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
            json.dump(asdict(self), out)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the caller chose.

    Attributes:
        web_port: Of the worker. None: 8088, or any where that is in use; 0: any.
        receiver_port: Of the receiver. None: that of the last run, or any; 0: any.
        traffic_per_s: So many events are published a second; 0: none.
        program: How to call `vault-stream`, in what is said.
    """

    web_port: int | None = None
    receiver_port: int | None = None
    traffic_per_s: float = 0.0
    program: str = "vault-stream"


def chosen_port(wanted: int | None, usual: int, option: str) -> int:
    """A port to listen on.

    Args:
        wanted: None: the usual one, or any where that is in use; 0: any.
        option: Whose value it is.

    Raises:
        DevError: The wanted one is in use.
    """
    if wanted is None:
        return usual if port_is_free(usual) else free_port()
    if wanted and not port_is_free(wanted):
        raise DevError(f"port {wanted} is in use: end what listens there, or give another {option} (0: any)")
    return wanted or free_port()


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


async def run_dev(
    broker: RunningBroker,
    folder: Path,
    say: Callable[[str], None],
    wishes: Wishes = Wishes(),
    hurry: asyncio.Event | None = None,
) -> None:
    """Runs until cancelled; everything that it started is gone when it returns.

    Args:
        broker: Running already.
        folder: For the worker's data and log, and what is kept.
        say: Told the addresses, the console's first, and what arrives: one line each.
        hurry: Set when the end must not wait for the work that is under way.

    Raises:
        DevError: A port is in use, or what was kept cannot be read.
        ProcessEndedError: The worker ended by itself.
        ApiRefusedError: The worker's API refused something.
    """
    kept = Kept.load(folder / "dev.json")
    receiver_port = chosen_port(wishes.receiver_port, kept.receiver_port, "--receiver-port")
    kept = replace(kept, receiver_port=receiver_port)
    web_port = chosen_port(wishes.web_port, WEB_PORT, "--port")
    broker.create_topics(plan(Topics("vault", APP_ID), partitions=EMBEDDED_PARTITIONS, replication=1))
    observations = Observations()
    upstreams, receiver = Upstreams.new(observations), Inbox(observations, say)
    if kept.receiver_secret:
        receiver.trust(kept.receiver_secret)
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
                for line in _addresses(broker, api, upstreams, receiver, worker, wishes):
                    say(line)
                await worker.while_alive(_for_ever(broker, say, wishes))
            finally:
                await _end(worker, hurry)


async def _end(worker: Worker, hurry: asyncio.Event | None) -> None:
    """Ends it as it should end, or by force: nothing is lost by that, and what was under way is done again."""
    stopping = asyncio.ensure_future(worker.stop())
    hurrying = asyncio.ensure_future((hurry or asyncio.Event()).wait())
    await asyncio.wait({stopping, hurrying}, return_when=asyncio.FIRST_COMPLETED)
    if not stopping.done():
        await worker.kill()
        stopping.cancel()
    hurrying.cancel()
    await asyncio.gather(stopping, hurrying, return_exceptions=True)


async def _with_webhook(api: WorkerApi, receiver: Inbox, kept: Kept) -> Kept:
    """One webhook leads to the receiver: that of the last run, where it is still there."""
    webhooks = await api.webhooks()
    webhook = next((one for one in webhooks if one["id"] == kept.webhook_id), None)
    if webhook is None or not kept.receiver_secret:
        made = await api.create_webhook(receiver.hook_url, ["*"], description="made by vault-stream dev")
        receiver.trust(made["secret"])
        return replace(kept, receiver_secret=made["secret"], webhook_id=made["id"])
    if webhook["url"] != receiver.hook_url:
        await api.change_webhook(kept.webhook_id, {"url": receiver.hook_url})
    return kept


def _addresses(
    broker: RunningBroker, api: WorkerApi, upstreams: Upstreams, receiver: Inbox, worker: Worker, wishes: Wishes
) -> Iterator[str]:
    yield f"console     {api.url}/"
    yield f"API         {api.url}/v1/webhooks"
    yield f"health      {api.url}/health"
    yield f"metrics     {api.url}/metrics"
    yield f"broker      {broker.bootstrap} ({broker.kind})"
    yield f"dashboard   {upstreams.dashboard.url}/observed"
    yield f"policy      {upstreams.policy.url}/observed"
    yield f"registry    {upstreams.registry.url}/observed"
    yield f"receiver    {receiver.hook_url} (one webhook leads there already)"
    yield f"            {receiver.open_url} (give this URL to a webhook of yours)"
    yield f"worker log  {worker.log}"
    yield "To see an event arrive, in another terminal:"
    yield (
        f"  export VAULT_STREAM_BROKERS={broker.bootstrap} VAULT_STREAM_API__URL={api.url} "
        f"VAULT_STREAM_PARTITIONS={EMBEDDED_PARTITIONS}"
    )
    yield f"  {wishes.program} publish --sample"
    yield "Ctrl-C ends everything. What arrives at the receiver:"


async def _for_ever(broker: RunningBroker, say: Callable[[str], None], wishes: Wishes) -> None:
    if wishes.traffic_per_s:
        at_most = EMBEDDED_EVENTS if broker.kind == "embedded" else None
        await trickle(broker.bootstrap, wishes.traffic_per_s, say, at_most=at_most)
    await asyncio.Event().wait()
