"""Questions of access, in the vault dialect and in AuthZEN."""

from __future__ import annotations

from typing import Final

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
    query,
    ref,
    text,
)
from app.web.openapi.shared import HOP, MOMENT, TEXT

__all__ = ["POLICY"]

_NAME: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": 1024}
_OPEN: Final[Schema] = {"type": "object"}
_FLAG: Final[Schema] = {"type": "boolean"}
_STATUS: Final[Schema] = {"type": "integer", "minimum": 400, "maximum": 599}
# 100 questions are no list of pages.
_MANY: Final = {"minItems": 1, "maxItems": 100}

_CONTEXT: Final = {
    "type": "object",
    "properties": {"subject_properties": {"type": "object"}},
    "description": "What else is known. Towards an AuthZEN engine `subject_properties` are those of the subject.",
}
_QUESTION: Final = obj(
    {"principal_id": _NAME, "action": _NAME, "resource_id": _NAME, "context": _CONTEXT},
    ("principal_id", "action", "resource_id"),
)
_TOLD: Final[dict[str, Schema]] = {
    "decision_id": text("[0-9a-f-]{36}"),
    "reason": TEXT,
    "matched_policies": array(TEXT),
    "obligations": array(obj({"action": TEXT, "parameters": _OPEN}, open_=True)),
    "source": {
        **enum("cache", "engine"),
        "description": "Whether the engine was asked for this answer, alone or for several at once.",
    },
    "decided_at": MOMENT,
    "expires_at": {**MOMENT, "description": "It is not kept beyond this time; as decided_at: it is not kept at all."},
}
_DECISION: Final = obj({"allowed": _FLAG, **_TOLD})
_SHOWN: Final = {
    "decision_id": "01980a5e-3c00-7000-8000-000000000000",
    "allowed": True,
    "reason": "reading is open",
    "matched_policies": ["pol-open-reading"],
    "obligations": [{"action": "mask", "parameters": {"fields": ["ssn"]}}],
    "source": "cache",
    "decided_at": "2026-01-31T12:00:00.000Z",
    "expires_at": "2026-01-31T12:05:00.000Z",
}
_ASKED: Final = {"principal_id": "alice", "action": "read", "resource_id": "ds-1", "context": {"purpose": "audit"}}

_AUTHZEN_CONTEXT: Final = {
    "type": "object",
    "properties": {"authzen": False},
    "description": "What else is known; the name `authzen` is taken.",
}
_ENTITY: Final = obj({"type": _NAME, "id": _NAME, "properties": _OPEN}, ("type", "id"), open_=True)
_ACTION: Final = obj({"name": _NAME, "properties": _OPEN}, ("name",), open_=True)
_PARTS: Final[dict[str, Schema]] = {
    "subject": _ENTITY,
    "action": _ACTION,
    "resource": _ENTITY,
    "context": _AUTHZEN_CONTEXT,
}
_NEEDED: Final = ("subject", "action", "resource")
_EVALUATION: Final = obj(_PARTS, _NEEDED, open_=True)
_SEMANTIC: Final = enum("execute_all", "deny_on_first_deny", "permit_on_first_permit")
_EVALUATIONS: Final = {
    **obj(
        {
            **dict.fromkeys(_PARTS, _OPEN),
            # What is wrong with one of them is said in its place.
            "evaluations": {
                **array({}, maxItems=100),
                "description": "Each with what it has of its own; the rest is that of the whole.",
            },
            "options": obj({"evaluations_semantic": _SEMANTIC}, (), open_=True),
        },
        (),
        open_=True,
    ),
    "description": "Without `evaluations`, or with an empty list, it is one evaluation.",
}
_AUTHZEN_ASKED: Final = {
    "subject": {"type": "user", "id": "alice"},
    "action": {"name": "read"},
    "resource": {"type": "dataset", "id": "ds-1"},
}
_EVALUATED: Final = obj({"decision": _FLAG, "context": obj(_TOLD, open_=True)})
_DENIED: Final = obj(
    {"decision": {"const": False}, "context": obj({"error": obj({"status": _STATUS, "message": TEXT})})}
)
_BEGAN: Final = header("When its request to the engine began, in milliseconds since 1970.", text("[0-9]+"))
_SCOPE: Final[Schema] = {
    "oneOf": [obj({"principal_id": _NAME}), obj({"resource_id": _NAME}), obj({"all": {"const": True}})]
}

POLICY: Final = Area(
    "policy",
    {
        "/v1/policy/evaluate": {
            "post": Operation(
                "evaluateAccess",
                "May this principal do this; 503 is no allow",
                {200: answer("The decision.", ref("Decision"), headers={"Vault-Began-At": _BEGAN})},
                (400, 413, 415, 503),
                parameters=(HOP,),
                body=body(ref("AccessRequest"), example=_ASKED),
            )
        },
        "/v1/policy/evaluate/batch": {
            "post": Operation(
                "evaluateAccessBatch",
                "Several questions at once; without a decision for one of them there is none for any",
                {200: answer("In the order of the questions.", obj({"items": array(ref("Decision"), **_MANY)}))},
                (400, 413, 415, 503),
                parameters=(HOP,),
                body=body(obj({"requests": array(ref("AccessRequest"), **_MANY)}), example={"requests": [_ASKED]}),
            )
        },
        "/v1/policy/applicable": {
            "get": Operation(
                "applicablePolicies",
                "The policies that apply to a resource, as the engine lists them",
                {200: answer("All of them.", obj({"items": array(_OPEN), "next_cursor": {"type": "null"}}))},
                (503,),
                parameters=(
                    {**query("resource", _NAME, "The id of the resource."), "required": True, "example": "ds-1"},
                ),
            )
        },
        "/v1/policy/invalidate": {
            "post": Operation(
                "invalidateDecisions",
                "End what is kept about a principal, a resource, or everything",
                {200: answer("Each worker acts by it within a second.", obj({"scope": text(r"([pr]:[\s\S]+|\*)")}))},
                (400, 413, 415, 503),
                "admin",
                body=body(_SCOPE, example={"principal_id": "alice"}),
            )
        },
        "/access/v1/evaluation": {
            "post": Operation(
                "authzenEvaluation",
                "AuthZEN 1.0: one access evaluation",
                {200: answer("The decision.", ref("Evaluated"), headers={"Vault-Began-At": _BEGAN})},
                (400, 413, 415, 503),
                parameters=(HOP,),
                body=body(ref("Evaluation"), example=_AUTHZEN_ASKED),
            )
        },
        "/access/v1/evaluations": {
            "post": Operation(
                "authzenEvaluations",
                "AuthZEN 1.0: several access evaluations; what goes wrong with one denies that one",
                {
                    200: answer(
                        "In the order of the questions, as far as they were asked; or one decision.",
                        {
                            "anyOf": [
                                obj({"evaluations": array({"anyOf": [ref("Evaluated"), _DENIED]}, **_MANY)}),
                                ref("Evaluated"),
                            ]
                        },
                    )
                },
                (400, 413, 415, 503),
                parameters=(HOP,),
                body=body(
                    _EVALUATIONS,
                    example={**_AUTHZEN_ASKED, "evaluations": [{}, {"resource": {"type": "dataset", "id": "ds-2"}}]},
                ),
            )
        },
        "/.well-known/authzen-configuration": {
            "get": Operation(
                "authzenConfiguration",
                "AuthZEN 1.0: where everything is",
                {
                    200: answer(
                        "By the public URL of this worker.",
                        obj(
                            dict.fromkeys(
                                (
                                    "policy_decision_point",
                                    "access_evaluation_endpoint",
                                    "access_evaluations_endpoint",
                                ),
                                TEXT,
                            )
                        ),
                        headers={"Cache-Control": header("How long it may be kept.", TEXT)},
                    )
                },
                role="public",
            )
        },
    },
    {
        "AccessRequest": example(_QUESTION, _ASKED),
        "Decision": example(_DECISION, _SHOWN),
        "Evaluation": _EVALUATION,
        "Evaluated": _EVALUATED,
    },
)
