"""Our signatures, verified by the Standard Webhooks libraries of other languages: accepted as sent, refused changed."""

import json
import time
from pathlib import Path

import pytest

from app.webhooks.secrets import Secret
from app.webhooks.signing import sign_headers
from tests.support.foreign import require_tool, run_tool

pytestmark = pytest.mark.foreign

BODY = b'{"specversion":"1.0","id":"ev-1","source":"/vault","type":"llm.data-vault.dataset.created","data":{"n":1}}'
OLD = Secret("whsec_" + "b2xkLW9sZC1vbGQtb2xkLW9sZC1vbGQtb2xkLW9sZC0=")
NEW = Secret("whsec_" + "bmV3LW5ldy1uZXctbmV3LW5ldy1uZXctbmV3LW5ldy0=")

NODE = """
const { Webhook } = require("standardwebhooks");
const given = JSON.parse(require("fs").readFileSync(0, "utf8"));
try { new Webhook(given.secret).verify(given.body, given.headers); console.log("accepted"); }
catch (error) { console.log("refused: " + error.message); }
"""
GO = """
package main

import (
\t"encoding/json"
\t"fmt"
\t"net/http"
\t"os"

\tstandardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

func main() {
\tvar given struct {
\t\tSecret, Body string
\t\tHeaders      map[string]string
\t}
\tif err := json.NewDecoder(os.Stdin).Decode(&given); err != nil {
\t\tpanic(err)
\t}
\twebhook, err := standardwebhooks.NewWebhook(given.Secret)
\tif err != nil {
\t\tpanic(err)
\t}
\theaders := http.Header{}
\tfor name, value := range given.Headers {
\t\theaders.Set(name, value)
\t}
\tif err := webhook.Verify([]byte(given.Body), headers); err != nil {
\t\tfmt.Println("refused: " + err.Error())
\t\treturn
\t}
\tfmt.Println("accepted")
}
"""


def signed() -> dict[str, str]:
    headers = sign_headers(
        BODY,
        webhook_id="wh_1",
        delivery_id="dlv_1",
        event_id="ev-1",
        event_type="llm.data-vault.dataset.created",
        attempt=1,
        timestamp_s=int(time.time()),
        secrets=[NEW, OLD],
    )
    return {name.lower(): value for name, value in dict(headers).items()}


def question(secret: Secret, body: bytes = BODY) -> str:
    return json.dumps({"secret": secret.text, "body": body.decode(), "headers": signed()})


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    npm, tool = require_tool("npm"), require_tool("node")
    folder = tmp_path_factory.mktemp("node")
    (folder / "package.json").write_text('{"private": true}')
    installed = run_tool(npm, "install", "--no-audit", "--no-fund", "standardwebhooks@1.1.1", cwd=folder)
    assert installed.returncode == 0, installed.stderr
    (folder / "verify.js").write_text(NODE)
    return [str(folder), tool, "verify.js"]


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    tool = require_tool("go")
    folder = tmp_path_factory.mktemp("go")
    (folder / "main.go").write_text(GO)
    steps = (
        ("mod", "init", "verify"),
        ("get", "github.com/standard-webhooks/standard-webhooks/libraries@v0.0.1"),
        ("build", "-o", "verify", "."),
    )
    for step in steps:
        done = run_tool(tool, *step, cwd=folder)
        assert done.returncode == 0, done.stderr
    return [str(folder), str(folder / "verify")]


@pytest.mark.parametrize("language", ["node", "go"])
def test_each_secret_of_a_rotation_verifies_and_a_changed_body_does_not(
    language: str, request: pytest.FixtureRequest
) -> None:
    folder, *command = request.getfixturevalue(language)

    def verdict(asked: str) -> str:
        done = run_tool(*command, cwd=Path(folder), input_=asked)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert verdict(question(NEW)) == "accepted"
    assert verdict(question(OLD)) == "accepted"
    assert verdict(question(NEW, BODY.replace(b'"n":1', b'"n":2'))).startswith("refused")
    assert verdict(question(Secret("whsec_" + "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="))).startswith("refused")
