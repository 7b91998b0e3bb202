"""A real Apache Kafka on this machine: one node, KRaft, on its own data directory.

`KafkaServer` is a handle: two handles on one data directory speak of the same broker, whichever process started it. The
directory keeps the log, the cluster id, the ports, the pid file and `kafka.log`; a broker started on it again has
everything that was acknowledged before, `kill -9` included.

Errors: `KafkaServerError`, and those of `app.devstack.jars`.
"""

import base64
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from app.devstack.jars import ensure_jars, find_java
from app.devstack.leash import leashed

__all__ = [
    "DEFAULT_PORT",
    "KafkaServer",
    "KafkaServerError",
    "KafkaStatus",
    "default_data_dir",
    "free_port",
    "port_is_free",
]

DEFAULT_PORT: Final = 9092
READY_TIMEOUT_S: Final = 60.0
"""Up in 2 to 3 s on an idle machine; the rest is for a busy one."""
STOP_TIMEOUT_S: Final = 30.0
HEAP_MB: Final = 768

_PROPERTIES: Final = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={log_dir}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=2000
"""
"""The short broker session: after `kill -9` the controller, the same process, waits for it (else 9 s)."""
_LOGGING: Final = """\
rootLogger.level=warn
rootLogger.appenderRef.console.ref=console
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d %p %c %m%n
"""


class KafkaServerError(Exception):
    """The broker cannot be started or stopped; one line says why and what to do."""


@dataclass(frozen=True, slots=True)
class KafkaStatus:
    """What is known of the broker of a data directory."""

    running: bool
    pid: int | None
    bootstrap: str | None
    data_dir: Path


def default_data_dir() -> Path:
    """`$XDG_STATE_HOME/vault-stream/kafka`, by default `~/.local/state/vault-stream/kafka`."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "vault-stream" / "kafka"


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_is_free(port: int) -> bool:
    """Whether nobody listens on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class KafkaServer:
    """The broker of one data directory.

    Args:
        data_dir: where everything is kept; made when missing.
        port: the client port. None: the one used last time on this directory, else a free one.
        leash: whether the broker is killed when this process ends (tests, demo) or outlives it (`kafka start`).
    """

    def __init__(self, data_dir: Path, port: int | None = None, *, leash: bool = False) -> None:
        self.data_dir = data_dir.absolute()
        self._wanted_port = port
        self._leash = leash
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """`host:port` for clients.

        Raises:
            KafkaServerError: the broker was never started on this directory.
        """
        ports = self._ports()
        if ports is None:
            raise KafkaServerError(f"no broker was ever started on {self.data_dir}")
        return f"127.0.0.1:{ports[0]}"

    @property
    def pid(self) -> int | None:
        """The process id of the running broker, or None."""
        try:
            pid = int(self._pid_file.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        # The number may have gone to somebody else since.
        return pid if os.fsencode(self._properties) in command.split(b"\0") else None

    def status(self) -> KafkaStatus:
        """Whether it runs, and where."""
        pid = self.pid
        return KafkaStatus(pid is not None, pid, self.bootstrap if pid is not None else None, self.data_dir)

    def start(self, *, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Starts the broker, if it does not run yet, and waits until it serves.

        Raises:
            KafkaServerError: the port is taken, the broker ended at once, or it did not serve within `timeout_s`.
            JarsError: no Java, no Maven, or no jars.
        """
        if self.pid is not None:
            self._refuse_another_port()
            self.wait_ready(timeout_s=timeout_s)
            return
        if self._process is not None:
            # It ended by itself, or somebody else ended it.
            self._process.poll()
        jars = ensure_jars()
        java = find_java().program
        self._prepare(java, jars)
        command = [
            str(java),
            "-Xms256m",
            f"-Xmx{HEAP_MB}m",
            "-XX:+UseG1GC",
            "-XX:+ExitOnOutOfMemoryError",
            f"-Dlog4j2.configurationFile={self._logging}",
            "-cp",
            f"{jars}/*",
            "kafka.Kafka",
            str(self._properties),
        ]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the user's Java, arguments of ours
                leashed(command) if self._leash else command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data_dir,
                start_new_session=True,
            )
        self._pid_file.write_text(str(self._process.pid))
        self.wait_ready(timeout_s=timeout_s)

    def wait_ready(self, *, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Returns once the broker answers clients.

        Raises:
            KafkaServerError: it ended, or did not answer within `timeout_s`.
        """
        deadline_s = time.monotonic() + timeout_s
        client = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0}, error_cb=_ignore)
        while time.monotonic() < deadline_s:
            with contextlib.suppress(KafkaException):
                if client.list_topics(timeout=0.5).brokers:
                    return
            if self._process is not None and self._process.poll() is not None:
                raise KafkaServerError(f"the broker ended with code {self._process.returncode}: see {self._log}")
        raise KafkaServerError(f"the broker did not answer within {timeout_s:.0f} s: see {self._log}")

    def stop(self, *, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Asks the broker to end, and kills it when it has not within `timeout_s`. Does nothing if it does not run."""
        self._end(signal.SIGTERM, timeout_s)

    def kill(self) -> None:
        """`kill -9`; what was acknowledged stays on the disk. Does nothing if it does not run."""
        self._end(signal.SIGKILL, STOP_TIMEOUT_S)

    def _end(self, number: signal.Signals, timeout_s: float) -> None:
        pid = self.pid
        if pid is not None:
            watch = os.pidfd_open(pid)
            try:
                signal.pidfd_send_signal(watch, number)
                if not _readable(watch, timeout_s):
                    signal.pidfd_send_signal(watch, signal.SIGKILL)
                    _readable(watch, timeout_s)
            finally:
                os.close(watch)
        if self._process is not None:
            self._process.wait()
            self._process = None
        self._pid_file.unlink(missing_ok=True)

    def _prepare(self, java: Path, jars: Path) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        last = self._ports()
        port = self._wanted_port or (last[0] if last else free_port())
        # Nobody but the node itself speaks to it there, so it may be another one each time.
        controller_port = last[1] if last and port_is_free(last[1]) else free_port()
        if not port_is_free(port):
            raise KafkaServerError(f"port {port} is in use: give another with --port, or stop what listens there")
        self._ports_file.write_text(json.dumps({"port": port, "controller_port": controller_port}))
        self._properties.write_text(self._server_properties(port, controller_port))
        self._logging.write_text(_LOGGING)
        if not (self.data_dir / "log" / "meta.properties").exists():
            self._format(java, jars)

    def _server_properties(self, port: int, controller_port: int) -> str:
        return _PROPERTIES.format(port=port, controller_port=controller_port, log_dir=self.data_dir / "log")

    def _format(self, java: Path, jars: Path) -> None:
        command = [
            str(java),
            "-Xmx128m",
            "-XX:TieredStopAtLevel=1",
            "-cp",
            f"{jars}/*",
            "kafka.tools.StorageTool",
            "format",
            "--ignore-formatted",
            "-t",
            _cluster_id(),
            "-c",
            str(self._properties),
        ]
        result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - as in start
        if result.returncode != 0:
            reason = (result.stderr or result.stdout).strip().splitlines()
            raise KafkaServerError(f"cannot format {self.data_dir}: {reason[-1] if reason else 'no reason given'}")

    def _refuse_another_port(self) -> None:
        ports = self._ports()
        if self._wanted_port is not None and ports is not None and ports[0] != self._wanted_port:
            raise KafkaServerError(
                f"the broker on {self.data_dir} runs on port {ports[0]}: stop it first, or give another --data"
            )

    def _ports(self) -> tuple[int, int] | None:
        try:
            kept = json.loads(self._ports_file.read_text())
        except FileNotFoundError:
            return None
        return int(kept["port"]), int(kept["controller_port"])

    @property
    def _properties(self) -> Path:
        return self.data_dir / "server.properties"

    @property
    def _logging(self) -> Path:
        return self.data_dir / "logging.properties"

    @property
    def _log(self) -> Path:
        return self.data_dir / "kafka.log"

    @property
    def _pid_file(self) -> Path:
        return self.data_dir / "kafka.pid"

    @property
    def _ports_file(self) -> Path:
        return self.data_dir / "ports.json"


def _cluster_id() -> str:
    """A random cluster id of 22 URL-safe characters; the first is never `-`, which the format command refuses."""
    return "k" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]


def _readable(watch: int, timeout_s: float) -> bool:
    """Whether the process behind a pidfd ended within the time."""
    return bool(select.select([watch], [], [], timeout_s)[0])


def _ignore(_error: object) -> None:
    """A refused connection is expected while the broker comes up; librdkafka would print it."""
