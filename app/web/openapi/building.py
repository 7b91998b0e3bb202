"""The pieces that operations are described with (OpenAPI 3.1.0, https://spec.openapis.org/oas/v3.1.0)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

__all__ = [
    "Area",
    "Operation",
    "Schema",
    "answer",
    "array",
    "body",
    "header",
    "listing",
    "nullable",
    "obj",
    "path_id",
    "query",
    "ref",
]

Schema = dict[str, Any]

PROBLEM: Final = "application/problem+json"
JSON: Final = "application/json"
# What the middlewares may say to any request that needs a token.
_ALWAYS: Final = (401, 403)


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    Attributes:
        name: The operationId.
        answers: By status, each made by `answer`.
        problems: Statuses that are answered by a problem document, beside those that any request may get.
        role: `public`, `viewer` or `admin`.
        body: Made by `body`.
    """

    name: str
    summary: str
    answers: Mapping[int, Mapping[str, Any]]
    problems: Sequence[int] = ()
    role: str = "viewer"
    parameters: Sequence[Mapping[str, Any]] = ()
    body: Mapping[str, Any] | None = None
    description: str = ""

    def document(self, tag: str) -> dict[str, Any]:
        """The operation object."""
        # An unknown query parameter is 422 everywhere.
        statuses = {*self.problems, 422, *(_ALWAYS if self.role != "public" else ())}
        responses = {str(status): made for status, made in self.answers.items()}
        responses |= {str(status): problem(status) for status in sorted(statuses - set(self.answers))}
        document: dict[str, Any] = {
            "operationId": self.name,
            "summary": self.summary,
            "tags": [tag],
            "responses": dict(sorted(responses.items())),
            "security": [] if self.role == "public" else [{"token": []}],
        }
        if self.description or self.role == "admin":
            document["description"] = " ".join(filter(None, (self.description, _needs(self.role))))
        if self.parameters:
            document["parameters"] = list(self.parameters)
        if self.body is not None:
            document["requestBody"] = dict(self.body)
        return document


@dataclass(frozen=True, slots=True)
class Area:
    """The operations of one module of routes.

    Attributes:
        paths: Method in lower case to operation, by path.
        schemas: The components that they refer to.
    """

    tag: str
    paths: Mapping[str, Mapping[str, Operation]]
    schemas: Mapping[str, Schema] = field(default_factory=dict)


def _needs(role: str) -> str:
    return "Needs an admin token." if role == "admin" else ""


def problem(status: int) -> dict[str, Any]:
    """The answer that says what is wrong."""
    made: dict[str, Any] = {
        "description": HTTPStatus(status).phrase,
        "content": {PROBLEM: {"schema": ref("Problem")}},
    }
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        made["headers"] = {"Retry-After": {"schema": {"type": "string"}, "description": "Seconds."}}
    return made


def answer(
    description: str, schema: Schema | None = None, *, headers: Mapping[str, str] | None = None, kind: str = JSON
) -> dict[str, Any]:
    """A success; without a schema it has no body."""
    made: dict[str, Any] = {"description": description}
    if schema is not None:
        made["content"] = {kind: {"schema": schema}}
    if headers:
        made["headers"] = {name: {"schema": {"type": "string"}, "description": told} for name, told in headers.items()}
    return made


def body(
    schema: Schema, *, required: bool = True, kinds: Sequence[str] = (JSON,), example: Any = None
) -> dict[str, Any]:
    """A request body."""
    content: dict[str, Any] = {"schema": schema}
    if example is not None:
        content["example"] = example
    return {"required": required, "content": {kind: dict(content) for kind in kinds}}


def ref(name: str) -> Schema:
    """A component."""
    return {"$ref": f"#/components/schemas/{name}"}


def obj(properties: Mapping[str, Schema], required: Sequence[str] | None = None, *, open_: bool = False) -> Schema:
    """An object; all properties are required unless said, and no others are there."""
    made: Schema = {"type": "object", "properties": dict(properties)}
    needed = list(properties) if required is None else list(required)
    if needed:
        made["required"] = needed
    if not open_:
        made["additionalProperties"] = False
    return made


def array(items: Schema, **limits: int) -> Schema:
    """A list."""
    return {"type": "array", "items": items, **limits}


def nullable(schema: Schema) -> Schema:
    """The same, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def listing(items: Schema, **more: Schema) -> Schema:
    """A page of a list."""
    return obj({"items": array(items), "next_cursor": {"type": ["string", "null"]}, **more})


def query(name: str, schema: Schema, description: str) -> dict[str, Any]:
    """An optional query parameter."""
    return {"name": name, "in": "query", "schema": schema, "description": description}


def path_id(pattern: str, example: str) -> dict[str, Any]:
    """The `{id}` of a path."""
    schema = {"type": "string", "minLength": 1, "maxLength": 128}
    return {"name": "id", "in": "path", "required": True, "schema": schema, "example": example, "description": pattern}


def header(name: str, description: str, schema: Schema | None = None) -> dict[str, Any]:
    """An optional request header."""
    return {"name": name, "in": "header", "schema": schema or {"type": "string"}, "description": description}
