"""Stand-ins for the systems around the vault: small, honest HTTP servers on loopback that remember what they were sent.

Each can be told to misbehave, by its `fault` or, from outside, by `POST /control` with the fields of `Fault` (and
`DELETE /control` to behave again); `GET /observed` says in numbers what it has seen. `stop` and `start` on the same
object give a refused connection and then the same address again.
"""

import asyncio
import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from aiohttp import web

__all__ = ["Dashboard", "Fault", "Observations", "PolicyEngine", "Registry", "Standin"]

MAX_BODY_BYTES: Final = 16 * 1024 * 1024


class Observations:
    """Says when something was observed, to whoever waits for a number.

    Args:
        listener: Called at each observation, with nothing.
    """

    def __init__(self, listener: Callable[[], None] | None = None) -> None:
        self._changed = asyncio.Event()
        self._listener = listener

    def notify(self) -> None:
        """Something was observed."""
        self._changed.set()
        if self._listener is not None:
            self._listener()

    async def until(self, holds: Callable[[], bool], timeout_s: float) -> bool:
        """Waits until `holds()`; False when it still does not after `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not holds():
                    self._changed.clear()
                    await self._changed.wait()
        return holds()


@dataclass(frozen=True, slots=True)
class Fault:
    """How to misbehave.

    Attributes:
        status: Answer with it.
        times: So many requests, then behave; None: until told otherwise.
        retry_after_s: In a Retry-After header.
        delay_s: Wait before the answer.
        drop: Close the connection instead of an answer.
        over_items: Only for a JSON list with more items than this.
        naming: Only for a body that has this text in it.
    """

    status: int = 503
    times: int | None = None
    retry_after_s: int | None = None
    delay_s: float = 0.0
    drop: bool = False
    over_items: int | None = None
    naming: str | None = None

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """The fault that a control request asks for.

        Raises:
            ValueError: It is no JSON object, or has a field that no fault has.
        """
        fields = json.loads(body)
        if not isinstance(fields, dict) or fields.keys() - set(cls.__slots__):
            raise ValueError(f"expected a JSON object with some of: {', '.join(cls.__slots__)}")
        return cls(**fields)

    def concerns(self, body: bytes) -> bool:
        """Whether a request with this body is to be mistreated."""
        if self.naming is not None and self.naming.encode() not in body:
            return False
        if self.over_items is None:
            return True
        items = json.loads(body)
        return isinstance(items, list) and len(items) > self.over_items


class Standin(ABC):
    """One server on loopback.

    Args:
        observations: Told of every request that was accepted.
    """

    def __init__(self, observations: Observations) -> None:
        self.fault: Fault | None = None
        self.requests = 0
        self._observations = observations
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """Where it listens, once started."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        """The port, kept over a stop and a start."""
        return self._port

    @abstractmethod
    def observed(self) -> dict[str, Any]:
        """What it has seen, in numbers."""

    @abstractmethod
    def _routes(self) -> list[web.RouteDef]:
        """What it serves, besides the control routes."""

    async def start(self, port: int = 0) -> None:
        """Listens: on `port`, else on the port it had before, else on a free one.

        Raises:
            OSError: The port is in use.
        """
        app = web.Application(middlewares=[self._misbehave], client_max_size=MAX_BODY_BYTES)
        control = (
            web.post("/control", self._set_fault),
            web.delete("/control", self._clear_fault),
            web.get("/observed", self._show_observed),
        )
        app.add_routes([*control, *self._routes()])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port or self._port)
        await site.start()
        self._port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stops listening; what it has seen stays."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @web.middleware
    async def _misbehave(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path in ("/control", "/observed"):
            return await _answer(handler, request)
        self.requests += 1
        fault = self.fault
        if fault is None or not fault.concerns(await request.read()):
            return await _answer(handler, request)
        if fault.times is not None:
            self.fault = replace(fault, times=fault.times - 1) if fault.times > 1 else None
        await asyncio.sleep(fault.delay_s)
        if fault.drop and request.transport is not None:
            request.transport.abort()
        headers = {} if fault.retry_after_s is None else {"Retry-After": str(fault.retry_after_s)}
        return web.json_response({"error": "as told"}, status=fault.status, headers=headers)

    async def _set_fault(self, request: web.Request) -> web.Response:
        try:
            self.fault = Fault.parse(await request.read())
        except (ValueError, TypeError) as error:
            return web.json_response({"error": str(error)}, status=422)
        return web.Response(status=204)

    async def _clear_fault(self, _request: web.Request) -> web.Response:
        self.fault = None
        return web.Response(status=204)

    async def _show_observed(self, _request: web.Request) -> web.Response:
        return web.json_response(self.observed())


async def _answer(handler: Any, request: web.Request) -> web.StreamResponse:
    response = await handler(request)
    if not isinstance(response, web.StreamResponse):
        raise TypeError(f"{request.path} gave no response")
    return response


class Dashboard(Standin):
    """The governance dashboard: takes audit batches, and knows a repeated one by its Idempotency-Key."""

    def __init__(self, observations: Observations) -> None:
        super().__init__(observations)
        self.batches: dict[str, bytes] = {}
        self.entries: dict[tuple[int, int], dict[str, Any]] = {}
        """Accepted AuditEvents by partition and sequence."""
        self.events: set[tuple[str, str]] = set()
        self.repeated = 0
        self.changed = 0
        """Batches that came again under the same key with other bytes: never, if the processor keeps its word."""

    def observed(self) -> dict[str, Any]:
        """Batches, events, repeats."""
        return {
            "requests": self.requests,
            "batches": len(self.batches),
            "entries": len(self.entries),
            "events": len(self.events),
            "repeated": self.repeated,
            "changed": self.changed,
        }

    def chain(self) -> list[dict[str, Any]]:
        """All accepted AuditEvents, in the order of each partition."""
        return [self.entries[place] for place in sorted(self.entries)]

    def _routes(self) -> list[web.RouteDef]:
        return [web.post("/api/v1/audit/events/batch", self._take)]

    async def _take(self, request: web.Request) -> web.Response:
        key, body = request.headers.get("Idempotency-Key"), await request.read()
        if not key:
            return web.json_response({"error": "Idempotency-Key is missing"}, status=400)
        known = self.batches.setdefault(key, body)
        if known is not body:
            self.repeated += 1
            self.changed += known != body
            return web.json_response({"error": "this batch is known"}, status=409)
        for entry in json.loads(body):
            self.entries[entry["partition"], entry["sequence"]] = entry
            self.events.add((entry["source"], entry["id"]))
        self._observations.notify()
        return web.json_response({"accepted": key}, status=202)


class PolicyEngine(Standin):
    """The policy engine: takes violation reports, and answers access questions by a simple rule."""

    def __init__(self, observations: Observations) -> None:
        super().__init__(observations)
        self.violations: dict[str, dict[str, Any]] = {}
        """Reports by violation id."""
        self.repeated = 0
        self.evaluations = 0
        self._keys: set[str] = set()

    def observed(self) -> dict[str, Any]:
        """Reports, repeats, evaluations."""
        return {
            "requests": self.requests,
            "violations": len(self.violations),
            "repeated": self.repeated,
            "evaluations": self.evaluations,
        }

    def _routes(self) -> list[web.RouteDef]:
        return [web.post("/api/v1/violations", self._take), web.post("/api/v1/evaluate/access", self._evaluate)]

    async def _take(self, request: web.Request) -> web.Response:
        key, report = request.headers.get("Idempotency-Key"), await request.json()
        if not key:
            return web.json_response({"error": "Idempotency-Key is missing"}, status=400)
        if key in self._keys:
            self.repeated += 1
            return web.json_response({"error": "this report is known"}, status=409)
        self._keys.add(key)
        self.violations[report["violation_id"]] = report
        self._observations.notify()
        return web.json_response({"violation_id": report["violation_id"]}, status=201)

    async def _evaluate(self, request: web.Request) -> web.Response:
        """Everybody may read; only principals that begin with `admin` may do anything else."""
        question = await request.json()
        self.evaluations += 1
        allowed = question["action"] == "read" or question["principal_id"].startswith("admin")
        return web.json_response(
            {
                "allowed": allowed,
                "reason": "reading is open" if allowed else "only an admin may do this",
                "matched_policies": ["pol-open-reading"] if allowed else [],
                "obligations": [],
            }
        )


class Registry(Standin):
    """The dataset registry: upserts and deletes."""

    def __init__(self, observations: Observations) -> None:
        super().__init__(observations)
        self.datasets: dict[str, dict[str, Any]] = {}
        self.deleted: set[str] = set()
        self.upserts = 0

    def observed(self) -> dict[str, Any]:
        """Datasets there now, and how they came to be."""
        return {
            "requests": self.requests,
            "datasets": len(self.datasets),
            "deleted": len(self.deleted),
            "upserts": self.upserts,
        }

    def _routes(self) -> list[web.RouteDef]:
        return [web.post("/api/v1/datasets", self._upsert), web.delete("/api/v1/datasets/{id}", self._delete)]

    async def _upsert(self, request: web.Request) -> web.Response:
        dataset = await request.json()
        self.upserts += 1
        known = dataset["id"] in self.datasets
        self.datasets[dataset["id"]] = dataset
        self._observations.notify()
        return web.json_response({"id": f"reg-{dataset['id']}"}, status=200 if known else 201)

    async def _delete(self, request: web.Request) -> web.Response:
        dataset_id = request.match_info["id"]
        known = self.datasets.pop(dataset_id, None)
        self.deleted.add(dataset_id)
        self._observations.notify()
        return web.Response(status=404 if known is None else 204)
