"""A collector of traces: OTLP over HTTP, read with the official classes, which refuse what is no protobuf.

with Collector() as collector:
    ...                                   # VAULT_STREAM_TRACING__ENDPOINT=collector.endpoint
    spans = collector.spans
"""

from __future__ import annotations

import gzip
import threading
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from tests.support.canaries import WATCH, Watch

KINDS = {
    SpanMessage.SPAN_KIND_CLIENT: "client",
    SpanMessage.SPAN_KIND_CONSUMER: "consumer",
    SpanMessage.SPAN_KIND_PRODUCER: "producer",
    SpanMessage.SPAN_KIND_INTERNAL: "internal",
}


@dataclass(frozen=True)
class SeenSpan:
    """A span as it arrived; ids in hexadecimal, an absent parent empty."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    resource: dict[str, Any]
    links: list[tuple[str, str]] = field(default_factory=list)
    failed: bool = False

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-01"


class Collector:
    """Listens on loopback, on a port of its own; answers what `answers` says next, else 200.

    Args:
        watch: Searches all that arrives for canaries.
    """

    def __init__(self, watch: Watch = WATCH) -> None:
        self._watch = watch
        self.bodies: list[bytes] = []
        self.spans: list[SeenSpan] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.answers: deque[int] = deque()
        self.hangs = threading.Event()
        self.released = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(
                    collector._take(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
                )
                self.send_header("Location", "http://127.0.0.1:9/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """Nothing on the console."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def named(self, name: str) -> list[SeenSpan]:
        return [span for span in self.spans if span.name == name]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _take(self, path: str, headers: dict[str, str], body: bytes) -> int:
        if self.hangs.is_set():
            self.released.wait()
            return 503
        self.bodies.append(body)
        self.paths.append(path)
        self.headers.append(headers)
        raw = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
        self._watch.look(f"spans sent to {path}", raw)
        if self.answers:
            return self.answers.popleft()
        try:
            self.spans += read_request(raw)
        except DecodeError:
            return 400
        return 200


def read_request(body: bytes) -> list[SeenSpan]:
    """The spans in one request.

    Raises:
        DecodeError: It is no such request.
    """
    request = ExportTraceServiceRequest()
    request.ParseFromString(body)
    return [
        _seen(span, _values(of.resource.attributes))
        for of in request.resource_spans
        for scope in of.scope_spans
        for span in scope.spans
    ]


def _seen(span: SpanMessage, resource: dict[str, Any]) -> SeenSpan:
    return SeenSpan(
        name=span.name,
        kind=KINDS[span.kind],
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        attributes=_values(span.attributes),
        resource=resource,
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        failed=span.status.code == 2,
    )


def _values(attributes: Any) -> dict[str, Any]:
    def value(pair: KeyValue) -> Any:
        return getattr(pair.value, pair.value.WhichOneof("value") or "string_value")

    return {pair.key: value(pair) for pair in attributes}
