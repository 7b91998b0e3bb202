"""The documents of the stand-ins: valid, complete, and what is answered is what they say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from app.devstack.registry_standin import DatasetRegistry, RegistryBook
from app.devstack.stack import Upstreams, listening
from app.devstack.standins import Observations, Standin

EVENT = {
    "id": "e1",
    "source": "/vault",
    "partition": 0,
    "sequence": 4,
    "category": "access",
    "occurred_at": "2026-01-02",
}
REPORT = {"start_date": "2026-01-01", "end_date": "2026-02-01"}
AUTHZEN = {
    "subject": {"type": "principal", "id": "bob"},
    "action": {"name": "read"},
    "resource": {"type": "resource", "id": "ds"},
}
LINK = {"dataset_id": "ds", "model_id": "m", "relationship": "test_data"}
QUESTION = {"principal_id": "bob", "action": "read", "resource_id": "ds"}
CALLS: dict[str, list[tuple[str, str, Any, dict[str, str]]]] = {
    "dashboard": [
        ("post", "/api/v1/audit/events/batch", [EVENT], {"Idempotency-Key": "k"}),
        ("post", "/api/v1/audit/events/batch", [EVENT], {"Idempotency-Key": "k"}),
        ("post", "/api/v1/audit/events/batch", [EVENT], {}),
        ("post", "/api/v1/audit/events/batch", [{}], {"Idempotency-Key": "other"}),
        ("post", "/api/v1/audit/events/batch", "junk", {"Idempotency-Key": "other"}),
        ("post", "/api/v1/reports/{type}", REPORT | {"format": "json"}, {"type": "soc2"}),
        ("post", "/api/v1/reports/{type}", REPORT | {"format": "csv"}, {"type": "hipaa"}),
        ("post", "/api/v1/reports/{type}", REPORT | {"format": "pdf"}, {"type": "data_inventory"}),
        ("post", "/api/v1/reports/{type}", REPORT | {"format": "doc"}, {"type": "soc2"}),
        ("post", "/api/v1/reports/{type}", REPORT | {"format": "json"}, {"type": "gossip"}),
    ],
    "policy": [
        ("post", "/api/v1/evaluate/access", QUESTION, {}),
        ("post", "/api/v1/evaluate/access", {}, {}),
        ("post", "/api/v1/evaluate/access", None, {}),
        ("get", "/api/v1/policies/applicable/{resource}", None, {"resource": "ds"}),
        ("post", "/api/v1/violations", {"violation_id": "v"}, {"Idempotency-Key": "k"}),
        ("post", "/api/v1/violations", {"violation_id": "v"}, {"Idempotency-Key": "k"}),
        ("post", "/api/v1/violations", {"violation_id": "v"}, {}),
        ("post", "/access/v1/evaluation", AUTHZEN, {}),
        ("post", "/access/v1/evaluation", {}, {}),
        ("post", "/access/v1/evaluations", AUTHZEN | {"evaluations": [{}, {"action": {}}]}, {}),
        ("post", "/access/v1/evaluations", AUTHZEN, {}),
        ("get", "/.well-known/authzen-configuration", None, {}),
        ("get", "/rules", None, {}),
        ("put", "/rules", {}, {}),
    ],
    "registry": [
        ("post", "/api/v1/datasets", {"id": "ds"}, {}),
        ("post", "/api/v1/datasets", {"id": "ds"}, {}),
        ("post", "/api/v1/datasets", {"id": 7}, {}),
        ("get", "/api/v1/datasets", None, {}),
        ("get", "/api/v1/datasets?cursor=x", None, {}),
        ("delete", "/api/v1/datasets/{id}", None, {"id": "ds"}),
        ("delete", "/api/v1/datasets/{id}", None, {"id": "ds"}),
        ("post", "/api/v1/models/{model_id}/datasets", LINK, {"model_id": "m"}),
        ("post", "/api/v1/models/{model_id}/datasets", LINK, {"model_id": "m"}),
        ("post", "/api/v1/models/{model_id}/datasets", LINK, {"model_id": "n"}),
    ],
}
KEYS = ({"Idempotency-Key": key} for key in "abcdefgh")
CALLS["whole_registry"] = [
    ("post", "/api/v1/datasets", {"id": "ds", "name": "n"}, next(KEYS)),
    ("post", "/api/v1/datasets", {"id": "ds", "name": "m"}, next(KEYS)),
    ("post", "/api/v1/datasets", {"id": "ds"}, {}),
    ("post", "/api/v1/datasets", {"id": 7}, next(KEYS)),
    ("post", "/api/v1/datasets", {"id": "taken"}, next(KEYS)),
    ("get", "/api/v1/datasets", None, {}),
    ("get", "/api/v1/datasets?cursor=x", None, {}),
    ("post", "/api/v1/models/{model_id}/datasets", LINK, {"model_id": "m"} | next(KEYS)),
    ("post", "/api/v1/models/{model_id}/datasets", LINK | {"dataset_id": "x"}, {"model_id": "m"} | next(KEYS)),
    ("delete", "/api/v1/datasets/{id}", None, {"id": "ds"} | next(KEYS)),
    ("delete", "/api/v1/datasets/{id}", None, {"id": "ds"} | next(KEYS)),
]
CONTROLS: list[tuple[str, str, Any, dict[str, str]]] = [
    ("post", "/control", {"statsu": 1}, {}),
    ("delete", "/control", None, {}),
    ("put", "/token", {"token": None}, {}),
    ("put", "/token", {"token": 7}, {}),
    ("get", "/observed", None, {}),
]


@pytest.fixture
async def upstreams() -> AsyncIterator[Upstreams]:
    made = Upstreams.new(Observations())
    async with listening(*made.all):
        yield made


@pytest.fixture
async def whole_registry() -> AsyncIterator[DatasetRegistry]:
    registry = DatasetRegistry(Observations(), RegistryBook(other_names={"taken": "other"}))
    async with listening(registry):
        yield registry


@pytest.fixture
def standin(request: pytest.FixtureRequest, name: str) -> Standin:
    if name == "whole_registry":
        registry = request.getfixturevalue(name)
        assert isinstance(registry, DatasetRegistry)
        return registry
    standin = getattr(request.getfixturevalue("upstreams"), name)
    assert isinstance(standin, Standin)
    return standin


async def document(standin: Standin) -> dict[str, Any]:
    async with aiohttp.ClientSession(standin.url) as session, session.get("/openapi.json") as response:
        found: dict[str, Any] = await response.json()
        return found


@pytest.mark.parametrize("name", CALLS)
async def test_a_document_is_valid_openapi(standin: Standin, name: str) -> None:
    found = await document(standin)
    assert found["openapi"] == "3.1.0"
    OpenAPIV31SpecValidator(found).validate()


@pytest.mark.parametrize("name", CALLS)
async def test_every_route_is_described_and_every_described_route_is_served(standin: Standin, name: str) -> None:
    assert standin._runner is not None
    served = {
        (route.method.lower(), route.resource.canonical)
        for route in standin._runner.app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    described = {(method, path) for path, methods in (await document(standin))["paths"].items() for method in methods}
    assert served == described


@pytest.mark.parametrize("name", CALLS)
async def test_every_answer_is_one_that_the_document_has(standin: Standin, name: str) -> None:
    described = await document(standin)
    seen: set[tuple[str, str]] = set()
    for method, target, body, values in [*CALLS[name], *CONTROLS]:
        status, answer = await ask(standin, method, target, body, values)
        path = target.partition("?")[0]
        responses = described["paths"][path][method]["responses"]
        assert str(status) in responses, (method, path, body)
        seen.add((method, path))
        content = responses[str(status)].get("content")
        assert (content is None) == (answer is None), (method, path, status)
        if content is not None:
            schema = content["application/json"]["schema"] | {"components": described["components"]}
            Draft202012Validator(schema).validate(answer)
    everything = {(method, path) for path, methods in described["paths"].items() for method in methods}
    assert seen == everything - {("get", "/openapi.json")}


async def ask(standin: Standin, method: str, path: str, body: Any, values: dict[str, str]) -> tuple[int, Any]:
    """Values named in the path go there, the others are headers; `junk` is no JSON."""
    headers = {name: value for name, value in values.items() if f"{{{name}}}" not in path}
    options: dict[str, Any] = {} if body is None else {"json": body}
    if body == "junk":
        options = {"data": b"{", "headers": {}}
        headers |= {"Content-Type": "application/json"}
    options["headers"] = headers
    async with (
        aiohttp.ClientSession(standin.url) as session,
        session.request(method, path.format(**values), **options) as response,
    ):
        return response.status, await response.json() if response.content_type == "application/json" else None


async def test_a_worker_with_a_wrong_token_gets_the_401_of_the_document(upstreams: Upstreams) -> None:
    upstreams.registry.token = "secret"
    status, answer = await ask(upstreams.registry, "post", "/api/v1/datasets", {"id": "ds"}, {})
    assert (status, list(answer)) == (401, ["error"])
