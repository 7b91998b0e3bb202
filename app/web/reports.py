"""Compliance reports over HTTP: asked of the governance dashboard, at any worker (contracts 8.3 and 9.5)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aiohttp import web

from app.events import MOMENT_FORM, parse_moment_ms
from app.integrations.reports import ReportFormat, ReportRequest, ReportType
from app.integrations.upstream import Malformed, Rejected, Unavailable
from app.web.auth import reads
from app.web.problems import FieldError, Problem
from app.web.requests import fields_of, query_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.integrations.reports import Reports

__all__ = ["report_routes"]

T = TypeVar("T")

RETRY_AFTER_S: Final = 10
MAX_SCOPE_CHARS: Final = 1024
_FIELDS: Final = ("report_type", "type", "start_date", "end_date", "scope", "format")


def report_routes(reports: Reports | None) -> list[web.RouteDef]:
    """`POST /v1/governance/reports`.

    Args:
        reports: None: there is no dashboard.
    """

    @reads
    async def create(request: web.Request) -> web.StreamResponse:
        query_of(request, ())
        asked = _read(await fields_of(request, _FIELDS))
        if reports is None:
            setting = "VAULT_STREAM_GOVERNANCE__ENDPOINT"
            detail = f"There is no governance dashboard to ask: set {setting} and restart the workers."
            raise Problem(503, "governance_off", detail, retry_after_s=RETRY_AFTER_S, setting=setting)
        try:
            report = await reports.generate(asked)
        except Rejected as error:
            detail = f"The governance dashboard does not make this report ({error})."
            raise Problem(422, "report_rejected", detail) from None
        except Malformed as error:
            detail = f"The governance dashboard did not answer with a report: {error}."
            raise Problem(503, "report_malformed", detail, retry_after_s=RETRY_AFTER_S) from None
        except Unavailable as error:
            wait_s = RETRY_AFTER_S if error.retry_after_s is None else max(1, math.ceil(error.retry_after_s))
            detail = f"The governance dashboard cannot be asked now ({error}). Try again."
            raise Problem(503, "governance_unavailable", detail, retry_after_s=wait_s) from None
        return web.json_response(report.show())

    return [web.post("/v1/governance/reports", create)]


def _read(body: dict[str, Any]) -> ReportRequest:
    if "type" in body and "report_type" in body:
        raise _bad("type", "report_type or type, not both")
    name = "type" if "type" in body else "report_type"
    type_ = _parsed(body, name, ReportType.parse)
    format_ = _parsed({"format": ReportFormat.JSON.value, **body}, "format", ReportFormat.parse)
    start_ms = _parsed(body, "start_date", _time)
    end_ms = _parsed(body, "end_date", _time)
    if end_ms <= start_ms:
        raise _bad("end_date", "after start_date")
    scope = body.get("scope")
    if scope is not None and not (isinstance(scope, str) and 1 <= len(scope) <= MAX_SCOPE_CHARS):
        raise _bad("scope", f"a text of 1 to {MAX_SCOPE_CHARS} characters")
    return ReportRequest(type_, start_ms, end_ms, format_, scope)


def _parsed(body: dict[str, Any], name: str, parse: Callable[[str], T]) -> T:
    value = body.get(name)
    try:
        # Whatever it is, the words are those of one that is nothing.
        return parse(value if isinstance(value, str) else "")
    except ValueError as error:
        raise _bad(name, str(error), missing=value is None) from None


def _time(text: str) -> int:
    try:
        return parse_moment_ms(text)
    except ValueError:
        raise ValueError(MOMENT_FORM) from None


def _bad(name: str, message: str, *, missing: bool = False) -> Problem:
    message = f"is missing: {message}" if missing else message
    error = FieldError(f"/{name}", "missing" if missing else "invalid", message)
    return Problem(422, "invalid_field", f"/{name}: {message}", errors=[error])
