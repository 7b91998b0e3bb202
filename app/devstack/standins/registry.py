"""The dataset registry: upserts, deletes, the list of what has changed, and links between datasets and models."""

import base64
import json
import time
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import msgspec
from aiohttp import web

from app.devstack.standins.base import Standin
from app.devstack.standins.describing import (
    COUNT,
    IDEMPOTENCY_KEY,
    TEXT,
    Description,
    Operation,
    array,
    obj,
    parameter,
    ref,
)
from app.devstack.standins.observing import Observations
from app.devstack.standins.reading import Refusal, object_in
from app.events import format_time

PAGE: Final = 100
"""Datasets of one page."""
RELATIONSHIPS: Final = ("training_data", "evaluation_data", "validation_data", "test_data")

_REFUSED: Final = {
    400: ("No JSON.", ref("Error")),
    415: ("Not said to be JSON.", ref("Error")),
    422: ("A field is not as agreed.", ref("Error")),
}
_KEY: Final = {**IDEMPOTENCY_KEY, "required": False}
_DESCRIPTION: Final = Description(
    "Dataset registry (stand-in)",
    "Holds the last state of each dataset, and links to models.",
    {
        "/api/v1/datasets": {
            "get": Operation(
                "listDatasets",
                "What has changed, oldest first, in pages; deleted datasets with that status.",
                {200: ("A page.", ref("Page")), 400: ("No such cursor.", ref("Error"))},
                [parameter(name, "query", required=False) for name in ("updated_since", "cursor")],
            ),
            "post": Operation(
                "upsertDataset",
                "The state of a dataset, in place of the one before.",
                {200: ("Changed.", ref("Registered")), 201: ("New.", ref("Registered")), **_REFUSED},
                [_KEY],
                ref("Dataset"),
            ),
        },
        "/api/v1/datasets/{id}": {
            "delete": Operation(
                "deleteDataset",
                "A dataset is no more.",
                {204: ("Deleted.", None), 404: ("There is none.", None)},
                [parameter("id", "path"), _KEY],
            )
        },
        "/api/v1/models/{model_id}/datasets": {
            "post": Operation(
                "linkDataset",
                "A model was made with a dataset.",
                {200: ("Linked already.", ref("Linked")), 201: ("Linked.", ref("Linked")), **_REFUSED},
                [parameter("model_id", "path"), _KEY],
                obj(
                    {"dataset_id": TEXT, "model_id": TEXT, "relationship": {"enum": list(RELATIONSHIPS)}},
                    {"linked_at": TEXT},
                ),
            )
        },
    },
    {
        "Dataset": obj(
            {"id": TEXT},
            {
                "name": TEXT,
                "version": TEXT,
                "schema_hash": TEXT,
                "record_count": COUNT,
                "created_at": TEXT,
                "tags": array({}),
                "status": TEXT,
            },
        ),
        "Page": obj(
            {
                "datasets": array({"allOf": [ref("Dataset"), obj({"updated_at": TEXT})]}),
                "cursor": {"type": ["string", "null"]},
            }
        ),
        "Registered": obj({"id": TEXT}),
        "Linked": obj({"id": TEXT}),
    },
)


def page_of(
    entries: Mapping[str, Mapping[str, Any]],
    since: str | None,
    cursor: str | None,
    *,
    items: int = PAGE,
    by_id: bool = False,
) -> tuple[list[str], str | None]:
    """The ids of what has changed since then, and the cursor behind them; None: there is no more.

    Args:
        entries: By id, each with `updated_at`.
        items: So many at most.
        by_id: In the order of the ids, not of the changes.

    Raises:
        ValueError: It is no cursor.
    """
    low = ("", "")
    if cursor is not None:
        try:
            low = msgspec.json.decode(base64.urlsafe_b64decode(cursor), type=tuple[str, str])
        except msgspec.MsgspecError as error:
            raise ValueError("this cursor is not known") from error
    changed = [(entry["updated_at"], id_) for id_, entry in entries.items()]
    places = sorted(("" if by_id else at, id_) for at, id_ in changed if at >= (since or ""))
    rest = [place for place in places if place > low]
    shown = rest[:items]
    more = len(rest) > len(shown)
    return [id_ for _, id_ in shown], base64.urlsafe_b64encode(
        json.dumps(shown[-1]).encode()
    ).decode() if more else None


class Registry(Standin):
    """See the module.

    Attributes:
        datasets: The last state of each that is there, by its id.
        links: Model, dataset and relationship.
    """

    description: ClassVar[Description] = _DESCRIPTION

    def __init__(self, observations: Observations) -> None:
        super().__init__(observations)
        self.datasets: dict[str, dict[str, Any]] = {}
        self.deleted: set[str] = set()
        self.upserts = 0
        self.links: set[tuple[str, str, str]] = set()
        self._changes: dict[str, dict[str, Any]] = {}

    def observed(self) -> dict[str, Any]:
        """Datasets there now, and how they came to be."""
        return {
            "requests": self.requests,
            "datasets": len(self.datasets),
            "deleted": len(self.deleted),
            "upserts": self.upserts,
            "links": len(self.links),
        }

    def _routes(self) -> list[web.RouteDef]:
        return [
            web.post("/api/v1/datasets", self._upsert),
            web.get("/api/v1/datasets", self._list),
            web.delete("/api/v1/datasets/{id}", self._delete),
            web.post("/api/v1/models/{model_id}/datasets", self._link),
        ]

    async def _upsert(self, request: web.Request) -> web.Response:
        dataset = await object_in(request, id=str)
        self.upserts += 1
        known = dataset["id"] in self.datasets
        self.datasets[dataset["id"]] = dataset
        self._changed(dataset)
        self._observations.notify()
        return web.json_response({"id": f"reg-{dataset['id']}"}, status=200 if known else 201)

    async def _delete(self, request: web.Request) -> web.Response:
        dataset_id = request.match_info["id"]
        known = self.datasets.pop(dataset_id, None)
        self.deleted.add(dataset_id)
        if known is not None:
            self._changed({"id": dataset_id, "name": known.get("name", dataset_id), "status": "deleted"})
        self._observations.notify()
        return web.Response(status=404 if known is None else 204)

    def _changed(self, dataset: dict[str, Any]) -> None:
        self._changes[dataset["id"]] = {**dataset, "updated_at": format_time(time.time_ns() // 1_000_000)}

    async def _list(self, request: web.Request) -> web.Response:
        try:
            ids, cursor = page_of(self._changes, request.query.get("updated_since"), request.query.get("cursor"))
        except ValueError as error:
            raise Refusal(400, str(error)) from None
        return web.json_response({"datasets": [self._changes[id_] for id_ in ids], "cursor": cursor})

    async def _link(self, request: web.Request) -> web.Response:
        asked = await object_in(request, dataset_id=str, model_id=str, relationship=str)
        model = request.match_info["model_id"]
        if asked["model_id"] != model or asked["relationship"] not in RELATIONSHIPS:
            raise Refusal(422, "model_id is not that of the path, or relationship is none of the four")
        link = model, asked["dataset_id"], asked["relationship"]
        known = link in self.links
        self.links.add(link)
        self._observations.notify()
        return web.json_response({"id": "/".join(link)}, status=200 if known else 201)
