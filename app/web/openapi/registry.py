"""The registry's routes."""

from __future__ import annotations

from typing import Any, Final

from app.integrations.registry_links import RELATIONSHIPS
from app.integrations.registry_sync import MAX_NAMED, SyncMode
from app.web.openapi.building import (
    Area,
    Operation,
    Schema,
    answer,
    array,
    body,
    enum,
    example,
    header,
    obj,
    path_id,
    ref,
    text,
)
from app.web.openapi.shared import COUNT, HOP, MOMENT, NUMBERS, TEXT

__all__ = ["REGISTRY"]

_SYNC_ID: Final = "0189f7ea-ae2c-7b2a-8d5f-000000000000"
_UUID: Final = text("[0-9a-f-]{36}")
_MODE: Final = enum(*SyncMode)
_NAME: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": 512}
_MODEL: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": 256}
_SIDE: Final[Schema] = {"description": "What that side had: an object, or the id under which it is registered."}
_CONFLICT: Final = obj(
    {"dataset_id": TEXT, "vault": _SIDE, "registry": _SIDE, "winner": enum("vault", "registry")},
    open_=True,
)
_FAILED: Final = obj({"id": TEXT, "reason": TEXT})
_NOT_NAMED: Final = {**COUNT, "description": f"Conflicts and failures beyond the {MAX_NAMED} that each number lists."}
_WAITING: Final = {**COUNT, "description": "Datasets that the registry is still to be told of; at most 256 a number."}
_COUNTS: Final[dict[str, Schema]] = {
    "pushed": COUNT,
    "pulled": COUNT,
    "conflicts": array(_CONFLICT),
    "failed": array(_FAILED),
    "not_named": _NOT_NAMED,
    "waiting": _WAITING,
}
_PART: Final = obj({"mode": _MODE, "done": {"type": "boolean"}, **_COUNTS})
_SYNC: Final = obj(
    {
        "id": _UUID,
        "state": enum("running", "done", "failed"),
        "mode": {"anyOf": [_MODE, {"type": "null"}]},
        **_COUNTS,
        "missing": NUMBERS,
        "parts": {
            "type": "object",
            "additionalProperties": {"anyOf": [ref("RegistrySyncPart"), {"type": "null"}]},
            "description": "What each number did; null where it has not heard of it, or not any more.",
        },
    },
    ("id", "state", "missing", "parts"),
)
_LINK: Final = obj(
    {
        "dataset_id": TEXT,
        "model_id": TEXT,
        "relationship": enum(*RELATIONSHIPS),
        "linked_at": MOMENT,
        "status": enum("waiting", "linked", "refused"),
    }
)
_DATASET: Final = obj(
    {
        "id": TEXT,
        "status": enum("active", "archived", "deleted"),
        "state": {
            **enum("synced", "waiting", "refused", "unnamed"),
            "description": "Whether the registry has it; unnamed: nobody has told its name yet.",
        },
        "origin": enum("vault", "registry"),
        "state_version": COUNT,
        "acknowledged_version": COUNT,
        "registration_id": TEXT,
        "document": {"type": "object", "description": "What the registry is to hold."},
        "vault_changed_at": MOMENT,
        "registry_changed_at": MOMENT,
        "deleted_at": MOMENT,
        "links": array(ref("RegistryLink")),
    },
    ("id", "status", "state", "origin", "state_version", "acknowledged_version", "links"),
)
_STATUS: Final = obj(
    {
        "off": {"type": "boolean", "description": "There is no registry."},
        "mode": {**_MODE, "description": "Of a synchronisation that does not say."},
        "waiting": _WAITING,
        "syncs": {
            **array(obj({"id": _UUID, "asked_at": MOMENT}), maxItems=20),
            "description": "The newest first; workers forget them when they end.",
        },
        "missing": NUMBERS,
    }
)
_STATUS_SHOWN: Final[dict[str, Any]] = {
    "off": False,
    "mode": "both",
    "waiting": 1,
    "syncs": [{"id": _SYNC_ID, "asked_at": "2025-01-31T12:00:00.000Z"}],
    "missing": [],
}
_LINK_SHOWN: Final[dict[str, Any]] = {
    "dataset_id": "ds-1",
    "model_id": "model-7",
    "relationship": "training_data",
    "linked_at": "2025-01-31T12:00:00.000Z",
    "status": "waiting",
}
_SYNC_SHOWN: Final[dict[str, Any]] = {
    "id": _SYNC_ID,
    "state": "done",
    "mode": "both",
    "pushed": 3,
    "pulled": 1,
    "conflicts": [],
    "failed": [{"id": "ds-9", "reason": "answered 503"}],
    "not_named": 0,
    "waiting": 1,
    "missing": [],
    "parts": {},
}

REGISTRY: Final = Area(
    "registry",
    {
        "/v1/registry/status": {
            "get": Operation(
                "registryStatus",
                "How much the registry is still to be told, and the latest synchronisations, over all workers",
                {200: answer("How it is.", ref("RegistryStatus"))},
                parameters=(HOP,),
            )
        },
        "/v1/registry/sync": {
            "post": Operation(
                "syncRegistry",
                "Push what the registry does not have, pull what it has changed, or both",
                {
                    202: answer(
                        "It begins.",
                        obj({"id": _UUID}),
                        headers={"Location": header("Where to watch it.", text("/v1/registry/sync/.+"))},
                    )
                },
                (400, 413, 415, 503),
                "admin",
                (),
                body(ref("RegistrySyncRequest"), required=False, example={"mode": "both"}),
                "Without a mode, that of the settings.",
            )
        },
        "/v1/registry/sync/{id}": {
            "get": Operation(
                "showRegistrySync",
                "What it did; counted by every worker for the numbers that it owns",
                {200: answer("The synchronisation.", ref("RegistrySync"))},
                (404, 503),
                parameters=(path_id("The id of the synchronisation.", _SYNC_ID), HOP),
            )
        },
        "/v1/registry/links": {
            "post": Operation(
                "linkDataset",
                "Tell the registry that a model uses a dataset",
                {202: answer("It is told once the registry has the dataset.", ref("RegistryLink"))},
                (400, 404, 409, 413, 415, 503),
                "admin",
                (HOP,),
                body(
                    ref("RegistryLinkRequest"),
                    example={"dataset_id": "ds-1", "model_id": "model-7", "relationship": "training_data"},
                ),
            )
        },
        "/v1/registry/datasets/{id}": {
            "get": Operation(
                "showDataset",
                "A dataset, and how much of it the registry has",
                {200: answer("The dataset.", ref("RegistryDataset"))},
                (404, 503),
                parameters=(path_id("The id of the dataset, percent-encoded.", "ds-1"), HOP),
            )
        },
    },
    {
        "RegistryStatus": example(_STATUS, _STATUS_SHOWN),
        "RegistrySyncRequest": obj({"mode": _MODE}, ()),
        "RegistrySync": example(_SYNC, _SYNC_SHOWN),
        "RegistrySyncPart": _PART,
        "RegistryLinkRequest": obj({"dataset_id": _NAME, "model_id": _MODEL, "relationship": enum(*RELATIONSHIPS)}),
        "RegistryLink": example(_LINK, _LINK_SHOWN),
        "RegistryDataset": example(
            _DATASET,
            {
                "id": "ds-1",
                "status": "active",
                "state": "synced",
                "origin": "vault",
                "state_version": 4,
                "acknowledged_version": 4,
                "registration_id": "reg-1",
                "document": {"id": "ds-1", "name": "Claims", "version": "3", "tags": ["pii"]},
                "vault_changed_at": "2025-01-31T12:00:00.000Z",
                "links": [],
            },
        ),
    },
)
