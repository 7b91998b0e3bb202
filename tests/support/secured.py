"""Workers that reach a secured broker as companies have it, with the rights that we write down."""

from __future__ import annotations

import asyncio
import json
import secrets
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from app.devstack.processes import module_environment
from app.topics import AclRole, TopicAdmin, acls_of, apply, client_config, plan
from app.topics.acls import Acl
from tests.support.secure_kafka import SecureKafka
from tests.support.workers import Deployment, RunningWorker, until

__all__ = ["Secured"]

PARTITIONS = 4


class Secured:
    """One application id on a secured broker.

    Attributes:
        deployment: Its workers come by SASL_SSL; what it publishes and reads itself comes as a super user.
        principal: Who the workers are.
        secrets: Their folder of secrets, with the password.
    """

    def __init__(self, kafka: SecureKafka, deployment: Deployment, folder: Path) -> None:
        self.kafka = kafka
        self.deployment = deployment
        self.user = deployment.app_id
        self.principal = f"User:{self.user}"
        self.passwords: list[str] = []
        self.secrets = folder / "secrets"
        self.secrets.mkdir()
        self.password = self.new_password()
        self.deployment.settings |= {
            "BROKERS": kafka.scram,
            "SECRETS_DIR": str(self.secrets),
            "KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA__SASL_MECHANISM": "SCRAM-SHA-512",
            "KAFKA__SASL_USERNAME": self.user,
            "KAFKA__SSL_CA": str(kafka.authority.file),
        }
        self.keep(self.password)

    @property
    def acls(self) -> tuple[Acl, ...]:
        """What docs and command say that a worker needs."""
        return acls_of(AclRole.WORKER, self.deployment.topics)

    def prepare(self) -> None:
        """The user, its rights, and all topics."""
        self.kafka.user(self.user, self.password)
        self.make_topics()
        self.kafka.allow(self.principal, self.acls)

    def make_topics(self) -> None:
        specs = plan(self.deployment.topics, partitions=PARTITIONS, replication=1)
        apply(specs, TopicAdmin(client_config(self.kafka.bootstrap)))

    def new_password(self) -> str:
        """One that nobody has; it must be found nowhere."""
        self.passwords.append(secrets.token_urlsafe(24))
        return self.passwords[-1]

    def keep(self, password: str) -> None:
        """Put a password into the folder of secrets at one stroke."""
        fresh = self.secrets / ".fresh"
        fresh.write_text(password)
        fresh.replace(self.secrets / "KAFKA__SASL_PASSWORD")

    def use_certificate(self, certificate: Path, key: Path) -> None:
        """Workers come by mTLS instead."""
        for name in ("KAFKA__SASL_MECHANISM", "KAFKA__SASL_USERNAME"):
            self.deployment.settings.pop(name, None)
        (self.secrets / "KAFKA__SASL_PASSWORD").unlink(missing_ok=True)
        self.deployment.settings |= {
            "BROKERS": self.kafka.mtls,
            "KAFKA__SECURITY_PROTOCOL": "SSL",
            "KAFKA__SSL_CERT": str(certificate),
            "KAFKA__SSL_KEY": str(key),
        }

    async def command(self, *arguments: str, stdin: bytes | None = None, **settings: str) -> tuple[int, str, str]:
        """Exit code, output and errors of a command with the workers' settings."""
        own = {"APP_ID": self.deployment.app_id, "PARTITIONS": str(PARTITIONS), **self.deployment.settings, **settings}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "app"),
            *arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.secrets.parent,
            env=module_environment({name: value for name, value in own.items() if value}),
        )
        async with asyncio.timeout(90):
            out, err = await process.communicate(stdin)
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()


async def not_ready_because(worker: RunningWorker, *words: str) -> str:
    """Waits until readiness gives a reason with all these words in it; that reason."""
    seen: Any = None

    async def told() -> str | None:
        nonlocal seen
        status, seen = await worker.get("/health/ready")
        if status != 503 or not isinstance(seen, dict):
            return None
        messages = [check.get("message") or "" for check in seen["checks"]]
        return next((message for message in messages if all(word in message for word in words)), None)

    try:
        return await worker.while_alive(until(told, f"not ready because of {words}"))  # type: ignore[return-value]
    except AssertionError:
        raise AssertionError(f"readiness says {seen}") from None


def logged(worker: RunningWorker, *levels: str) -> list[dict[str, Any]]:
    """What it logged, of these levels."""
    entries = [json.loads(line) for line in worker.log.read_text().splitlines() if line.startswith("{")]
    return [entry for entry in entries if entry["level"] in levels]


def said(worker: RunningWorker, word: str) -> list[str]:
    """Its messages about a refusal that have this word in them."""
    return [e["message"] for e in logged(worker, "ERROR") if "Kafka refuses" in e["message"] and word in e["message"]]


def leaks(paths: Iterable[Path], passwords: Iterable[str]) -> list[str]:
    """Files in which one of the passwords is."""
    wanted = [password.encode() for password in passwords]
    return [str(path) for path in paths if path.is_file() and any(one in path.read_bytes() for one in wanted)]
