"""`vault-stream dev` as a stranger runs it: a process, its lines, and Ctrl-C."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from app.devstack.kafka import port_is_free
from app.devstack.processes import module_environment
from tests.support.cli import Cli

DEADLINE_S = 120.0
PAGE = (Path(__file__).parents[2] / "docs" / "trying-it.md").read_text()


class Dev:
    """One run of it.

    Attributes:
        lines: What it has printed so far.
    """

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.mark = f"dev-{uuid.uuid4()}"
        self.lines: list[str] = []
        self._folder = folder
        environment = {**module_environment({}), "XDG_STATE_HOME": str(folder / "state"), "RUN_OF_DEV": self.mark}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app", "dev", "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def line(self, pattern: str) -> str:
        """The first line that matches, waited for."""

        def found() -> str | None:
            return next((line for line in self.lines if re.search(pattern, line)), None)

        return until(lambda: found() or (None if self.process.poll() is None else self._ended()), pattern)

    def _ended(self) -> str:
        assert self.process.stderr is not None
        raise AssertionError(f"dev ended with {self.process.returncode}: {self.process.stderr.read()}")

    @property
    def cli(self) -> Cli:
        """The other commands, with the settings that it prints for them."""
        exported = self.line("export VAULT_STREAM_BROKERS=")
        return Cli(dict(re.findall(r"VAULT_STREAM_(\w+)=(\S+)", exported)), self._folder)

    def received(self, pattern: str) -> str:
        return self.line(rf"^received +{pattern}")

    def left(self) -> list[str]:
        """Processes that were started by it and are still there."""
        found = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            try:
                if f"RUN_OF_DEV={self.mark}".encode() in environ.read_bytes():
                    found.append((environ.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
        return found

    def interrupt(self, times: int = 1) -> str:
        """Ctrl-C, as a terminal sends it; what it said meanwhile, once it has ended as it should."""
        assert self.process.stderr is not None
        for _ in range(times):
            self.process.send_signal(signal.SIGINT)
            time.sleep(0.2)
        code = self.process.wait(DEADLINE_S)
        said = self.process.stderr.read()
        self._reader.join(DEADLINE_S)
        assert code == 0, said
        assert "Traceback" not in said
        assert said.endswith("ended\n")
        until(lambda: not self.left(), f"its children have gone: {self.left()}")
        return said


def until(condition: Callable[[], Any], what: str) -> Any:
    ends_s = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        assert time.monotonic() < ends_s, f"not within {DEADLINE_S:.0f} s: {what}"
        time.sleep(0.1)
    return value


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[Dev]:
    dev = Dev(folder, *arguments)
    try:
        yield dev
    finally:
        if dev.process.poll() is None:
            os.killpg(dev.process.pid, signal.SIGKILL)
            dev.process.wait()
        for pipe in (dev.process.stdout, dev.process.stderr):
            if pipe is not None:
                pipe.close()


def shown_on_the_page() -> list[str]:
    return re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)[0].splitlines()


def plain(line: str) -> str:
    line = re.sub(r"127\.0\.0\.1:\d+", "ADDRESS", line)
    line = re.sub(r"/\S+/worker\.log", "LOG", line).replace("(embedded)", "(kafka)")
    return re.sub(r"\S+( -m app)? publish --sample", "vault-stream publish --sample", line)


def post(url: str, body: Any) -> None:
    """What the console does."""
    headers = {"Content-Type": "application/json"}
    request = Request(url, json.dumps(body).encode(), headers)  # noqa: S310  # it is on loopback
    with urlopen(request, timeout=DEADLINE_S) as answer:  # noqa: S310  # likewise
        assert answer.status < 300


def port_of(line: str) -> int:
    return int(re.findall(r":(\d+)", line)[-1])


def test_a_stranger_sees_an_event_arrive_at_a_webhook_of_theirs_and_resends_it(tmp_path: Path) -> None:
    with running(tmp_path, "--broker", "embedded") as dev:
        console = dev.line("^console ")
        assert dev.lines[0] == console
        assert "publish --sample" in dev.line("publish --sample")
        dev.line("^Ctrl-C ends")
        # The page shows what is printed, but for the numbers and folders of this run.
        assert [plain(line) for line in dev.lines] == [plain(line) for line in shown_on_the_page()]
        inbox = dev.line("/inbox ").split()[0]
        api = dev.cli.settings["API__URL"]
        post(f"{api}/v1/webhooks", {"url": f"{inbox}/mine", "events": ["dataset.*"]})

        published = dev.cli.run("publish", "--sample")
        assert published.returncode == 0, published.stderr
        event = published.stderr.split()[-1]
        assert dev.received(rf"/hook .*event {event} .*the signature holds")
        delivery = re.findall(r"dlv_\w+", dev.received(rf"/inbox/mine +dataset.created +event {event} "))[0]

        post(f"{api}/v1/deliveries/{delivery}/resend", {})
        assert dev.received(rf"/inbox/mine .*{delivery}, time 2")

        said = dev.interrupt()
        assert "nothing is kept" in said
        assert port_is_free(port_of(console))


@pytest.mark.prove
@pytest.mark.kafka
def test_on_kafka_the_next_run_has_the_webhooks_of_the_last_one(tmp_path: Path) -> None:
    with running(tmp_path, "--broker", "kafka", "--broker-port", "0") as first:
        inbox = first.line("/inbox ").split()[0]
        cli = first.cli
        made = cli.json("webhooks", "create", "--url", f"{inbox}/mine", "--events", "dataset.*")
        assert cli.run("publish", "--sample").returncode == 0
        first.received("/inbox/mine")
        before = cli.json("webhooks", "list")["items"]
        # Twice: it does not wait for what is under way.
        first.interrupt(times=2)

    with running(tmp_path, "--broker", "kafka", "--broker-port", "0") as second:
        cli = second.cli
        assert second.line("/inbox ").split()[0] == inbox
        assert cli.json("webhooks", "list")["items"] == before
        assert made["id"] in {webhook["id"] for webhook in before}
        published = cli.run("publish", "--sample")
        event = published.stderr.split()[-1]
        assert second.received(rf"/hook .*event {event} .*the signature holds")
        assert second.received(rf"/inbox/mine .*event {event} ")
        second.interrupt()
