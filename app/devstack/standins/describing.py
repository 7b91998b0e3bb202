"""The OpenAPI 3.1 document of a stand-in: what it takes and answers, by hand, so that others can use it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, get_args

from app.devstack.standins.faults import BodyKind

Schema = dict[str, Any]

JSON: Final = "application/json"
TEXT: Final[Schema] = {"type": "string", "minLength": 1}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    Attributes:
        name: The operationId.
        answers: By status: what it means, and the schema of its body; None: it has none.
        parameters: Made by `parameter`.
        body: The schema of the request's body.
        control: Whether it is no part of what is stood in for.
    """

    name: str
    summary: str
    answers: Mapping[int, tuple[str, Schema | None]]
    parameters: Sequence[Schema] = ()
    body: Schema | None = None
    control: bool = False


@dataclass(frozen=True, slots=True)
class Description:
    """What one stand-in serves besides what all of them do.

    Attributes:
        about: What it is, and what it remembers.
        paths: Method in lower case to operation, by path.
        schemas: What operations refer to.
    """

    title: str
    about: str = ""
    paths: Mapping[str, Mapping[str, Operation]] = field(default_factory=dict)
    schemas: Mapping[str, Schema] = field(default_factory=dict)


def obj(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    """An object; what it has besides is passed over."""
    properties = {**required, **(optional or {})}
    return {"type": "object", **({"required": list(required)} if required else {}), "properties": properties}


def ref(name: str) -> Schema:
    """A schema of the description."""
    return {"$ref": f"#/components/schemas/{name}"}


def array(items: Schema) -> Schema:
    """A list."""
    return {"type": "array", "items": items}


def parameter(name: str, place: str, *, required: bool = True, schema: Schema | None = None) -> Schema:
    """In `path`, `query` or `header`."""
    return {"name": name, "in": place, "required": required, "schema": schema or TEXT}


IDEMPOTENCY_KEY: Final = parameter("Idempotency-Key", "header")

_ERROR: Final = obj({"error": TEXT})
_NOTHING: Final = {204: ("Done.", None)}
_FAULT: Final = obj(
    {},
    {
        "status": {"type": "integer", "default": 503, "description": "Answer with it."},
        "times": {"type": ["integer", "null"], "description": "So many requests, then behave; null: until told."},
        "retry_after_s": {"type": ["integer", "null"], "description": "In a Retry-After header."},
        "delay_s": {"type": "number", "default": 0, "description": "Wait before the answer."},
        "drop": {"type": "boolean", "description": "Close the connection instead of an answer."},
        "accept": {"type": "boolean", "description": "Do what was asked for first, and misbehave after that."},
        "body": {"enum": list(get_args(BodyKind)), "description": "What the answer has in it."},
        "over_items": {"type": ["integer", "null"], "description": "Only for a list with more items than this."},
        "naming": {"type": ["string", "null"], "description": "Only for a body that has this text in it."},
        "path": {"type": ["string", "null"], "description": "Only for a path that has this text in it."},
    },
)
_CONTROLS: Final[dict[str, dict[str, Operation]]] = {
    "/control": {
        "post": Operation(
            "misbehave",
            "Misbehave from now on.",
            _NOTHING | {422: ("It is no fault.", ref("Error"))},
            body=ref("Fault"),
            control=True,
        ),
        "delete": Operation("behave", "Behave again.", _NOTHING, control=True),
    },
    "/token": {
        "put": Operation(
            "setToken",
            "Take this token only, as Bearer in Authorization; null: ask for none.",
            _NOTHING | {422: ("It is no token.", ref("Error"))},
            body=obj({"token": {"type": ["string", "null"]}}),
            control=True,
        )
    },
    "/observed": {
        "get": Operation(
            "observed", "What was seen, in numbers.", {200: ("Numbers by name.", {"type": "object"})}, control=True
        )
    },
    "/openapi.json": {
        "get": Operation("document", "This document.", {200: ("OpenAPI 3.1.", {"type": "object"})}, control=True)
    },
}


def document_of(description: Description) -> dict[str, Any]:
    """The document, with the routes that every stand-in has."""
    paths = {
        path: {method: _operation(operation) for method, operation in methods.items()}
        for path, methods in {**_CONTROLS, **description.paths}.items()
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": description.title,
            "version": "1",
            "description": f"{description.about}\n\nA stand-in for development and tests: it remembers, and forgets"
            " everything when it ends. `POST /control` makes it misbehave.".strip(),
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": {**description.schemas, "Error": _ERROR, "Fault": _FAULT},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": ["control" if operation.control else "api"],
        "responses": {str(status): _answer(*told) for status, told in operation.answers.items()},
    }
    if not operation.control:
        # The empty requirement: only after `PUT /token` is a token asked for.
        made["security"] = [{"token": []}, {}]
        made["responses"]["401"] = _answer("The token is missing, wrong or expired.", ref("Error"))
        made["responses"]["default"] = {"description": "As `POST /control` asked for."}
    if operation.parameters:
        made["parameters"] = list(operation.parameters)
    if operation.body is not None:
        made["requestBody"] = {"required": True, "content": {JSON: {"schema": operation.body}}}
    return made


def _answer(meaning: str, schema: Schema | None) -> dict[str, Any]:
    return {"description": meaning, **({} if schema is None else {"content": {JSON: {"schema": schema}}})}
