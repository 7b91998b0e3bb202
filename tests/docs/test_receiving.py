"""The code for receivers is run, each block in its language, against requests as they arrive."""

from __future__ import annotations

import base64
import json
import os
import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import WebhookVerificationError

from app.webhooks.schedule import DEFAULT_STEPS_S
from app.webhooks.secrets import new_secret
from tests.support.foreign import go_program, must_run, require_tool, typescript_program
from tests.support.signed_requests import Arrived, arrived, new_signing_key

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "receiving-webhooks.md").read_text()
OLD, NEW, OTHER = (new_secret(os.urandom) for _ in range(3))
KEY, OTHER_KEY = new_signing_key("key-1"), new_signing_key("key-2")

TYPESCRIPT_MAIN = """
import { readFileSync } from "node:fs";
import { simple, v1, v1a } from "./receiving.js";

const given = JSON.parse(readFileSync(0, "utf8"));
const body = Buffer.from(given.body, "base64");
let holds = true;
try { v1(given.secret, given.headers, body); } catch { holds = false; }
const key = v1a(given.jwks, given.headers, body);
console.log(JSON.stringify({ v1: holds, v1a: key, simple: simple(given.secret, given.headers, body) }));
"""
GO_MAIN = r"""
package main

import (
	"encoding/json"
	"net/http"
	"os"

	"verify/receiving"
)

func main() {
	var given struct {
		Secret  string
		JWKS    receiving.JWKS
		Headers map[string]string
		Body    []byte
	}
	if err := json.NewDecoder(os.Stdin).Decode(&given); err != nil {
		panic(err)
	}
	headers := http.Header{}
	for name, value := range given.Headers {
		headers.Set(name, value)
	}
	verdict := map[string]bool{
		"v1":     receiving.V1(given.Secret, headers, given.Body) == nil,
		"v1a":    receiving.V1a(given.JWKS, headers, given.Body),
		"simple": receiving.Simple(given.Secret, headers, given.Body),
	}
	if err := json.NewEncoder(os.Stdout).Encode(verdict); err != nil {
		panic(err)
	}
}
"""

Verdict = dict[str, bool]
Verify = Callable[[dict[str, Any]], Verdict]


def block(language: str) -> str:
    """The one block in this language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
    return str(found)


def in_python(question: dict[str, Any]) -> Verdict:
    names: dict[str, Any] = {}
    exec(block("python"), names)  # noqa: S102  # it is ours, and it is the test
    secret, headers, body = question["secret"], question["headers"], base64.b64decode(question["body"])
    try:
        holds = names["v1"](secret, headers, body) == json.loads(body)
    except WebhookVerificationError:
        holds = False
    return {
        "v1": holds,
        "v1a": names["v1a"](question["jwks"], headers, body),
        "simple": names["simple"](secret, headers, body),
    }


def in_shell(folder: Path) -> Verify:
    shell = require_tool("sh")
    for tool in ("openssl", "curl"):
        require_tool(tool)

    def verify(question: dict[str, Any]) -> Verdict:
        (folder / "body.json").write_bytes(base64.b64decode(question["body"]))
        with serving(question["jwks"]) as url:
            headers = question["headers"]
            given = {
                "vault_stream": url,
                "secret": question["secret"],
                **{name.replace("-", "_"): value for name, value in headers.items() if "webhook" in name},
            }
            lines = [f"{name}='{value}'" for name, value in given.items()]
            printed = must_run(shell, "-c", "\n".join([*lines, block("sh")]), cwd=folder)
        return {name: f"{name} holds" in printed.splitlines() for name in ("v1", "v1a", "simple")}

    return verify


class serving:  # noqa: N801 - used as a function
    """Serves the public keys while the block runs; yields where."""

    def __init__(self, jwks: dict[str, Any]) -> None:
        document = json.dumps(jwks).encode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                known = self.path == "/.well-known/webhook-keys.json"
                self.send_response(200 if known else 404)
                self.end_headers()
                self.wfile.write(document if known else b"")

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def verifier(language: str, folder: Path) -> Verify:
    if language == "python":
        return in_python
    if language == "sh":
        return in_shell(folder)
    if language == "go":
        command = go_program(folder, {"main.go": GO_MAIN, "receiving/receiving.go": block("go")})
    else:
        command = typescript_program(folder, {"main.ts": TYPESCRIPT_MAIN, "receiving.ts": block("typescript")})
    return lambda question: json.loads(must_run(*command, cwd=folder, input_=json.dumps(question)))


@pytest.fixture(
    scope="module",
    params=[
        "python",
        "sh",
        pytest.param("typescript", marks=pytest.mark.foreign),
        pytest.param("go", marks=pytest.mark.foreign),
    ],
)
def language(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def verify(language: str, tmp_path_factory: pytest.TempPathFactory) -> Verify:
    """Runs the block of a language."""
    return verifier(language, tmp_path_factory.mktemp(language))


def question(request: Arrived, **changes: Any) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "secret": NEW.text,
        "jwks": {"keys": [OTHER_KEY.public_jwk(), KEY.public_jwk()]},
        "headers": request.headers,
        "body": base64.b64encode(request.body).decode(),
    }
    return asked | changes


def now_ms() -> int:
    return int(time.time() * 1000)


def test_a_request_verifies_in_each_of_the_three_ways(verify: Verify) -> None:
    request = arrived([NEW], KEY, now_ms())

    assert verify(question(request)) == {"v1": True, "v1a": True, "simple": True}


def test_during_a_rotation_v1_holds_for_both_secrets_and_the_seeds_header_for_the_old_one(verify: Verify) -> None:
    request = arrived([NEW, OLD], KEY, now_ms())

    assert verify(question(request)) == {"v1": True, "v1a": True, "simple": False}
    assert verify(question(request, secret=OLD.text)) == {"v1": True, "v1a": True, "simple": True}


def test_another_body_does_not_verify(verify: Verify) -> None:
    request = arrived([NEW], KEY, now_ms())
    changed = base64.b64encode(request.body.replace(b"ds-1", b"ds-2")).decode()

    assert verify(question(request, body=changed)) == {"v1": False, "v1a": False, "simple": False}


def test_another_secret_and_another_key_do_not_verify(verify: Verify) -> None:
    request = arrived([NEW], KEY, now_ms())
    other = {"keys": [OTHER_KEY.public_jwk()]}

    assert verify(question(request, secret=OTHER.text, jwks=other)) == {"v1": False, "v1a": False, "simple": False}


def test_a_signature_of_a_version_to_come_is_passed_by(verify: Verify) -> None:
    request = arrived([NEW], KEY, now_ms())
    request.headers["webhook-signature"] = "v9,abc " + request.headers["webhook-signature"]

    assert verify(question(request)) == {"v1": True, "v1a": True, "simple": True}


@pytest.mark.parametrize("minutes", [-10, 10])
def test_an_old_request_and_one_from_the_future_are_refused(verify: Verify, language: str, minutes: int) -> None:
    request = arrived([NEW], KEY, now_ms() + minutes * 60_000)
    # The shell looks at a request by hand, whenever it came.
    in_time = language == "sh"

    assert verify(question(request)) == {"v1": in_time, "v1a": in_time, "simple": True}


def test_the_schedule_is_the_one_of_the_document() -> None:
    units = {"s": 1, "min": 60, "h": 3600}
    (sentence,) = re.findall(r"Attempts come at once, then after (.*?) \(and", DOCUMENT, re.DOTALL)
    steps = [int(number) * units[unit] for number, unit in re.findall(r"(\d+) (s|min|h)", sentence)]

    assert (0, *steps) == DEFAULT_STEPS_S
