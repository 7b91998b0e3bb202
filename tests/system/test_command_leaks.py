"""What the commands say, and what a worker says that cannot log in to Kafka, is searched for each credential."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from app.devstack.processes import module_command, module_environment
from app.events import VaultEventType, encode_structured
from app.publishing import VaultEvent, checked
from tests.support.canaries import CREDENTIALS, WATCH, signing_key_entry
from tests.support.leaks import everything_below, found
from tests.support.workers import DEADLINE_S, Deployment, until

pytestmark = [pytest.mark.kafka, pytest.mark.prove]

REACH_S = 20.0
"""A worker that is not let in never gives up: so long it may say what it likes."""
DAYS = ("--from", "2026-01-01", "--to", "2027-01-01")
COMMANDS: list[tuple[str, ...]] = [
    ("config",),
    ("topics", "check"),
    ("positions", "show"),
    ("webhooks", "list"),
    ("webhooks", "match", "event.json"),
    ("deliveries", "list"),
    ("dead-letters", "list"),
    ("quarantine", "list"),
    ("replays", "list"),
    ("audit", "status"),
    ("audit", "verify", "--topic"),
    ("audit", "export", "-o", "audit.jsonl"),
    ("report", "soc2", *DAYS, "--format", "json", "-o", "-"),
    ("policy", "evaluate", "p-1", "read", "ds-1"),
    ("policy", "applicable", "ds-1"),
    ("registry", "show", "ds-1"),
    ("publish", "--check", "event.json"),
]
REFUSED = {"KAFKA__SECURITY_PROTOCOL": "SASL_PLAINTEXT", "KAFKA__SASL_MECHANISM": "SCRAM-SHA-512"} | {
    "KAFKA__SASL_USERNAME": "worker",
    "KAFKA__SASL_PASSWORD": CREDENTIALS["kafka password"],
}


class Commands:
    """Commands with the settings of a worker; what they said is kept."""

    def __init__(self, settings: dict[str, str], folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self.said: list[tuple[str, bytes]] = []

    async def run(self, *words: str, within_s: float = DEADLINE_S, **more: str) -> int | None:
        """Its exit code; None where it had to be ended."""
        process = await asyncio.create_subprocess_exec(
            *module_command("app", *words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self._folder,
            env=module_environment(self._settings | more),
        )
        collected = asyncio.ensure_future(process.communicate())
        done, _ = await asyncio.wait({collected}, timeout=within_s)
        if not done:
            process.terminate()
            await asyncio.wait({collected}, timeout=within_s)
        if not collected.done():
            process.kill()
        out, _ = await collected
        self.said.append((" ".join(words), out))
        return process.returncode if done else None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = {"dataset_id": "ds-1", "name": "n"}
    event = VaultEvent.new(VaultEventType.DATASET_CREATED, "/vault", data)
    path = tmp_path / "commands"
    path.mkdir()
    (path / "event.json").write_bytes(encode_structured(checked(event)) + b"\n")
    return path


async def test_no_command_says_a_credential(deployment: Deployment, folder: Path) -> None:
    deployment.settings |= {
        "PARTITIONS": "1",
        "API__ADMIN_TOKEN": CREDENTIALS["admin token"],
        "API__VIEWER_TOKEN": CREDENTIALS["viewer token"],
        "WEBHOOKS__SIGNING_KEYS": json.dumps([signing_key_entry()]),
    }
    (worker,) = await deployment.start("w1")
    await deployment.hook("*")
    event = VaultEvent.new(VaultEventType.DATASET_CREATED, "/vault", {"dataset_id": "ds-1", "name": "n"})
    await deployment.publish([event])
    await deployment.observed(lambda: "ds-1" in deployment.upstreams.registry.datasets, "the registry has the dataset")

    async def sealed() -> bool:
        return (await worker.metric("vault_stream_audit_batches_total")) > 0

    await until(sealed, "a batch is accepted")
    settings = {
        **deployment.settings,
        "BROKERS": deployment.brokers,
        "APP_ID": deployment.app_id,
        "API__URL": worker.url,
        "WEBHOOKS__ENCRYPTION_KEYS": json.dumps([deployment._key]),
        "DATA_DIR": str(folder / "data"),
    }
    commands = Commands(settings, folder)
    ended = {words: await commands.run(*words) for words in COMMANDS}
    ended |= {(*words, "--json"): await commands.run(*words, "--json") for words in COMMANDS}
    assert {words: code for words, code in ended.items() if code != 0} == {}
    # Whom nobody knows is told so, and not what it has said.
    assert await commands.run("webhooks", "list", API__ADMIN_TOKEN=CREDENTIALS["header credential"]) == 1

    assert found(CREDENTIALS, [*commands.said, *everything_below(folder)]) == []
    for place, said in commands.said:
        WATCH.look(place, said)


async def test_who_is_not_let_in_does_not_say_with_what(deployment: Deployment, folder: Path) -> None:
    settings = deployment.settings | REFUSED
    settings |= {"BROKERS": deployment.brokers, "APP_ID": deployment.app_id, "DATA_DIR": str(folder / "data")}
    settings |= {"STATS_PORT": "0", "LOG__LEVEL": "debug,aiokafka=debug,faust=debug,mode=debug"}
    commands = Commands(settings, folder)
    assert await commands.run("publish", "event.json") == 1
    assert await commands.run("topics", "check") == 1
    assert await commands.run("worker", within_s=REACH_S) != 0

    assert all(said for _, said in commands.said)
    assert found(CREDENTIALS, [*commands.said, *everything_below(folder)]) == []
