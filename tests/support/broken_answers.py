"""A server whose answer is bytes that need not be HTTP."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE_S = 5.0


@contextmanager
def answering_once(answer: bytes) -> Iterator[str]:
    """Reads one request, sends the answer and hangs up; the URL."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE_S)
        thread = threading.Thread(target=_serve, args=(listening, answer))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            thread.join()


def _serve(listening: socket.socket, answer: bytes) -> None:
    connection, _ = listening.accept()
    with connection, connection.makefile("rb") as request:
        connection.settimeout(PATIENCE_S)
        length = 0
        while (line := request.readline().strip()) != b"":
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        request.read(length)
        connection.sendall(answer)
