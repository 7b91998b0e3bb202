"""Every way to publish that docs/producing-events.md shows is gone, and what was published arrives.

In `make test` what curl would send is sent from Python; with curl and jq themselves it is a test of foreign tools.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest
from jsonschema import Draft202012Validator

from app.devstack.kafka import KafkaServer
from app.events import VaultEventType
from app.web.openapi import AREAS, openapi_document
from tests.support.foreign import require_tool
from tests.support.workers import DEADLINE_S, Deployment

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "producing-events.md").read_text()
BEFORE = "set -euo pipefail\nvault-stream() { " + sys.executable + ' -m app "$@"; }\n'


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)


def deleted(id_: str) -> dict[str, object]:
    type_ = str(VaultEventType.DATASET_DELETED)
    return {"specversion": "1.0", "id": id_, "source": "/vault/eu-1", "type": type_, "data": {"dataset_id": "ds-1"}}


@pytest.fixture
async def deployment(kafka: KafkaServer, unique: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Deployment]:
    async with Deployment(kafka.bootstrap, unique("app"), tmp_path) as deployment:
        yield deployment


class Shell:
    """Runs what the page shows, against a worker and a broker of this test."""

    def __init__(self, deployment: Deployment, folder: Path) -> None:
        worker, prefix = deployment.workers["w1"], deployment.topics.prefix
        self._folder = folder
        self._instead = {
            "localhost:8088": worker.url.removeprefix("http://"),
            'brokers=["localhost:9092"]': f'brokers=["{deployment.brokers}"], topic_prefix="{prefix}"',
            "localhost:9092": deployment.brokers,
            '"vault." +': f'"{prefix}." +',
        }
        self._environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "VAULT_STREAM_BROKERS": deployment.brokers,
            "VAULT_STREAM_APP_ID": deployment.app_id,
            "VAULT_STREAM_TOPIC_PREFIX": prefix,
            "VAULT_STREAM_API__URL": worker.url,
        }

    async def bash(self, block: str) -> str:
        """A block as it stands."""
        return await self.run("bash", "-c", text=BEFORE + block)

    async def post(self, block: str) -> None:
        """What curl would send by a block; each request is accepted as a whole."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE_S)) as client:
            for url, headers, body in requests_of(self._here(block), self._folder):
                async with client.post(url, data=body, headers=headers) as answer:
                    told = json.loads(await answer.read())
                    assert (answer.status, told.get("errors")) == (202, []), told

    def _here(self, text: str) -> str:
        for there, here in self._instead.items():
            text = text.replace(there, here)
        return text

    async def run(self, *command: str, text: str) -> str:
        text = self._here(text)
        done = await asyncio.to_thread(
            subprocess.run,
            [*command, text],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.returncode == 0, (text, done.stdout, done.stderr)
        return done.stdout


def requests_of(block: str, folder: Path) -> list[tuple[str, dict[str, str], bytes]]:
    """URL, headers and body of each call of curl; the folder has the files that it names."""
    found = []
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        piped = b""
        if "|" in words:
            at = words.index("|")
            jq, words = words[:at], words[at + 1 :]
            assert jq[:3] == ["jq", "-s", "."]
            piped = b"[" + b",".join((folder / jq[3]).read_bytes().splitlines()) + b"]"
        if words:
            found.append(_request(words, folder, piped))
    return found


def _request(words: list[str], folder: Path, piped: bytes) -> tuple[str, dict[str, str], bytes]:
    assert words[:3] == ["curl", "-sS", "--fail-with-body"]
    options, url = words[3:-1], words[-1]
    headers, body = {}, b""
    for option, value in zip(options[::2], options[1::2], strict=True):
        if option == "-H":
            name, _, headers[name] = value.partition(": ")
        else:
            assert option == "-d"
            body = _data(value, folder, piped)
    # Else curl would say that it is a form.
    assert "Content-Type" in headers
    return f"http://{url}", headers, body


def _data(value: str, folder: Path, piped: bytes) -> bytes:
    if value == "@-":
        return piped
    # As curl does.
    return (folder / value[1:]).read_bytes().replace(b"\n", b"") if value.startswith("@") else value.encode()


def write_files(folder: Path) -> None:
    folder.mkdir()
    (event,) = blocks("json")
    (folder / "event.json").write_text(event)
    (folder / "events.jsonl").write_text("".join(json.dumps(deleted(f"line-{n}")) + "\n" for n in range(2)))


async def prepared(deployment: Deployment, folder: Path) -> Shell:
    """A worker, and a folder with the files that the page speaks of."""
    await deployment.start("w1")
    write_files(folder)
    return Shell(deployment, folder)


async def arrived(deployment: Deployment) -> Counter[str]:
    """How often each event is on the vault's topics, once the dashboard has them all and none is in quarantine."""
    topics = deployment.topics
    records = await deployment.read(*(topic for topic in topics.vault if topic != topics.events))
    ids = Counter(json.loads(record.value() or b"{}").get("id", "") for record in records)
    wanted = {("/vault/eu-1", id_) for id_ in ids}
    await deployment.observed(lambda: wanted <= deployment.upstreams.dashboard.events, "the dashboard has all")
    assert await deployment.read(topics.quarantine) == []
    return ids


@pytest.mark.kafka
async def test_http_and_any_client_of_kafka_lead_to_the_topics(deployment: Deployment, tmp_path: Path) -> None:
    shell = await prepared(deployment, tmp_path / "publisher")
    (http,) = (block for block in blocks("sh") if "/v1/events" in block)
    (client,) = (block for block in blocks("python") if "confluent_kafka" in block)
    await asyncio.gather(shell.post(http), shell.run(sys.executable, "-c", text=client))
    assert await arrived(deployment) == {"7d1c2a4e-1": 2, "7d1c2a4e-2": 1, "line-0": 1, "line-1": 1}


@pytest.mark.kafka
@pytest.mark.foreign
async def test_every_way_leads_to_the_topics(deployment: Deployment, tmp_path: Path) -> None:
    for tool in ("bash", "curl", "jq"):
        require_tool(tool)
    shell = await prepared(deployment, tmp_path / "publisher")
    for block in blocks("sh"):
        await shell.bash(block)
    for example in blocks("python"):
        await shell.run(sys.executable, "-c", text=example)
    ids = await arrived(deployment)
    made = {id_ for id_ in ids if len(id_) == 36}
    assert len(made) == 3
    known = {id_: ids[id_] for id_ in ids if id_ not in made}
    assert known == {"7d1c2a4e-1": 3, "7d1c2a4e-2": 1, "line-0": 2, "line-1": 2}


def test_the_reasons_and_limits_are_those_of_the_program() -> None:
    from app.events import MAX_EVENT_BYTES  # noqa: PLC0415
    from app.web.events import MAX_EVENTS  # noqa: PLC0415
    from app.web.server import MAX_BODY_BYTES  # noqa: PLC0415

    assert f"At most {MAX_EVENT_BYTES // 1024} KiB a record" in DOCUMENT
    assert f"at most {MAX_EVENTS:,} events and {MAX_BODY_BYTES >> 20} MiB" in DOCUMENT
    for reason in ("invalid_envelope", "unknown_type", "invalid_data", "too_large"):
        assert f"| `{reason}` |" in DOCUMENT


def test_an_entry_of_a_refused_event_is_as_the_page_shows_it() -> None:
    (shown,) = re.findall(r'`(\{"field".*?\})`', DOCUMENT, re.DOTALL)
    schema = openapi_document(AREAS)["components"]["schemas"]["RefusedEvent"]
    Draft202012Validator(schema).validate(json.loads(shown))
    assert "such as `/1/source`" in DOCUMENT
    Draft202012Validator(schema).validate({**json.loads(shown), "field": "/1/source"})


def test_every_link_between_the_pages_leads_somewhere() -> None:
    wrong = []
    for page in sorted((ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if "://" in target:
                continue
            path, _, anchor = target.partition("#")
            there = (page.parent / path).resolve() if path else page
            if not there.exists() or (anchor and anchor not in anchors(there)):
                wrong.append(f"{page.name}: {target}")
    assert wrong == []


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.strip().lower()).replace(" ", "-") for head in heads}
