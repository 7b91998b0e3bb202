"""The document of the API is valid, by our own validator and a foreign one, and says what is served: nothing less,
nothing more.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from app.devstack.processes import module_environment
from app.web.auth import Role
from app.web.openapi import AREAS, openapi_document, openapi_routes
from tests.support.foreign import require_tool, run_tool
from tests.support.listening import TOKENS, listening

LIST_ROUTES = """
import json
from app.main import build
from app.settings import load_settings
from app.web.auth import _NEEDS
app = build(load_settings()).web._app
routes = [route for route in app.router.routes() if route.method != "HEAD"]
roles = [getattr(route.handler, _NEEDS, None) for route in routes]
print(json.dumps([
    [route.method.lower(), route.resource.canonical, None if role is None else int(role)]
    for route, role in zip(routes, roles)
]))
"""
REDOCLY = "@redocly/cli@2.77.0"
SWAGGER_PARSER = "@apidevtools/swagger-parser@12.1.0"
PARSE = """
const parser = require("@apidevtools/swagger-parser");
parser.validate(process.argv[2]).then(() => console.log("valid"), (error) => console.log("refused: " + error.message));
"""
SAFE = {"get"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi_document(AREAS)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], int | None]:
    """The role that each route of a worker is marked with; it is put together in a process of its own, not started."""
    folder = tmp_path_factory.mktemp("worker")
    done = subprocess.run(
        [sys.executable, "-c", LIST_ROUTES],
        env=module_environment({"DATA_DIR": str(folder / "data"), "BROKERS": "127.0.0.1:1"}),
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return {(method, path): role for method, path, role in json.loads(done.stdout.splitlines()[-1])}


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def schemas_with_examples(found: Any) -> Iterator[tuple[Any, Any]]:
    """Every schema of the document, or of a part, with each of its examples."""
    if isinstance(found, dict):
        if "schema" in found and "example" in found:
            yield found["schema"], found["example"]
        if isinstance(found.get("examples"), list):
            yield from ((found, example) for example in found["examples"])
        for part in found.values():
            yield from schemas_with_examples(part)
    elif isinstance(found, list):
        for part in found:
            yield from schemas_with_examples(part)


def test_it_is_openapi_3_1(document: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(document).validate()
    assert document["openapi"] == "3.1.0"


def test_every_route_is_described_and_nothing_else(
    document: dict[str, Any], served: dict[tuple[str, str], int | None]
) -> None:
    assert {(method, path) for method, path, _ in operations(document)} == served.keys()


def test_every_operation_says_which_token_it_needs(
    document: dict[str, Any], served: dict[tuple[str, str], int | None]
) -> None:
    for method, path, operation in operations(document):
        marked = served[method, path]
        role = Role(marked) if marked is not None else Role.VIEWER if method in SAFE else Role.ADMIN
        expected = [] if role is Role.PUBLIC else [{"token": [role.name.lower()]}]
        assert operation["security"] == expected, (method, path)
        assert ("401" in operation["responses"]) == ("403" in operation["responses"]) == bool(expected)


def test_every_operation_has_a_name_of_its_own(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))


def test_every_operation_with_a_body_says_what_bad_ones_get(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        if "requestBody" in operation:
            assert {"400", "413", "415", "422"} <= operation["responses"].keys(), (method, path)


def test_every_example_is_one(document: dict[str, Any]) -> None:
    registry = Registry().with_resource("doc", Resource.from_contents(document, DRAFT202012))
    examples = list(schemas_with_examples(document))
    assert len(examples) >= 30
    for schema, example in examples:
        absolute = json.loads(json.dumps(schema).replace('"#/', '"doc#/'))
        Draft202012Validator(absolute, registry=registry).validate(example)


def test_every_component_is_used(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    for kind, named in document["components"].items():
        for name in named:
            assert kind == "securitySchemes" or f'"#/components/{kind}/{name}"' in text, (kind, name)


async def test_it_is_served_to_everybody(document: dict[str, Any]) -> None:
    async with listening(openapi_routes(), TOKENS) as api:
        answer = await api.get("/openapi.json")
    assert answer.status == 200
    assert answer.document == document


def broken(document: dict[str, Any]) -> dict[str, Any]:
    """The same with one mistake: a parameter that is nowhere."""
    copy: dict[str, Any] = json.loads(json.dumps(document))
    copy["paths"]["/v1/webhooks"]["get"]["parameters"][0]["in"] = "pth"
    return copy


@pytest.mark.foreign
@pytest.mark.parametrize("tool", ["redocly", "swagger-parser"])
def test_foreign_validators_take_it_and_not_a_broken_one(
    document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    monkeypatch.setenv("REDOCLY_TELEMETRY", "off")
    monkeypatch.setenv("REDOCLY_SUPPRESS_UPDATE_NOTICE", "true")
    npm, node = require_tool("npm"), require_tool("node")
    (tmp_path / "package.json").write_text('{"private": true}')
    package = REDOCLY if tool == "redocly" else SWAGGER_PARSER
    installed = run_tool(npm, "install", "--no-audit", "--no-fund", package, cwd=tmp_path)
    assert installed.returncode == 0, installed.stderr
    (tmp_path / "parse.js").write_text(PARSE)

    def verdict(shown: dict[str, Any]) -> tuple[bool, str]:
        (tmp_path / "openapi.json").write_text(json.dumps(shown))
        lint = ("node_modules/@redocly/cli/bin/cli.js", "lint", "--extends=spec", "openapi.json")
        done = run_tool(node, *(lint if tool == "redocly" else ("parse.js", "openapi.json")), cwd=tmp_path)
        said = done.stdout + done.stderr
        return (done.returncode == 0 if tool == "redocly" else done.stdout.strip() == "valid"), said

    good, said = verdict(document)
    assert good, said
    good, said = verdict(broken(document))
    assert not good, said
