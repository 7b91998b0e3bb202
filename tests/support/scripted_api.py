"""An API that a test scripts, over real HTTP, for commands that call it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from click.testing import CliRunner, Result


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: Any


@dataclass
class Api:
    """Answers in turn with what it was given, the last answer for ever; keeps what it was asked."""

    answers: list[tuple[int, Any]] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)

    def will_answer(self, *answers: Any, status: int = 200) -> None:
        self.answers += [(status, answer) for answer in answers]

    def answer(self, request: Asked) -> tuple[int, bytes]:
        self.asked.append(request)
        status, document = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        return status, b"" if document is None else json.dumps(document).encode()


@contextmanager
def listening_api(scripted: Api) -> Iterator[str]:
    """Serves it; the URL."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
            asked = Asked(self.command, path, query, dict(self.headers), json.loads(body) if body else None)
            status, content = scripted.answer(asked)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_DELETE = handle_any  # noqa: N815  # the names that http.server looks for

        def log_message(self, *_arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def run(group: Any, *arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(group, list(arguments), input=stdin)


def page(*items: Any, cursor: str | None = None, **more: Any) -> dict[str, Any]:
    return {"items": list(items), "next_cursor": cursor, **more}
