"""The governance dashboard: takes audit batches, and knows a repeated one by its Idempotency-Key; makes reports."""

import base64
import json
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

from aiohttp import web

from app.devstack.standins.base import Standin
from app.devstack.standins.describing import (
    COUNT,
    IDEMPOTENCY_KEY,
    TEXT,
    Description,
    Operation,
    obj,
    parameter,
    ref,
)
from app.devstack.standins.observing import Observations
from app.devstack.standins.reading import Refusal, check, json_in, key_of, object_in

REPORT_TYPES: Final = ("gdpr_article_30", "soc2", "hipaa", "access_summary", "data_inventory")
REPORT_FORMATS: Final = ("json", "csv", "pdf")

_OFFSET: Final = {"type": "string", "pattern": "^[0-9]+$"}
_DESCRIPTION: Final = Description(
    "Governance dashboard (stand-in)",
    "Takes audit batches once each, and makes reports of what it has.",
    {
        "/api/v1/audit/events/batch": {
            "post": Operation(
                "takeAuditBatch",
                "A batch of audit events, which is taken once, whatever is sent again under its key.",
                {
                    202: ("Taken.", obj({"accepted": TEXT})),
                    409: ("A batch with this key was taken already.", ref("Error")),
                    400: ("No Idempotency-Key, or no JSON.", ref("Error")),
                    415: ("Not said to be JSON.", ref("Error")),
                    422: ("An event is not as agreed.", ref("Error")),
                },
                [
                    IDEMPOTENCY_KEY,
                    parameter("X-Batch-First-Offset", "header", required=False, schema=_OFFSET),
                    parameter("X-Batch-Last-Offset", "header", required=False, schema=_OFFSET),
                ],
                {"type": "array", "minItems": 1, "items": ref("AuditEvent")},
            )
        },
        "/api/v1/reports/{type}": {
            "post": Operation(
                "makeReport",
                "A report over what was taken between two times.",
                {
                    200: ("The report.", ref("Report")),
                    400: ("No JSON.", ref("Error")),
                    404: ("No such type.", ref("Error")),
                    415: ("Not said to be JSON.", ref("Error")),
                    422: ("A field is not as agreed.", ref("Error")),
                },
                [parameter("type", "path", schema={"enum": list(REPORT_TYPES)})],
                obj(
                    {"start_date": TEXT, "end_date": TEXT, "format": {"enum": list(REPORT_FORMATS)}},
                    {"scope": {}},
                ),
            )
        },
    },
    {
        "AuditEvent": obj(
            {"id": TEXT, "source": TEXT, "partition": COUNT, "sequence": COUNT},
            {
                "hash": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                "previous_hash": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                "event_type": TEXT,
                "category": TEXT,
                "occurred_at": TEXT,
                "recorded_at": TEXT,
                "actor": {"type": "object"},
                "resource": {"type": "object"},
                "action": TEXT,
                "outcome": {"enum": ["success", "failure", "denied"]},
                "details": {"type": "object"},
            },
        ),
        "Report": obj(
            {
                "id": TEXT,
                "report_type": TEXT,
                "generated_at": TEXT,
                "content": {
                    "description": "json: an object; csv: text; pdf: base64.",
                    "anyOf": [{"type": "object"}, {"type": "string"}],
                },
            }
        ),
    },
)


class Dashboard(Standin):
    """See the module."""

    description: ClassVar[Description] = _DESCRIPTION

    def __init__(self, observations: Observations) -> None:
        super().__init__(observations)
        self.batches: dict[str, bytes] = {}
        self.entries: dict[tuple[int, int], dict[str, Any]] = {}
        """Accepted AuditEvents by partition and sequence."""
        self.events: set[tuple[str, str]] = set()
        self.repeated = 0
        self.changed = 0
        """Batches that came again under the same key with other bytes: never, if the processor keeps its word."""
        self.reports = 0

    def observed(self) -> dict[str, Any]:
        """Batches, events, repeats, reports."""
        return {
            "requests": self.requests,
            "batches": len(self.batches),
            "entries": len(self.entries),
            "events": len(self.events),
            "repeated": self.repeated,
            "changed": self.changed,
            "reports": self.reports,
        }

    def chain(self) -> list[dict[str, Any]]:
        """All accepted AuditEvents, in the order of each partition."""
        return [self.entries[place] for place in sorted(self.entries)]

    def _routes(self) -> list[web.RouteDef]:
        return [web.post("/api/v1/audit/events/batch", self._take), web.post("/api/v1/reports/{type}", self._report)]

    async def _take(self, request: web.Request) -> web.Response:
        key, body = key_of(request), await request.read()
        known = self.batches.get(key)
        if known is not None:
            self.repeated += 1
            self.changed += known != body
            return web.json_response({"error": "this batch is known"}, status=409)
        batch = await json_in(request)
        if not isinstance(batch, list) or not batch:
            raise Refusal(422, "the body is not a list of audit events")
        for entry in batch:
            check(entry, "an audit event", partition=int, sequence=int, source=str, id=str)
        self.batches[key] = body
        for entry in batch:
            self.entries[entry["partition"], entry["sequence"]] = entry
            self.events.add((entry["source"], entry["id"]))
        self._observations.notify()
        return web.json_response({"accepted": key}, status=202)

    async def _report(self, request: web.Request) -> web.Response:
        kind = request.match_info["type"]
        if kind not in REPORT_TYPES:
            raise Refusal(404, "no such type of report")
        asked = await object_in(request, start_date=str, end_date=str, format=str)
        if asked["format"] not in REPORT_FORMATS:
            raise Refusal(422, "format is none of json, csv and pdf")
        self.reports += 1
        counts = Counter(_between(self.chain(), asked["start_date"], asked["end_date"]))
        return web.json_response(
            {
                "id": f"report-{self.reports}",
                "report_type": kind,
                "generated_at": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
                "content": _content(asked["format"], counts),
            }
        )


def _between(entries: Iterable[dict[str, Any]], start: str, end: str) -> list[str]:
    """The categories of what happened between two times, which all are RFC 3339 in UTC."""
    return [str(entry.get("category")) for entry in entries if start <= str(entry.get("occurred_at", start)) < end]


def _content(form: str, counts: Counter[str]) -> Any:
    if form == "json":
        return {"events": counts.total(), "by_category": dict(counts)}
    if form == "csv":
        return "category,events\n" + "".join(f"{name},{count}\n" for name, count in sorted(counts.items()))
    text = json.dumps(dict(counts), sort_keys=True)
    return base64.b64encode(f"%PDF-1.4\n% {text}\n%%EOF\n".encode()).decode()
