"""A real OpenTelemetry Collector, built from pinned modules, that prints what it takes."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp

from app.devstack.kafka import free_port
from tests.support.collector import SeenSpan
from tests.support.deploy_tools import BUILT, digest, lacking, require
from tests.support.foreign import PACKAGES

SOURCE = PACKAGES / "collector"
BUILD_S = 540
START_S = 60
CONFIG = """\
receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:%d"}}}}
exporters: {debug: {verbosity: detailed}}
service:
  telemetry: {metrics: {level: none}}
  pipelines:
    traces: {receivers: [otlp], exporters: [debug]}
"""
_FIELD = re.compile(r"^    (?P<name>[A-Z][\w ]+?) *: ?(?P<value>.*)$")
_ATTRIBUTE = re.compile(r"^     -> (?P<name>[^:]+): (?P<kind>\w+)\((?P<value>.*)\)$")
_LINK = re.compile(r"^     -> (?P<name>Trace ID|ID): (?P<value>[0-9a-f]+)$")


def program() -> str:
    """The path of the collector; built on first use, which takes minutes."""
    folder = BUILT / f"collector-{digest(SOURCE / 'go.sum', SOURCE / 'main.go')}"
    path = folder / "collector"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = (require("go"), "build", "-mod=readonly", "-o", str(path), ".")
        built = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, timeout=BUILD_S, check=False)
        if built.returncode != 0:
            lacking("go", f"the collector cannot be built: {built.stderr[-2000:]}")
    return str(path)


class RealCollector:
    """A collector that listens on loopback."""

    def __init__(self, port: int, output: Path) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self._output = output

    @property
    def spans(self) -> list[SeenSpan]:
        """All that it has printed."""
        return read_output(self._output.read_text())

    async def answer(self, body: bytes, content_type: str) -> int:
        """The status that it gives to a request."""
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as client,
            client.post(f"{self.endpoint}/v1/traces", data=body, headers={"Content-Type": content_type}) as response,
        ):
            return response.status


@contextmanager
def running(folder: Path) -> Iterator[RealCollector]:
    """Start one, and end it."""
    port, output = free_port(), folder / "collector.log"
    config = folder / "collector.yaml"
    config.write_text(CONFIG % port)
    with output.open("wb") as log:
        process = subprocess.Popen([program(), "--config", str(config)], stdout=log, stderr=log)
    try:
        ends_s = time.monotonic() + START_S
        while "Everything is ready" not in output.read_text():
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < ends_s, output.read_text()
            time.sleep(0.05)
        yield RealCollector(port, output)
    finally:
        process.terminate()
        process.wait(30)


def read_output(text: str) -> list[SeenSpan]:
    """The spans in what the debug exporter prints."""
    spans: list[SeenSpan] = []
    resource: dict[str, str | int] = {}
    fields: dict[str, str] = {}
    attributes: dict[str, str | int] = resource
    links: list[tuple[str, str]] = []
    trace_id = ""

    def end() -> None:
        if fields:
            spans.append(_seen(fields, attributes, resource, links))

    for line in text.splitlines():
        if line.startswith("Span #") or "ResourceSpans #" in line:
            end()
            fields, links, attributes = {}, [], {}
            if "ResourceSpans #" in line:
                attributes = resource = {}
        elif (field := _FIELD.match(line)) is not None:
            fields[field["name"]] = field["value"]
        elif (link := _LINK.match(line)) is not None:
            if link["name"] == "Trace ID":
                trace_id = link["value"]
            else:
                links.append((trace_id, link["value"]))
        elif (attribute := _ATTRIBUTE.match(line)) is not None:
            value = attribute["value"]
            attributes[attribute["name"]] = int(value) if attribute["kind"] == "Int" else value
    end()
    return spans


def _seen(
    fields: dict[str, str],
    attributes: dict[str, str | int],
    resource: dict[str, str | int],
    links: list[tuple[str, str]],
) -> SeenSpan:
    return SeenSpan(
        name=fields["Name"],
        kind=fields["Kind"].lower(),
        trace_id=fields["Trace ID"],
        span_id=fields["ID"],
        parent_id=fields["Parent ID"],
        attributes=attributes,
        resource=resource,
        links=links,
        failed=fields["Status code"] == "Error",
    )
