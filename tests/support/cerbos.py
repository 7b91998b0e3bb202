"""A real policy engine, Cerbos, on loopback: AuthZEN 1.0 that we did not write."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from random import Random
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from app.devstack.kafka import free_port
from tests.support.foreign import PACKAGES, must_run, require_platform, require_tool

EVALUATION = "/access/v1/evaluation"
EVALUATIONS = "/access/v1/evaluations"
ROLES = "cerbos.roles"
"""The property of a subject that its roles are in; under any other name they are silently none."""

_READY_S = 60.0
_ASK_AGAIN_S = 0.05
_ANSWER_S = 30.0


@dataclass
class Cerbos:
    """See the module.

    Attributes:
        url: For an `endpoint` setting.
        binary: The program, which also checks policies.
    """

    url: str
    binary: Path
    process: subprocess.Popen[bytes]

    def ask(self, body: Any, path: str = EVALUATION) -> tuple[int, Any]:
        """One question, straight to it: status and JSON."""
        data = json.dumps(body).encode()
        request = Request(  # noqa: S310  # it is on loopback
            self.url + path, data=data, headers={"Content-Type": "application/json"}
        )
        try:
            with urlopen(request, timeout=_ANSWER_S) as answer:  # noqa: S310
                return answer.status, json.load(answer)
        except HTTPError as error:
            with error:
                return error.code, json.load(error)

    def kill(self) -> None:
        """It is gone at once, in the middle of whatever it does."""
        self.process.kill()
        self.process.wait()


def install_cerbos(folder: Path) -> Path:
    """The program; its version and hash are those of the lock file.

    The test skips without npm, and where there is no program for the machine.
    """
    require_platform("Linux", "x86_64")
    npm = require_tool("npm")
    shutil.copytree(PACKAGES / "cerbos", folder, dirs_exist_ok=True)
    must_run(npm, "ci", "--no-audit", "--no-fund", cwd=folder)
    (binary,) = (folder / "node_modules" / "@cerbos").glob("cerbos-*/cerbos-*")
    return binary


@contextmanager
def running_cerbos(binary: Path, folder: Path) -> Iterator[Cerbos]:
    """A server with the policies of `tests/contract/cerbos`, ready.

    Args:
        binary: From `install_cerbos`.
        folder: For its configuration and log.
    """
    port = free_port()
    configuration = {
        "server": {"httpListenAddr": f"127.0.0.1:{port}", "grpcListenAddr": f"127.0.0.1:{free_port()}"},
        "storage": {"driver": "disk", "disk": {"directory": str(PACKAGES / "cerbos" / "policies")}},
        "telemetry": {"disabled": True},
    }
    file = folder / "cerbos.json"
    file.write_text(json.dumps(configuration))
    with (folder / "cerbos.log").open("wb") as log:
        process = subprocess.Popen([binary, "server", "--config", file], stdout=log, stderr=log)
    cerbos = Cerbos(f"http://127.0.0.1:{port}", binary, process)
    try:
        _wait_until_ready(cerbos, folder / "cerbos.log")
        yield cerbos
    finally:
        cerbos.kill()


def _wait_until_ready(cerbos: Cerbos, log: Path) -> None:
    deadline_s = time.monotonic() + _READY_S
    while time.monotonic() < deadline_s:
        assert cerbos.process.poll() is None, log.read_text()
        try:
            with urlopen(f"{cerbos.url}/_cerbos/health", timeout=_ANSWER_S) as answer:  # noqa: S310
                if answer.status == 200:
                    return
        except (URLError, OSError):
            pass
        time.sleep(_ASK_AGAIN_S)
    raise AssertionError(f"Cerbos is not ready: {log.read_text()}")


PEOPLE: dict[str, dict[str, Any]] = {
    "ann": {ROLES: ["reader"], "team": "red", "clearance": 1},
    "bob": {ROLES: ["editor"], "team": "red", "clearance": 3},
    "cäcilie": {ROLES: ["editor", "reader"], "team": "blue", "clearance": 5},
    "mallory": {ROLES: ["reader"], "team": "red", "clearance": 9},
    "root": {ROLES: ["admin"], "team": "none"},
    "nobody": {"roles": ["admin"], "team": "red", "clearance": 9},
}
RESOURCES = ("ds-red-1", "ds-red-on-hold", "ds-blue-1", "ds-blue-on-hold", "ds/größe 1", "other")
ACTIONS = ("read", "write", "export", "delete", "rename", "read ")


def question(principal: str, action: str, resource: str) -> dict[str, Any]:
    """A question in the vault's dialect; what the engine is to know of the principal is in its context."""
    context = {"subject_properties": PEOPLE[principal], "purpose": "test"}
    return {"principal_id": principal, "action": action, "resource_id": resource, "context": context}


def questions(count: int = 200) -> list[dict[str, Any]]:
    """So many different ones, always the same."""
    every = [question(*parts) for parts in product(PEOPLE, ACTIONS, RESOURCES)]
    return Random(7).sample(every, count)


def in_authzen(asked: dict[str, Any]) -> dict[str, Any]:
    """The question as contracts 3 maps it, written down here once more, independent of the program."""
    return {
        "subject": {
            "type": "principal",
            "id": asked["principal_id"],
            "properties": asked["context"]["subject_properties"],
        },
        "action": {"name": asked["action"]},
        "resource": {"type": "resource", "id": asked["resource_id"]},
        "context": asked["context"],
    }


def in_its_own_api(cerbos: Cerbos, asked: dict[str, Any]) -> bool:
    """The decision by Cerbos's own API, which knows nothing of AuthZEN."""
    properties = dict(asked["context"]["subject_properties"])
    status, answer = cerbos.ask(
        {
            "principal": {
                "id": asked["principal_id"],
                # It asks for at least one.
                "roles": properties.pop(ROLES, ["none"]),
                "attr": properties,
            },
            "resources": [
                {"actions": [asked["action"]], "resource": {"kind": "resource", "id": asked["resource_id"]}},
            ],
        },
        "/api/check/resources",
    )
    assert status == 200, answer
    return bool(answer["results"][0]["actions"][asked["action"]] == "EFFECT_ALLOW")
