"""What holds for every operation of the document, tried on every one of them: also on those that are added later."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, NamedTuple

import pytest

from app.settings import ApiSettings
from app.web.openapi import AREAS, openapi_document
from tests.support.listening import ADMIN, TOKENS, VIEWER, Answer
from tests.support.whole_api import WholeApi, whole_api

DOCUMENT = openapi_document(AREAS)


class Asked(NamedTuple):
    """An operation, and a request that honours its document."""

    method: str
    path: str
    operation: dict[str, Any]
    body: Any

    def __str__(self) -> str:
        return str(self.operation["operationId"])


def operations() -> Iterator[Asked]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            named = {p["name"]: p["example"] for p in operation.get("parameters", ()) if p["in"] == "path"}
            content = operation.get("requestBody", {}).get("content", {})
            body = next((media.get("example", {}) for media in content.values()), None)
            yield Asked(method.upper(), path.format(**named), operation, body)


ALL = list(operations())
PROTECTED = [asked for asked in ALL if asked.operation["security"]]
ADMINS = [asked for asked in PROTECTED if asked.operation["security"] == [{"token": ["admin"]}]]
LENIENT = {
    operation.name
    for area in AREAS
    for made in area.paths.values()
    for operation in made.values()
    if operation.any_query
}
STRICT = [asked for asked in ALL if str(asked) not in LENIENT]
WITH_BODY = [asked for asked in ALL if "requestBody" in asked.operation]


@pytest.fixture
async def api() -> AsyncIterator[WholeApi]:
    async with whole_api(TOKENS) as api:
        yield api
        assert api.untouched


async def ask(
    api: WholeApi, asked: Asked, headers: Mapping[str, str] | None = None, query: str = "", **more: Any
) -> Answer:
    named: dict[str, Any] = {"headers": headers or {}, **more}
    if asked.body is not None and "data" not in named:
        named["json"] = asked.body
    return await api.caller.call(asked.method, asked.path + query, **named)


def is_documented_problem(answer: Answer, asked: Asked, status: int) -> bool:
    assert (answer.status, answer.document["status"]) == (status, status)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["X-Request-Id"]
    return str(status) in asked.operation["responses"]


def test_nearly_all_operations_need_a_token_and_know_their_parameters() -> None:
    public = {str(asked) for asked in ALL if asked not in PROTECTED}
    lenient = {"metrics", "health", "live", "ready", "console", "consoleFile"}
    assert public == {*lenient, "openapi", "webhookKeys", "authzenConfiguration"}
    assert {str(asked) for asked in ALL if asked not in STRICT} == lenient


@pytest.mark.parametrize("asked", PROTECTED, ids=str)
async def test_without_a_token_it_is_401(api: WholeApi, asked: Asked) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        answer = await ask(api, asked, headers)
        assert is_documented_problem(answer, asked, 401)
        assert answer.headers["WWW-Authenticate"].startswith("Bearer ")


@pytest.mark.parametrize("asked", ADMINS, ids=str)
async def test_with_the_token_of_a_viewer_what_writes_is_403(api: WholeApi, asked: Asked) -> None:
    assert is_documented_problem(await ask(api, asked, VIEWER), asked, 403)


@pytest.mark.parametrize("asked", STRICT, ids=str)
async def test_a_parameter_that_it_does_not_have_is_422_and_named(api: WholeApi, asked: Asked) -> None:
    answer = await ask(api, asked, ADMIN, "?colour=red")
    assert is_documented_problem(answer, asked, 422)
    assert answer.fields == ["colour"]


@pytest.mark.parametrize("asked", [asked for asked in ALL if asked not in STRICT], ids=str)
async def test_probes_and_scrapers_may_have_parameters_of_their_own(api: WholeApi, asked: Asked) -> None:
    assert (await api.caller.session.get(f"{api.caller.url}{asked.path}?colour=red")).status == 200


@pytest.mark.parametrize("asked", STRICT, ids=str)
async def test_a_parameter_that_it_has_is_taken_once(api: WholeApi, asked: Asked) -> None:
    known = [p["name"] for p in asked.operation.get("parameters", ()) if p["in"] == "query"]
    for name in known:
        answer = await ask(api, asked, ADMIN, f"?{name}=1&{name}=1")
        assert is_documented_problem(answer, asked, 422)
        assert answer.fields == [name]


@pytest.mark.parametrize("asked", WITH_BODY, ids=str)
async def test_a_body_that_is_not_said_to_be_json_is_415_and_told_the_types_of_the_document(
    api: WholeApi, asked: Asked
) -> None:
    answer = await ask(api, asked, {**ADMIN, "Content-Type": "text/plain"}, data=b"{}")
    assert is_documented_problem(answer, asked, 415)
    kinds = answer.headers["Accept-Post"].split(", ")
    assert sorted(kinds) == sorted(asked.operation["requestBody"]["content"])
    assert kinds[0] in answer.document["detail"]


# The example of a file of the console is one that is there.
UNKNOWN = [asked for asked in ALL if "404" in asked.operation["responses"] and str(asked) != "consoleFile"]


@pytest.mark.parametrize("asked", UNKNOWN, ids=str)
async def test_what_is_not_there_is_404(asked: Asked) -> None:
    async with whole_api(ApiSettings()) as api:
        assert is_documented_problem(await ask(api, asked), asked, 404)
