"""The embedded cluster: librdkafka's in-process one, in a child process.

Real protocol, nothing kept: four partitions a topic, topics made by asking for their metadata, no fencing, no
compaction, and beyond about 5 MB a partition its oldest records vanish (architecture 9). For a first look without
Java, and for fast tests; never for a guarantee.
"""

import subprocess
import sys
from typing import Final

from confluent_kafka import Producer

from app.devstack.processes import module_command, module_environment

__all__ = ["EMBEDDED_MAX_PARTITION_BYTES", "EMBEDDED_PARTITIONS", "EmbeddedBroker", "EmbeddedBrokerError"]

EMBEDDED_PARTITIONS: Final = 4
EMBEDDED_MAX_PARTITION_BYTES: Final = 4_000_000
"""A fifth below the size at which the oldest records of a partition vanish."""
TIMEOUT_S: Final = 15.0


class EmbeddedBrokerError(Exception):
    """The child process did not come up; its own message says why."""


class EmbeddedBroker:
    """One embedded cluster; it ends with this process at the latest."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._bootstrap = ""

    @property
    def bootstrap(self) -> str:
        """`host:port` for clients, once started."""
        return self._bootstrap

    def start(self) -> None:
        """Starts the cluster and waits until it serves.

        Raises:
            EmbeddedBrokerError: it did not come up.
        """
        self._process = subprocess.Popen(  # noqa: S603 - a module of ours in this interpreter
            module_command("app.devstack.embedded"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=module_environment({}),
            start_new_session=True,
        )
        assert self._process.stdout is not None  # noqa: S101 - a pipe was asked for
        self._bootstrap = self._process.stdout.readline().strip()
        if not self._bootstrap:
            code = self._process.wait()
            self.stop()
            raise EmbeddedBrokerError(f"the embedded cluster ended with code {code} before it served")

    def stop(self) -> None:
        """Ends the cluster, and everything in it. Does nothing if it does not run."""
        process = self._process
        if process is None:
            return
        self._process = None
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()  # the child ends when its input does
        try:
            process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _serve() -> None:
    cluster = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "embedded", "log_level": 0})
    brokers = cluster.list_topics(timeout=TIMEOUT_S).brokers.values()
    sys.stdout.write(",".join(f"{broker.host}:{broker.port}" for broker in brokers) + "\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    _serve()
