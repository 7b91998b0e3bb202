"""The broker of a demo or of `dev`, of either kind, behind one context manager."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from app.devstack.embedded import EmbeddedBroker
from app.devstack.kafka import KafkaServer
from app.topics import TopicAdmin, TopicSpec, apply, client_config

__all__ = ["BrokerKind", "RunningBroker", "running_broker"]

BrokerKind = Literal["embedded", "kafka"]


@dataclass(frozen=True, slots=True)
class RunningBroker:
    """A broker that serves, until its context ends."""

    kind: BrokerKind
    bootstrap: str

    def create_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Creates what is missing."""
        apply(specs, TopicAdmin(client_config(self.bootstrap)))


@contextmanager
def running_broker(kind: BrokerKind, folder: Path, port: int | None = None) -> Iterator[RunningBroker]:
    """Starts a broker and stops it in the end. Blocks for seconds: before the loop runs, not in it.

    Args:
        kind: `kafka` keeps its log in `folder`, `embedded` keeps nothing.
        folder: where `kafka` lives.
        port: the client port of `kafka`; None: the last one of the folder, else a free one.
    """
    server = KafkaServer(folder, port, leash=True) if kind == "kafka" else EmbeddedBroker()
    try:
        server.start()
        yield RunningBroker(kind, server.bootstrap)
    finally:
        server.stop()
