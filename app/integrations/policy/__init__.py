"""The policy engine: questions of access, their decisions and how long these count, and reports of violations.

A vault service imports `PolicyEngineClient` from here, and neither Faust nor a store comes with it. The worker puts its
own table, owners and log around the same `Evaluator`.
"""

from app.integrations.policy.client import PolicyEngineClient
from app.integrations.policy.decisions import (
    Decision,
    Lifetimes,
    UnreadableDecision,
    decision_record,
    error_record,
    read_decision,
)
from app.integrations.policy.engine import CALLER_TRACE, Dialect, PolicyEngine
from app.integrations.policy.errors import NotOwner, NotRecorded, PolicyUnavailable
from app.integrations.policy.evaluation import Answered, Evaluator, OwnersAnswer, Place, Records, Shared
from app.integrations.policy.invalidations import Invalidations, scope_of
from app.integrations.policy.journal import DecisionJournal
from app.integrations.policy.questions import MAX_NAME_CHARS, BadQuestion, Question, authzen_question, vault_question
from app.integrations.policy.tail import InvalidationTail
from app.integrations.policy.verdicts import Obligation, Verdict
from app.integrations.policy.violations import SEVERITIES, idempotency_key, violation_report

__all__ = [
    "CALLER_TRACE",
    "MAX_NAME_CHARS",
    "SEVERITIES",
    "Answered",
    "BadQuestion",
    "Decision",
    "DecisionJournal",
    "Dialect",
    "Evaluator",
    "InvalidationTail",
    "Invalidations",
    "Lifetimes",
    "NotOwner",
    "NotRecorded",
    "Obligation",
    "OwnersAnswer",
    "Place",
    "PolicyEngine",
    "PolicyEngineClient",
    "PolicyUnavailable",
    "Question",
    "Records",
    "Shared",
    "UnreadableDecision",
    "Verdict",
    "authzen_question",
    "decision_record",
    "error_record",
    "idempotency_key",
    "read_decision",
    "scope_of",
    "vault_question",
    "violation_report",
]
