"""What the README shows is run."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from app.devstack.kafka import KafkaServer
from app.webhooks.secrets import new_secret
from app.webhooks.signing import sign_headers

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def run(*command: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.kafka
def test_the_publishing_example_publishes(kafka: KafkaServer, unique: Callable[[str], str], tmp_path: Path) -> None:
    settings = {
        "VAULT_STREAM_BROKERS": kafka.bootstrap,
        "VAULT_STREAM_APP_ID": unique("readme"),
        "VAULT_STREAM_PARTITIONS": "1",
    }
    applied = run("-m", "app", "topics", "apply", **settings)
    # Another test may have made the vault's topics with its own partition count, which is nobody's difference.
    assert applied.returncode in {0, 1}, applied.stderr
    example = blocks("python")[0]
    script = tmp_path / "example.py"
    script.write_text(example.replace("localhost:9092", kafka.bootstrap))

    done = run(str(script), PYTHONPATH=str(ROOT))

    assert done.returncode == 0, done.stderr


COMMANDS = sorted(
    {
        re.match(r"(?:\.venv/bin/)?vault-stream((?: [a-z][a-z-]+)+)", line).group(1).strip()
        for block in blocks("sh")
        for line in block.splitlines()
        if re.match(r"(\.venv/bin/)?vault-stream [a-z]", line)
    }
)


def test_the_receiving_example_verifies_what_we_sign() -> None:
    example = blocks("python")[1]
    secret = new_secret(os.urandom)
    body = b'{"specversion":"1.0"}'
    headers = sign_headers(
        body,
        webhook_id="wh_1",
        delivery_id="dlv_1",
        event_id="ev-1",
        event_type="llm.data-vault.dataset.created",
        attempt=1,
        timestamp_s=int(time.time()),
        secrets=[secret],
    )
    names = {"body": body, "headers": dict(headers)}

    exec(example.replace("whsec_…", secret.text), names)  # noqa: S102  # it is ours, and it is the test

    assert names["event"] == {"specversion": "1.0"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_in_the_readme_exists_and_shows_an_example(command: str) -> None:
    shown = run("-m", "app", *command.split(), "--help")

    assert shown.returncode == 0, shown.stderr
    assert "Example: " in shown.stdout


def test_the_readme_names_the_two_commands_that_a_stranger_needs() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert {"make demo", "make test"} <= {block.strip() for block in blocks("sh")}
    assert set(re.findall(r"make ([a-z-]+)", README)) <= targets
