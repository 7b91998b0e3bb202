"""The console's page and files, and who is asking."""

from __future__ import annotations

from typing import Any, Final

from app.web.openapi.building import Area, Operation, answer, enum, example, header, obj, ref
from app.web.openapi.shared import TEXT

__all__ = ["CONSOLE"]

_HEADERS: Final = {
    "ETag": header("Of the file.", TEXT),
    "Content-Security-Policy": header("Nothing but this worker.", TEXT),
}
_SAME: Final = answer("It is the one of If-None-Match.", headers=_HEADERS)


def _file(description: str, *kinds: str) -> dict[str, Any]:
    return {**answer(description, headers=_HEADERS), "content": {kind: {} for kind in kinds}}


_ASSET: Final = {
    "name": "asset",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1, "maxLength": 128},
    "example": "app.js",
    "description": "The name of a file; it may have slashes.",
}

CONSOLE: Final = Area(
    "console",
    {
        "/": {
            "get": Operation(
                "console",
                "The console, for a browser",
                {200: _file("The page.", "text/html"), 304: _SAME},
                role="public",
                any_query=True,
            )
        },
        "/console/{asset}": {
            "get": Operation(
                "consoleFile",
                "A file of the console",
                {200: _file("The file.", "text/javascript", "text/css", "image/svg+xml", "text/html"), 304: _SAME},
                (404,),
                role="public",
                parameters=(_ASSET,),
                any_query=True,
            )
        },
        "/v1/session": {
            "get": Operation("session", "Whose token this is, and what it may do", {200: answer("He.", ref("Session"))})
        },
    },
    {
        "Session": example(
            obj({"name": TEXT, "role": enum("viewer", "admin")}),
            {"name": "admin", "role": "admin"},
        )
    },
)
