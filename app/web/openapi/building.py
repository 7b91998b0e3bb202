"""The pieces that operations are described with (OpenAPI 3.1.0, https://spec.openapis.org/oas/v3.1.0)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = [
    "Area",
    "Operation",
    "Schema",
    "answer",
    "array",
    "body",
    "enum",
    "example",
    "header",
    "listing",
    "nullable",
    "obj",
    "path_id",
    "query",
    "ref",
    "text",
]

Schema = dict[str, Any]

JSON: Final = "application/json"
# What the middlewares may say to any request that needs a token.
_ALWAYS: Final = (401, 403)
_UNKNOWN_PARAMETER: Final = 422


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    Attributes:
        name: The operationId.
        answers: By status, each made by `answer`.
        problems: Statuses that are answered by a problem document, beside those that any request may get.
        role: `public`, `viewer` or `admin`.
        body: Made by `body`.
        any_query: Parameters that it does not know are passed over, for probes and scrapers have their own.
    """

    name: str
    summary: str
    answers: Mapping[int, Mapping[str, Any]]
    problems: Sequence[int] = ()
    role: str = "viewer"
    parameters: Sequence[Mapping[str, Any]] = ()
    body: Mapping[str, Any] | None = None
    description: str = ""
    any_query: bool = False

    def document(self, tag: str) -> dict[str, Any]:
        """The operation object; problems are references to `components/responses`, by their status."""
        statuses = {*self.problems, *(() if self.any_query else (_UNKNOWN_PARAMETER,))}
        statuses |= {*(() if self.role == "public" else _ALWAYS)}
        responses = {str(status): dict(made) for status, made in self.answers.items()}
        responses |= {
            str(status): {"$ref": f"#/components/responses/Problem{status}"} for status in statuses - set(self.answers)
        }
        document: dict[str, Any] = {
            "operationId": self.name,
            "summary": self.summary,
            "tags": [tag],
            "responses": dict(sorted(responses.items())),
            # For a scheme that is not OAuth these are roles (4.8.30).
            "security": [] if self.role == "public" else [{"token": [self.role]}],
        }
        if told := " ".join(filter(None, (self.description, _NEEDS.get(self.role)))):
            document["description"] = told
        if self.parameters:
            document["parameters"] = list(self.parameters)
        if self.body is not None:
            document["requestBody"] = dict(self.body)
        return document


_NEEDS: Final = {"viewer": "Needs a viewer's token, or an admin's.", "admin": "Needs an admin's token."}


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


def answer(
    description: str, schema: Schema | None = None, *, headers: Mapping[str, Schema] | None = None, kind: str = JSON
) -> dict[str, Any]:
    """A success; without a schema it has no body.

    Args:
        headers: Those that it always has, beside those of every answer, made by `header`.
    """
    made: dict[str, Any] = {
        "description": description,
        "headers": {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}, **(headers or {})},
    }
    if schema is not None:
        made["content"] = {kind: {"schema": schema}}
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


def example(schema: Schema, shown: Any) -> Schema:
    """The same with an example."""
    return {**schema, "examples": [shown]}


def text(pattern: str) -> Schema:
    """A string of this form."""
    return {"type": "string", "pattern": f"^{pattern}$"}


def enum(*words: str) -> Schema:
    """One of these words."""
    return {"type": "string", "enum": list(words)}


def array(items: Schema, **limits: int) -> Schema:
    """A list."""
    return {"type": "array", "items": items, **limits}


def nullable(schema: Schema) -> Schema:
    """The same, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def listing(items: Schema, **more: Schema) -> Schema:
    """A page of a list."""
    return obj({"items": array(items, maxItems=200), "next_cursor": {"type": ["string", "null"]}, **more})


def query(name: str, schema: Schema, description: str) -> dict[str, Any]:
    """An optional query parameter."""
    return {"name": name, "in": "query", "schema": schema, "description": description}


def path_id(description: str, shown: str) -> dict[str, Any]:
    """The `{id}` of a path; one of another form is 404, so that the form is no promise."""
    schema = {"type": "string", "minLength": 1, "maxLength": 128}
    return {
        "name": "id",
        "in": "path",
        "required": True,
        "schema": schema,
        "example": shown,
        "description": description,
    }


def header(description: str, schema: Schema) -> Schema:
    """A header that an answer always has."""
    return {"required": True, "schema": schema, "description": description}
