"""Questions of access over HTTP, in the vault dialect and in AuthZEN 1.0 (contracts 8.3 and 9.5).

Whatever goes wrong is 503 `policy_unavailable` (in a batch of AuthZEN: a denial of that item), never an allow.

Source of AuthZEN: https://openid.net/specs/authorization-api-1_0.html
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeVar

import orjson
from aiohttp import web

from app.engine import OutputFailed
from app.integrations.policy import (
    CALLER_TRACE,
    MAX_NAME_CHARS,
    Answered,
    BadQuestion,
    NotOwner,
    PolicyUnavailable,
    authzen_question,
    vault_question,
)
from app.integrations.upstream import trace_headers
from app.web.auth import principal_of, public, reads
from app.web.forward import HOP_HEADER, RETRY_AFTER_S
from app.web.policy_owners import BEGAN_HEADER, UNAVAILABLE, show_authzen, show_decision
from app.web.problems import FieldError, Problem
from app.web.requests import json_body, query_of
from app.webhooks.errors import pointer

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Iterator

    from app.integrations.policy import Evaluator, PolicyEngine, Question
    from app.web.webhook_commands import Sends

__all__ = ["MAX_QUESTIONS", "PolicyApi", "policy_routes"]

T = TypeVar("T")

log = logging.getLogger("app.web.policy")

MAX_QUESTIONS: Final = 100
SEND_S: Final = 5.0
NO_DECISION: Final = "There is no decision now, so that access is denied"
NO_LIST: Final = "The policy engine cannot be asked now which policies apply; try again"
NO_LIST_WHILE_OFF: Final = "No policies can be listed"
ENDPOINT: Final = "VAULT_STREAM_POLICY__ENDPOINT"
_EXECUTE_ALL: Final = "execute_all"
# On which decision the rest of a batch is not asked any more.
_STOPS_ON: Final = {_EXECUTE_ALL: None, "deny_on_first_deny": False, "permit_on_first_permit": True}
_DEFAULTS: Final = ("subject", "action", "resource", "context")
_SCOPES: Final = {"principal_id": "p", "resource_id": "r"}


class _Off(PolicyUnavailable):
    """There is no engine to ask, and there will be none before a setting names one."""

    def __init__(self) -> None:
        super().__init__(f"the policy engine has no endpoint; set {ENDPOINT} and restart the workers")


@dataclass(frozen=True, slots=True)
class PolicyApi:
    """What the routes work with.

    Attributes:
        evaluator, engine: None: the policy engine has no endpoint.
        outputs: Takes invalidations.
        invalidations: Their topic.
        public_url: Of this worker.
    """

    evaluator: Evaluator | None
    engine: PolicyEngine | None
    outputs: Sends
    invalidations: str
    public_url: str


def policy_routes(api: PolicyApi) -> list[web.RouteDef]:
    """Evaluate, applicable, invalidate, and what AuthZEN asks for."""
    vault, authzen = _Vault(api), _Authzen(api)
    return [
        web.post("/v1/policy/evaluate", vault.evaluate),
        web.post("/v1/policy/evaluate/batch", vault.evaluate_batch),
        web.get("/v1/policy/applicable", vault.applicable),
        web.post("/v1/policy/invalidate", vault.invalidate),
        web.post("/access/v1/evaluation", authzen.evaluation),
        web.post("/access/v1/evaluations", authzen.evaluations),
        web.get("/.well-known/authzen-configuration", authzen.configuration),
    ]


class _Handlers:
    def __init__(self, api: PolicyApi) -> None:
        self._api = api

    async def _answer(self, request: web.Request, question: Question) -> Answered:
        """The decision.

        Raises:
            PolicyUnavailable, NotOwner: There is none.
        """
        evaluator, hopped = self._api.evaluator, HOP_HEADER in request.headers
        if evaluator is None:
            raise NotOwner(question.principal_id) if hopped else _Off()
        with _traced(request):
            return await evaluator.evaluate(question, request.headers, hopped=hopped)

    async def _one(self, request: web.Request, question: Question) -> Answered:
        try:
            return await self._answer(request, question)
        except PolicyUnavailable as error:
            raise _unavailable(error) from None
        except NotOwner:
            detail = "This worker does not own the principal, nor does it pass on what was passed on. Try again."
            raise Problem(503, "not_owner", detail, retry_after_s=RETRY_AFTER_S) from None


class _Vault(_Handlers):
    @reads
    async def evaluate(self, request: web.Request) -> web.Response:
        query_of(request, ())
        answered = await self._one(request, _asked(await json_body(request)))
        return _shown(show_decision(answered), answered)

    @reads
    async def evaluate_batch(self, request: web.Request) -> web.Response:
        """All or nothing: a caller that looks at the first item only must not take half of it for the whole."""
        query_of(request, ())
        body = _object(await json_body(request), ("requests",))
        items = _questions(body.get("requests"), "/requests")
        questions = [_asked(item, f"/requests/{place}") for place, item in enumerate(items)]
        answers = await _together(self._one(request, question) for question in questions)
        return _json({"items": [show_decision(answered) for answered in answers]})

    async def applicable(self, request: web.Request) -> web.Response:
        resource = query_of(request, ("resource",)).get("resource", "")
        engine = self._api.engine
        if engine is None:
            raise _unavailable(_Off(), NO_LIST_WHILE_OFF)
        try:
            with _traced(request):
                items = await engine.applicable(resource)
        except BadQuestion as error:
            raise _refused(error, "invalid_query") from None
        except PolicyUnavailable as error:
            raise _unavailable(error, NO_LIST) from None
        return _json({"items": items, "next_cursor": None})

    async def invalidate(self, request: web.Request) -> web.Response:
        """Each worker acts by it within a second of the answer."""
        query_of(request, ())
        scope = _scope(await json_body(request))
        actor = principal_of(request).name
        try:
            async with asyncio.timeout(SEND_S):
                await self._api.outputs.send(self._api.invalidations, scope.encode(), orjson.dumps({"actor": actor}))
        except (OutputFailed, TimeoutError):
            detail = "Kafka does not answer, so that nothing may have been invalidated. Try again."
            raise Problem(503, "broker_unavailable", detail, retry_after_s=RETRY_AFTER_S) from None
        log.info("decisions are invalidated", extra={"actor": actor, "everything": scope == "*"})
        return _json({"scope": scope})


class _Authzen(_Handlers):
    @reads
    async def evaluation(self, request: web.Request) -> web.Response:
        query_of(request, ())
        answered = await self._one(request, _in_authzen(await json_body(request)))
        return _shown(show_authzen(answered), answered)

    @reads
    async def evaluations(self, request: web.Request) -> web.Response:
        """Items stand over the members of the whole; without any it is one evaluation."""
        query_of(request, ())
        body = await json_body(request)
        if not isinstance(body, dict):
            raise _refused(BadQuestion("", "an object"), status=400)
        for name in _DEFAULTS:
            if not isinstance(body.get(name, {}), dict):
                raise _refused(BadQuestion(f"/{name}", "an object"), status=400)
        stops_on = _semantic(body)
        if body.get("evaluations", []) == []:
            answered = await self._one(request, _in_authzen(body))
            return _shown(show_authzen(answered), answered)
        items = _questions(body["evaluations"], "/evaluations", status=400)
        defaults = {name: body[name] for name in _DEFAULTS if name in body}
        asked = [defaults | item if isinstance(item, dict) else item for item in items]
        if stops_on is None:
            return _json({"evaluations": await _together(self._item(request, one) for one in asked)})
        found: list[dict[str, Any]] = []
        for one in asked:
            found.append(await self._item(request, one))
            if found[-1]["decision"] is stops_on:
                break
        return _json({"evaluations": found})

    async def _item(self, request: web.Request, asked: Any) -> dict[str, Any]:
        """One of several; an error denies that one (7.2.2 of the specification)."""
        try:
            return show_authzen(await self._answer(request, authzen_question(asked)))
        except BadQuestion as error:
            return _denied(HTTPStatus.BAD_REQUEST, str(error))
        except (PolicyUnavailable, NotOwner):
            return _denied(HTTPStatus.SERVICE_UNAVAILABLE, "there is no decision now")

    @public
    async def configuration(self, request: web.Request) -> web.Response:
        """Where everything is (9.1.1 of the specification)."""
        query_of(request, ())
        url = self._api.public_url.rstrip("/")
        document = {
            "policy_decision_point": url,
            "access_evaluation_endpoint": f"{url}/access/v1/evaluation",
            "access_evaluations_endpoint": f"{url}/access/v1/evaluations",
        }
        return web.json_response(document, headers={"Cache-Control": "public, max-age=300"})


@contextmanager
def _traced(request: web.Request) -> Iterator[None]:
    """What is asked of the engine here belongs to the caller's trace; a connection is one task for many requests."""
    token = CALLER_TRACE.set(trace_headers(request.headers) or None)
    try:
        yield
    finally:
        CALLER_TRACE.reset(token)


async def _together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Side by side; the first failure ends all."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _asked(body: Any, where: str = "") -> Question:
    try:
        return vault_question(body)
    except BadQuestion as error:
        raise _refused(BadQuestion(where + error.field, error.told, error.code)) from None


def _in_authzen(body: Any) -> Question:
    try:
        return authzen_question(body)
    except BadQuestion as error:
        # 6.4 of the specification; in the vault dialect it is 422.
        raise _refused(error, status=400) from None


def _semantic(body: dict[str, Any]) -> bool | None:
    options = body.get("options", {})
    if not isinstance(options, dict):
        raise _refused(BadQuestion("/options", "an object"), status=400)
    semantic = options.get("evaluations_semantic", _EXECUTE_ALL)
    if not isinstance(semantic, str) or semantic not in _STOPS_ON:
        told = f"one of {', '.join(_STOPS_ON)}"
        raise _refused(BadQuestion("/options/evaluations_semantic", told), status=400)
    return _STOPS_ON[semantic]


def _questions(items: Any, where: str, *, status: int = 422) -> list[Any]:
    if not isinstance(items, list) or not items:
        told, code = "a list that is not empty", "invalid"
        if items is None:
            told, code = f"is missing: {told}", "missing"
        raise _refused(BadQuestion(where, told, code), status=status)
    if len(items) > MAX_QUESTIONS:
        raise _refused(BadQuestion(where, f"at most {MAX_QUESTIONS} of them", "too_many"), status=status)
    return items


def _object(body: Any, known: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise _refused(BadQuestion("", "an object"))
    for name in body:
        if name not in known:
            raise _refused(BadQuestion(pointer(name), f"one of {', '.join(known)}", "unknown"))
    return body


def _scope(body: Any) -> str:
    """The key of an invalidation: exactly one of `principal_id`, `resource_id` and `all: true`."""
    found = _object(body, (*_SCOPES, "all"))
    if len(found) != 1:
        raise _refused(BadQuestion("", "exactly one of principal_id, resource_id and all"))
    ((name, value),) = found.items()
    if name == "all":
        if value is not True:
            raise _refused(BadQuestion("/all", "true"))
        return "*"
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_NAME_CHARS:
        raise _refused(BadQuestion(f"/{name}", f"a string of 1 to {MAX_NAME_CHARS} characters"))
    return f"{_SCOPES[name]}:{value}"


def _refused(error: BadQuestion, code: str = "invalid_field", *, status: int = 422) -> Problem:
    field = FieldError(error.field, error.code, error.told)
    return Problem(status, code, f"{error.field or 'the body'}: {error.told}", errors=[field])


def _unavailable(error: PolicyUnavailable, told: str = NO_DECISION) -> Problem:
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        UNAVAILABLE,
        f"{told}: {error}.",
        retry_after_s=RETRY_AFTER_S,
        setting=ENDPOINT if isinstance(error, _Off) else None,
    )


def _denied(status: HTTPStatus, message: str) -> dict[str, Any]:
    return {"decision": False, "context": {"error": {"status": status.value, "message": message}}}


def _json(document: Any, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=orjson.dumps(document), content_type="application/json", headers=headers)


def _shown(document: Any, answered: Answered) -> web.Response:
    return _json(document, {BEGAN_HEADER: str(answered.decision.began_ms)})
