"""A dataset registry to develop and test against: strict about idempotency keys, with users, and unreliable if told so.

`RegistryBook` is what it knows, without a network; `DatasetRegistry` serves it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final

from aiohttp import web

from app.devstack.standins import Observations, Registry
from app.devstack.standins.describing import Description, ref
from app.devstack.standins.reading import object_in
from app.devstack.standins.registry import PAGE, page_of
from app.events import canonical_json, format_time

__all__ = ["DatasetRegistry", "FailurePlan", "RegistryBook"]

_VAULT: Final = "vault"
_USER: Final = "user"
_DELETED: Final = "deleted"
_ERRORS: Final = 400

Answer = tuple[int, dict[str, Any]]


def _content(dataset: dict[str, Any]) -> bytes:
    return canonical_json({"status": "active", **{k: v for k, v in dataset.items() if k != "updated_at"}})


@dataclass(eq=False)
class RegistryBook:
    """What a registry knows.

    Attributes:
        now_ms: Its clock.
        page_items: Of one page.
        by_id: Pages are in the order of the ids, not of the changes.
        entries: Every dataset, deleted ones with that status, each with `updated_at`.
        links: By dataset, model and relationship, what was said of it.
        models: Those that there are; None: every one.
        other_names: Datasets that are registered under another id already.
        upserts: That were applied.
        echoes: Upserts that only said what a user of the registry had written.
        unshown: Datasets that a user has written and no page has shown since.
        replaced: Upserts that replaced what a user had written, before any page had shown it: id and name.
        keys_reused: Requests that had the idempotency key of one with another body.
        on_change: Called after each request that was applied.
    """

    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    page_items: int = PAGE
    by_id: bool = False
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    links: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)
    models: set[str] | None = None
    other_names: dict[str, str] = field(default_factory=dict)
    upserts: int = 0
    echoes: list[str] = field(default_factory=list)
    unshown: set[str] = field(default_factory=set)
    replaced: list[tuple[str, str]] = field(default_factory=list)
    keys_reused: list[str] = field(default_factory=list)
    on_change: Callable[[], None] = lambda: None
    _author: dict[str, str] = field(default_factory=dict)
    _keys: dict[str, tuple[bytes, Answer]] = field(default_factory=dict)

    @property
    def datasets(self) -> dict[str, dict[str, Any]]:
        """Those that are not deleted, without `updated_at`."""
        return {
            id_: {k: v for k, v in entry.items() if k != "updated_at"}
            for id_, entry in self.entries.items()
            if entry.get("status") != _DELETED
        }

    # -- what the vault says

    def once(self, key: str | None, body: bytes, apply: Callable[[], Answer]) -> Answer:
        """The answer to a request; to one whose key is known, the answer that it had."""
        if not key:
            return 400, {"error": "Idempotency-Key is missing"}
        if key in self._keys:
            known, answer = self._keys[key]
            if known != body:
                self.keys_reused.append(key)
            return answer
        answer = apply()
        if answer[0] < _ERRORS:
            self._keys[key] = (body, answer)
            self.on_change()
        return answer

    def upsert(self, dataset: dict[str, Any]) -> Answer:
        """A dataset as the vault has it."""
        id_ = dataset["id"]
        if id_ in self.other_names:
            return 409, {"id": self.other_names[id_]}
        known = self.entries.get(id_)
        self.upserts += 1
        if known is not None and self._author[id_] == _USER and _content(known) == _content(dataset):
            self.echoes.append(id_)
        self._write(dataset, _VAULT)
        return (200 if known is not None else 201), {"id": f"reg-{id_}"}

    def delete(self, id_: str) -> Answer:
        """A dataset that the vault has no more."""
        known = self.entries.get(id_)
        if known is None or known.get("status") == _DELETED:
            return 404, {"error": "there is no such dataset"}
        self._write({"id": id_, "name": known.get("name", id_), "status": _DELETED}, _VAULT)
        return 204, {}

    def link(self, model_id: str, link: dict[str, Any]) -> Answer:
        """A model that a dataset is used for."""
        if self.models is not None and model_id not in self.models:
            return 404, {"error": "there is no such model"}
        if link["dataset_id"] not in self.datasets:
            return 404, {"error": "there is no such dataset"}
        self.links[link["dataset_id"], model_id, link["relationship"]] = link
        return 201, {"id": f"link-{len(self.links)}"}

    def page(self, since: str | None, cursor: str | None) -> Answer:
        """What has changed since then."""
        try:
            ids, next_ = page_of(self.entries, since, cursor, items=self.page_items, by_id=self.by_id)
        except ValueError as error:
            return 400, {"error": str(error)}
        self.unshown.difference_update(ids)
        return 200, {"datasets": [self.entries[id_] for id_ in ids], "cursor": next_}

    # -- what its users do

    def change(self, id_: str, **fields: Any) -> None:
        """A user writes a dataset: makes it, or changes some of its fields."""
        known = {k: v for k, v in self.entries.get(id_, {}).items() if k not in {"updated_at", "status"}}
        made = {"id": id_, "name": id_, "version": "1", "tags": [], "created_at": format_time(self.now_ms())}
        self._write({**made, **known, **fields}, _USER)

    def remove(self, id_: str) -> None:
        """A user deletes a dataset."""
        self._write({"id": id_, "name": self.entries[id_].get("name", id_), "status": _DELETED}, _USER)

    def _write(self, dataset: dict[str, Any], author: str) -> None:
        if author == _USER:
            self.unshown.add(dataset["id"])
        elif dataset["id"] in self.unshown:
            self.unshown.discard(dataset["id"])
            self.replaced.append((dataset["id"], dataset.get("name", "")))
        self.entries[dataset["id"]] = {**dataset, "updated_at": format_time(self.now_ms())}
        self._author[dataset["id"]] = author


@dataclass(eq=False)
class FailurePlan:
    """Fails some of the requests: half of those before they are taken, half after.

    Attributes:
        rate: 0 to 1.
        failed: How many did.
    """

    rate: float
    seed: int
    failed: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311  # a test is to be repeated

    def draw(self) -> str | None:
        """`before`, `after`, or None: this one is answered."""
        if self._random.random() >= self.rate:
            return None
        self.failed += 1
        return self._random.choice(("before", "after"))


_MISSING: Final = {404: ("There is none.", ref("Error"))}


def _described() -> Description:
    """The registry as it is without a memory of keys, and what this one answers besides."""
    paths = {path: dict(methods) for path, methods in Registry.description.paths.items()}
    known = {409: ("It is registered under another id already.", ref("Registered"))}
    no_key = {400: ("No JSON, or no Idempotency-Key.", ref("Error"))}
    more = {"upsertDataset": known | no_key, "deleteDataset": _MISSING | no_key, "linkDataset": _MISSING | no_key}
    for methods in paths.values():
        for method, operation in methods.items():
            answers = {**operation.answers, **more.get(operation.name, {})}
            parameters = [{**one, "required": one["in"] != "query"} for one in operation.parameters]
            methods[method] = replace(operation, answers=answers, parameters=parameters)
    return replace(Registry.description, paths=paths)


class DatasetRegistry(Registry):
    """Serves a `RegistryBook`.

    Attributes:
        failures: None: it is reliable.
    """

    description: ClassVar[Description] = _described()

    def __init__(self, observations: Observations, book: RegistryBook | None = None) -> None:
        super().__init__(observations)
        self.book = book or RegistryBook()
        self.book.on_change = observations.notify
        self.failures: FailurePlan | None = None

    def observed(self) -> dict[str, Any]:
        """In numbers."""
        return {
            "requests": self.requests,
            "datasets": len(self.book.datasets),
            "deleted": len(self.book.entries) - len(self.book.datasets),
            "upserts": self.book.upserts,
            "links": len(self.book.links),
            "echoes": len(self.book.echoes),
            "keys_reused": len(self.book.keys_reused),
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
        return await self._once(request, await request.read(), lambda: self.book.upsert(dataset))

    async def _delete(self, request: web.Request) -> web.Response:
        return await self._once(request, b"", lambda: self.book.delete(request.match_info["id"]))

    async def _link(self, request: web.Request) -> web.Response:
        link, model_id = await object_in(request, dataset_id=str, relationship=str), request.match_info["model_id"]
        return await self._once(request, await request.read(), lambda: self.book.link(model_id, link))

    async def _list(self, request: web.Request) -> web.Response:
        query = request.query
        return await self._answer(request, lambda: self.book.page(query.get("updated_since"), query.get("cursor")))

    async def _once(self, request: web.Request, body: bytes, apply: Callable[[], Answer]) -> web.Response:
        key = request.headers.get("Idempotency-Key")
        return await self._answer(request, lambda: self.book.once(key, body, apply))

    async def _answer(self, request: web.Request, ask: Callable[[], Answer]) -> web.Response:
        failure = None if self.failures is None else self.failures.draw()
        if failure == "before":
            return web.json_response({"error": "as told"}, status=503)
        status, body = ask()
        if failure == "after" and request.transport is not None:
            request.transport.abort()
            await asyncio.sleep(0)
        return (
            web.Response(status=status)
            if status == web.HTTPNoContent.status_code
            else web.json_response(body, status=status)
        )
