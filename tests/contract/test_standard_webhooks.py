"""Our signatures and the Standard Webhooks libraries of other languages: what one makes the other takes."""

import base64
import datetime as dt
import json
import os
import time
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks import Webhook, WebhookVerificationError

from app.webhooks.secrets import Secret, new_secret
from app.webhooks.signing import sign_headers, sign_v1
from tests.support.foreign import go_program, must_run, typescript_program
from tests.support.signed_requests import new_signing_key
from tests.unit.webhooks.test_signing import BODY as GOLDEN_BODY
from tests.unit.webhooks.test_signing import KEY, MESSAGE_ID, SECRET, TIMESTAMP_S, V1, V1A

BODY = '{"specversion":"1.0","id":"ev-1","source":"/größe","type":"llm.data-vault.dataset.created","data":{"n":1}}'
OLD, NEW = new_secret(os.urandom), new_secret(os.urandom)
OTHER_KEY = new_signing_key("other")

TYPESCRIPT = """
import { createPublicKey, verify } from "node:crypto";
import { readFileSync } from "node:fs";
import { Webhook } from "standardwebhooks";

const given = JSON.parse(readFileSync(0, "utf8"));
function verdict(): unknown {
  if (given.do === "sign") return new Webhook(given.secret).sign(given.id, new Date(given.at * 1000), given.body);
  if (given.do === "v1a") {
    const content = Buffer.from(`${given.id}.${given.at}.${given.body}`);
    const key = createPublicKey({ key: given.jwk, format: "jwk" });
    return verify(null, content, key, Buffer.from(given.signature.split(",")[1], "base64"));
  }
  try {
    new Webhook(given.secret).verify(given.body, given.headers);
    return true;
  } catch (error) {
    return false;
  }
}
console.log(JSON.stringify(verdict()));
"""
GO = r"""
package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

type question struct {
	Do, Secret, Body, ID, Signature string
	At                              int64
	Headers                         map[string]string
	JWK                             struct{ X string }
}

func verdict(given question) any {
	if given.Do == "v1a" {
		public, _ := base64.RawURLEncoding.DecodeString(given.JWK.X)
		signature, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(given.Signature, "v1a,"))
		return ed25519.Verify(public, []byte(fmt.Sprintf("%s.%d.%s", given.ID, given.At, given.Body)), signature)
	}
	webhook, err := standardwebhooks.NewWebhook(given.Secret)
	if err != nil {
		panic(err)
	}
	if given.Do == "sign" {
		signature, err := webhook.Sign(given.ID, time.Unix(given.At, 0), []byte(given.Body))
		if err != nil {
			panic(err)
		}
		return signature
	}
	headers := http.Header{}
	for name, value := range given.Headers {
		headers.Set(name, value)
	}
	return webhook.Verify([]byte(given.Body), headers) == nil
}

func main() {
	var given question
	if err := json.NewDecoder(os.Stdin).Decode(&given); err != nil {
		panic(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(verdict(given)); err != nil {
		panic(err)
	}
}
"""

Ask = Callable[..., Any]


def signed(at_s: int, **changes: Any) -> dict[str, str]:
    """The headers of an attempt during a rotation, with a v1a signature beside."""
    values: dict[str, Any] = {
        "webhook_id": "wh_1",
        "delivery_id": "dlv_1",
        "event_id": "ev-1",
        "event_type": "llm.data-vault.dataset.created",
        "attempt": 1,
        "timestamp_s": at_s,
        "secrets": [NEW, OLD],
        "signing_key": KEY,
    }
    return dict(sign_headers(BODY.encode(), **(values | changes)))


def in_python(question: dict[str, Any]) -> Any:
    """The library of this language, asked in the same way."""
    if question["do"] == "v1a":
        public = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(question["jwk"]["x"] + "="))
        content = f"{question['id']}.{question['at']}.{question['body']}".encode()
        try:
            public.verify(base64.b64decode(question["signature"].removeprefix("v1a,")), content)
        except InvalidSignature:
            return False
        return True
    webhook = Webhook(question["secret"])
    if question["do"] == "sign":
        return webhook.sign(question["id"], dt.datetime.fromtimestamp(question["at"], dt.UTC), question["body"])
    try:
        webhook.verify(question["body"], question["headers"])
    except WebhookVerificationError:
        return False
    return True


@pytest.fixture(
    scope="module",
    params=[
        "python",
        pytest.param("typescript", marks=pytest.mark.foreign),
        pytest.param("go", marks=pytest.mark.foreign),
    ],
)
def ask(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """Asks a program of a language, which has the library of that language."""
    if request.param == "python":
        return lambda do, **question: in_python({"do": do, **question})
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "go":
        command = go_program(folder, {"main.go": GO})
    else:
        command = typescript_program(folder, {"main.ts": TYPESCRIPT})
    return lambda do, **question: json.loads(must_run(*command, cwd=folder, input_=json.dumps({"do": do, **question})))


def test_both_secrets_of_a_rotation_verify_beside_a_v1a_signature(ask: Ask) -> None:
    headers = signed(int(time.time()))

    assert [ask("verify", secret=one.text, body=BODY, headers=headers) for one in (NEW, OLD)] == [True, True]


@pytest.mark.parametrize("change", ["body", "secret", "id", "too old", "too new", "signature"])
def test_what_was_changed_is_refused(ask: Ask, change: str) -> None:
    now_s = int(time.time())
    headers = signed(now_s + {"too old": -400, "too new": 400}.get(change, 0))
    question = {"secret": NEW.text, "body": BODY, "headers": headers}
    if change == "body":
        question["body"] = BODY.replace('"n":1', '"n":2')
    elif change == "secret":
        question["secret"] = new_secret(os.urandom).text
    elif change == "id":
        headers["webhook-id"] = "dlv_2"
    elif change == "signature":
        headers["webhook-signature"] = sign_v1(OLD, "dlv_1", now_s, BODY.encode())

    assert ask("verify", **question) is False


def test_the_library_makes_the_v1_vector_of_the_contract_and_so_do_we(ask: Ask) -> None:
    made = ask("sign", secret=SECRET.text, id=MESSAGE_ID, at=TIMESTAMP_S, body=GOLDEN_BODY.decode())

    assert made == V1 == sign_v1(SECRET, MESSAGE_ID, TIMESTAMP_S, GOLDEN_BODY)


@pytest.mark.parametrize("size", [24, 25, 32, 64])
def test_a_secret_of_any_size_signs_alike(ask: Ask, size: int) -> None:
    secret = Secret("whsec_" + base64.b64encode(os.urandom(size)).decode())

    assert ask("sign", secret=secret.text, id="dlv_1", at=7, body=BODY) == sign_v1(secret, "dlv_1", 7, BODY.encode())


def test_a_key_of_the_jwks_verifies_v1a_and_another_one_or_another_body_does_not(ask: Ask) -> None:
    question: dict[str, Any] = {"id": MESSAGE_ID, "at": TIMESTAMP_S, "body": GOLDEN_BODY.decode(), "signature": V1A}

    assert ask("v1a", jwk=KEY.public_jwk(), **question) is True
    assert ask("v1a", jwk=OTHER_KEY.public_jwk(), **question) is False
    assert ask("v1a", jwk=KEY.public_jwk(), **(question | {"body": "{}"})) is False
