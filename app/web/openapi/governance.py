"""The audit trail: how far it is, an export of it, and the dashboard's reports."""

from __future__ import annotations

from typing import Any, Final

from app.integrations.reports import ReportFormat, ReportType
from app.web.audit_verifier import MAX_FINDINGS
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
    nullable,
    obj,
    path_id,
    query,
    ref,
    text,
)
from app.web.openapi.shared import COUNT, GIVEN_TIME, HOP, NUMBERS, TEXT, TIME

__all__ = ["GOVERNANCE"]

_HASH: Final = text("[0-9a-f]{64}")
_AGE: Final[Schema] = {"type": "number", "minimum": 0}
_PARTITION: Final = obj(
    {
        "partition": COUNT,
        "head_sequence": {**nullable(COUNT), "description": "Of the last entry that is sealed."},
        "head_hash": nullable(_HASH),
        "unsealed": {**COUNT, "description": "Records in no sealed batch yet."},
        "sealed": {**COUNT, "description": "Records of the sealed batch that the dashboard has not accepted."},
        "oldest_unaccepted_s": {
            **nullable(_AGE),
            "description": "Age of the oldest record that was read and that the dashboard has not accepted.",
        },
    }
)
_SHOWN: Final = {
    "partition": 0,
    "head_sequence": 41,
    "head_hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "unsealed": 3,
    "sealed": 0,
    "oldest_unaccepted_s": 1.25,
}
_ANCHORS: Final = obj(
    {
        "items": array(obj({"partition": COUNT, "first": COUNT, "previous_hash": _HASH})),
        "missing": NUMBERS,
    }
)
_EXPORTED: Final = {
    **answer(
        "JSON lines, each an AuditEvent with its hash, and at the end a trailer for each partition; or the same as CSV."
        " An answer that breaks off, or has no trailers, is not whole. JSON only between workers.",
        headers={},
    ),
    "content": {
        "application/x-ndjson": {"schema": TEXT},
        "text/csv": {"schema": TEXT},
        "application/json": {"schema": _ANCHORS},
    },
}
_TYPES: Final = enum(*ReportType, *(one.pascal for one in ReportType))
_FORMATS: Final = enum(*ReportFormat, *(one.value.capitalize() for one in ReportFormat))
_REQUEST: Final = {
    **obj(
        {
            "report_type": _TYPES,
            "type": {**_TYPES, "description": "The same as report_type."},
            "start_date": GIVEN_TIME,
            "end_date": {**GIVEN_TIME, "description": "After start_date; this moment itself is not in the report."},
            "scope": nullable({"type": "string", "minLength": 1, "maxLength": 1024}),
            "format": {**_FORMATS, "default": "json"},
        },
        ("start_date", "end_date"),
    ),
    "oneOf": [{"required": ["report_type"]}, {"required": ["type"]}],
}
_REPORT: Final = example(
    obj(
        {
            "id": TEXT,
            "report_type": enum(*ReportType),
            "generated_at": TIME,
            "format": enum(*ReportFormat),
            "content": {
                "anyOf": [{"type": "object"}, TEXT],
                "description": "json: an object; csv: text; pdf: base64.",
            },
            "download_url": {**TEXT, "description": "On the dashboard's own origin."},
        },
        ("id", "report_type", "generated_at", "format", "content"),
    ),
    {
        "id": "rep-1",
        "report_type": "access_summary",
        "generated_at": "2026-02-01T00:00:00Z",
        "format": "json",
        "content": {"grants": 12, "revocations": 3},
    },
)

_UUID: Final = text("[0-9a-f-]{36}")
_RUN: Final = "6f1c1d56-4f5e-4c0f-9a55-2b2e0a6d3c11"
_VERIFICATION_ID: Final = path_id("The id of the verification.", _RUN)
_FINDING: Final = {
    "kind": enum("edited", "removed", "inserted", "swapped", "truncated", "unreadable"),
    "detail": TEXT,
    "sequence": nullable(COUNT),
    "batch": {**nullable(TEXT), "description": "The id of the sealed batch that it shows in."},
}
_VERDICT: Final = obj(
    {
        "partition": COUNT,
        "ok": {"type": "boolean"},
        "first": {**nullable(COUNT), "description": "The sequence from which on everything was checked."},
        "from_start": {
            "type": "boolean",
            "description": "Whether that is the beginning of the chain; else what came before is taken on trust.",
        },
        "head_sequence": nullable(COUNT),
        "head_hash": nullable(_HASH),
        "checked": COUNT,
        "batches": COUNT,
        "unsealed": {**COUNT, "description": "Records behind the last sealed batch: nothing to compare them with yet."},
        "repeats": COUNT,
        "findings": array(obj(_FINDING), maxItems=MAX_FINDINGS),
        "not_named": {**COUNT, "description": "Findings beyond those that are listed."},
    }
)
_VERIFICATION: Final = obj(
    {
        "id": _UUID,
        "worker": TEXT,
        "state": {
            **enum("running", "done", "failed", "cancelled"),
            "description": "failed: it could not be carried out, which says nothing about the trail.",
        },
        "step": {**enum("batches", "records"), "description": "What is read: what was sealed, then the topic."},
        "started_at": TIME,
        "ended_at": nullable(TIME),
        "read": COUNT,
        "total": {**nullable(COUNT), "description": "How much there is to be read, once that is known."},
        "ok": {**nullable({"type": "boolean"}), "description": "Null before the end; false as soon as it is."},
        "error": {**nullable(TEXT), "description": "Why it failed."},
        "first_broken": nullable(obj({"partition": COUNT, **_FINDING})),
        "partitions": array(ref("VerificationVerdict")),
    }
)
_VERIFIED: Final[dict[str, Any]] = {
    "id": _RUN,
    "worker": "worker-1",
    "state": "running",
    "step": "records",
    "started_at": "2026-02-01T00:00:00.000Z",
    "ended_at": None,
    "read": 1200,
    "total": 5000,
    "ok": None,
    "error": None,
    "first_broken": None,
    "partitions": [],
}
_VERIFICATION_OR_PAGE: Final = {"anyOf": [ref("Verification"), ref("Verifications")]}

GOVERNANCE: Final = Area(
    "governance",
    {
        "/v1/governance/status": {
            "get": Operation(
                "governanceStatus",
                "How far the audit trail of each partition is, over all workers",
                {200: answer("All partitions.", ref("GovernanceStatus"))},
                (503,),
                parameters=(HOP,),
            )
        },
        "/v1/governance/export": {
            "get": Operation(
                "exportAudit",
                "The audit trail with its hashes, as `vault-stream audit verify FILE` checks it",
                {200: _EXPORTED},
                (429, 503),
                parameters=(
                    query("from", GIVEN_TIME, "Recorded at or after this time (RFC 3339) or date (midnight UTC)."),
                    query("to", GIVEN_TIME, "Recorded before this time or date: 2026-02-01 is the end of January."),
                    query(
                        "resource",
                        {"type": "string", "minLength": 1, "maxLength": 1024},
                        "Of this resource or dataset only; such entries are not chained to each other.",
                    ),
                    query("format", {**enum("jsonl", "csv"), "default": "jsonl"}, "JSON lines or CSV."),
                    HOP,
                ),
                description="That it was exported is itself audited.",
            )
        },
        "/v1/governance/verifications": {
            "post": Operation(
                "startVerification",
                "Check the audit topic against its sealed batches, as `vault-stream audit verify --topic` does",
                {
                    202: answer(
                        "It begins, at the worker that was asked.",
                        obj({"id": _UUID}),
                        headers={"Location": header("Where to watch it.", text("/v1/governance/verifications/.+"))},
                    )
                },
                (400, 409, 413, 415),
                "admin",
                body=body(obj({}), required=False, example={}),
                description="A worker runs one at a time, for an hour at most.",
            ),
            "get": Operation(
                "listVerifications",
                "The verifications that the workers remember, the newest first",
                {200: answer("At most five of each worker.", ref("Verifications"))},
                parameters=(HOP,),
            ),
        },
        "/v1/governance/verifications/{id}": {
            "get": Operation(
                "showVerification",
                "How far it is, and what it found",
                {200: answer("The verification; a list of it between workers.", _VERIFICATION_OR_PAGE)},
                (404,),
                parameters=(_VERIFICATION_ID, HOP),
            ),
            "delete": Operation(
                "cancelVerification",
                "End it; one that has ended stays as it is",
                {200: answer("As it is now; a list of it between workers.", _VERIFICATION_OR_PAGE)},
                (404,),
                "admin",
                (_VERIFICATION_ID, HOP),
            ),
        },
        "/v1/governance/reports": {
            "post": Operation(
                "createReport",
                "A compliance report of the governance dashboard",
                {200: answer("The report.", ref("Report"))},
                (400, 413, 415, 503),
                body=body(
                    ref("ReportRequest"),
                    example={
                        "report_type": "soc2",
                        "start_date": "2026-01-01T00:00:00Z",
                        "end_date": "2026-02-01T00:00:00Z",
                        "format": "pdf",
                    },
                ),
            )
        },
    },
    {
        "GovernanceStatus": obj(
            {
                "state": {**enum("on", "off"), "description": "off: without a dashboard nothing is sealed."},
                "detail": {**TEXT, "description": "What to do to turn it on."},
                "partitions": array(example(_PARTITION, _SHOWN)),
                "missing": NUMBERS,
            },
            ("state", "partitions", "missing"),
        ),
        "Verification": example(_VERIFICATION, _VERIFIED),
        "VerificationVerdict": _VERDICT,
        "Verifications": obj({"items": array(ref("Verification")), "missing": NUMBERS}),
        "Report": _REPORT,
        "ReportRequest": _REQUEST,
    },
)
