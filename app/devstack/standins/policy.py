"""The policy engine: takes violation reports, and answers access questions by rules, in two dialects."""

from collections.abc import Mapping
from dataclasses import asdict
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Final

from aiohttp import web

from app.devstack.standins.base import Standin
from app.devstack.standins.describing import IDEMPOTENCY_KEY, TEXT, Description, Operation, array, obj, parameter, ref
from app.devstack.standins.observing import Observations
from app.devstack.standins.reading import Refusal, check, key_of, object_in
from app.devstack.standins.rules import DEFAULT, Rule, decide, rules_in

_REFUSED: Final = {
    400: ("No JSON.", ref("Error")),
    415: ("Not said to be JSON.", ref("Error")),
    422: ("A field is not as agreed.", ref("Error")),
}
_ANY: Final = {"type": "object"}
_DESCRIPTION: Final = Description(
    "Policy engine (stand-in)",
    "Answers access questions by rules (`PUT /rules`), in the vault's dialect and in AuthZEN 1.0; takes violation"
    " reports once each. At first everybody may read, and principals that begin with `admin` may do anything.",
    {
        "/api/v1/evaluate/access": {
            "post": Operation(
                "evaluateAccess",
                "May this principal do this with this resource?",
                {200: ("The decision.", ref("Decision")), **_REFUSED},
                body=ref("Question"),
            )
        },
        "/api/v1/policies/applicable/{resource}": {
            "get": Operation(
                "applicablePolicies",
                "The policies that a question about this resource may meet.",
                {200: ("Policies.", array(ref("Policy")))},
                [parameter("resource", "path")],
            )
        },
        "/api/v1/violations": {
            "post": Operation(
                "takeViolation",
                "A report of a violation, which is taken once.",
                {
                    201: ("Taken.", obj({"violation_id": TEXT})),
                    409: ("A report with this key was taken already.", ref("Error")),
                    **_REFUSED,
                },
                [IDEMPOTENCY_KEY],
                obj({"violation_id": TEXT}, {"policy_id": TEXT, "resource_id": TEXT, "severity": TEXT}),
            )
        },
        "/access/v1/evaluation": {
            "post": Operation(
                "evaluation",
                "AuthZEN 1.0: one question.",
                {200: ("The decision.", ref("AuthzenDecision")), **_REFUSED},
                body=ref("AuthzenQuestion"),
            )
        },
        "/access/v1/evaluations": {
            "post": Operation(
                "evaluations",
                "AuthZEN 1.0: several questions, with what they have in common beside them.",
                {
                    200: (
                        "A decision for each; or for the question itself, where it has no list.",
                        {"anyOf": [obj({"evaluations": array(ref("AuthzenDecision"))}), ref("AuthzenDecision")]},
                    ),
                    **_REFUSED,
                },
                body=_ANY,
            )
        },
        "/.well-known/authzen-configuration": {
            "get": Operation("authzenConfiguration", "AuthZEN 1.0: where is what.", {200: ("Endpoints.", _ANY)})
        },
        "/rules": {
            "get": Operation("rules", "The rules.", {200: ("In their order.", array(ref("Rule")))}, control=True),
            "put": Operation(
                "setRules",
                "Answer by these rules; the first one that fits is the one, and without one it is a deny.",
                {204: ("Done.", None), 422: ("They are no rules.", ref("Error"))},
                body=array(ref("Rule")),
                control=True,
            ),
        },
    },
    {
        "Question": obj({"principal_id": TEXT, "action": TEXT, "resource_id": TEXT}, {"context": _ANY}),
        "Decision": obj(
            {
                "allowed": {"type": "boolean"},
                "reason": {"type": "string"},
                "matched_policies": array(TEXT),
                "obligations": array(obj({"action": TEXT}, {"parameters": _ANY})),
            },
            {"ttl_s": {"type": "number", "minimum": 0}},
        ),
        "Policy": obj({"id": TEXT, "allowed": {"type": "boolean"}, "action": TEXT}),
        "AuthzenQuestion": obj(
            {
                "subject": obj({"type": TEXT, "id": TEXT}, {"properties": _ANY}),
                "action": obj({"name": TEXT}, {"properties": _ANY}),
                "resource": obj({"type": TEXT, "id": TEXT}, {"properties": _ANY}),
            },
            {"context": _ANY},
        ),
        "AuthzenDecision": obj({"decision": {"type": "boolean"}}, {"context": _ANY}),
        "Rule": obj(
            {"allowed": {"type": "boolean"}},
            {
                "principal_id": {"type": "string", "default": "*", "description": "`*` stands for any text."},
                "action": {"type": "string", "default": "*"},
                "resource_id": {"type": "string", "default": "*"},
                "context": {"type": ["object", "null"], "description": "Fields that the question's must have."},
                "reason": {"type": "string"},
                "matched_policies": array(TEXT),
                "obligations": array(_ANY),
                "ttl_s": {"type": ["number", "null"], "description": "How long the answer may be kept."},
            },
        ),
    },
)
_STOPS: Final = {"deny_on_first_deny": False, "permit_on_first_permit": True}
"""At which decision a batch ends, by its semantic."""
_COMMON: Final = frozenset({"subject", "action", "resource", "context"})
_SEMANTICS: Final = ("execute_all", *_STOPS)


class PolicyEngine(Standin):
    """See the module.

    Attributes:
        rules: The first one that fits answers a question.
        evaluations: How many questions were answered.
    """

    description: ClassVar[Description] = _DESCRIPTION

    def __init__(self, observations: Observations) -> None:
        super().__init__(observations)
        self.rules: list[Rule] = list(DEFAULT)
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
        return [
            web.post("/api/v1/violations", self._take),
            web.post("/api/v1/evaluate/access", self._evaluate),
            web.get("/api/v1/policies/applicable/{resource}", self._applicable),
            web.post("/access/v1/evaluation", self._authzen),
            web.post("/access/v1/evaluations", self._authzen_batch),
            web.get("/.well-known/authzen-configuration", self._configuration),
        ]

    def _own_routes(self) -> list[web.RouteDef]:
        return [web.get("/rules", self._show_rules), web.put("/rules", self._set_rules)]

    async def _take(self, request: web.Request) -> web.Response:
        key, report = key_of(request), await object_in(request, violation_id=str)
        if key in self._keys:
            self.repeated += 1
            return web.json_response({"error": "this report is known"}, status=409)
        self._keys.add(key)
        self.violations[report["violation_id"]] = report
        self._observations.notify()
        return web.json_response({"violation_id": report["violation_id"]}, status=201)

    def _decide(self, principal_id: str, action: str, resource_id: str, context: Mapping[str, Any]) -> Rule:
        self.evaluations += 1
        self._observations.notify()
        return decide(self.rules, principal_id, action, resource_id, context)

    # -- the vault's dialect

    async def _evaluate(self, request: web.Request) -> web.Response:
        asked = await object_in(request, principal_id=str, action=str, resource_id=str)
        context = asked.get("context", {})
        check(context, "context")
        rule = self._decide(asked["principal_id"], asked["action"], asked["resource_id"], context)
        return web.json_response(rule.answer())

    async def _applicable(self, request: web.Request) -> web.Response:
        resource = request.match_info["resource"]
        policies = [
            {"id": policy, "allowed": rule.allowed, "action": rule.action}
            for rule in self.rules
            if fnmatchcase(resource, rule.resource_id)
            for policy in rule.matched_policies
        ]
        return web.json_response(policies)

    # -- AuthZEN 1.0

    async def _authzen(self, request: web.Request) -> web.Response:
        return _echoing(request, self._authzen_answer(await object_in(request)))

    async def _authzen_batch(self, request: web.Request) -> web.Response:
        asked = await object_in(request)
        items = asked.get("evaluations")
        if not items:
            return _echoing(request, self._authzen_answer(asked))
        options = asked.get("options", {})
        check(options, "options")
        semantic = options.get("evaluations_semantic", "execute_all")
        if not isinstance(items, list) or semantic not in _SEMANTICS:
            raise Refusal(400, f"evaluations is not a list, or the semantic is none of: {', '.join(_SEMANTICS)}")
        common: dict[str, Any] = {
            name: asked[name] for name in ("subject", "action", "resource", "context") if name in asked
        }
        decisions: list[dict[str, Any]] = []
        for item in items:
            try:
                check(item, "an evaluation")
                decisions.append(self._authzen_answer({**common, **item}))
            except Refusal as refusal:
                error = {"status": refusal.status, "message": str(refusal)}
                decisions.append({"decision": False, "context": {"error": error}})
            if decisions[-1]["decision"] is _STOPS.get(semantic):
                break
        return _echoing(request, {"evaluations": decisions})

    def _authzen_answer(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        try:
            check(asked.get("subject"), "subject", type=str, id=str)
            check(asked.get("action"), "action", name=str)
            check(asked.get("resource"), "resource", type=str, id=str)
            context = asked.get("context", {})
            check(context, "context")
        except Refusal as refusal:
            raise Refusal(400, str(refusal)) from None
        rule = self._decide(asked["subject"]["id"], asked["action"]["name"], asked["resource"]["id"], context)
        answer = rule.answer()
        return {"decision": answer.pop("allowed"), "context": answer}

    async def _configuration(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {
                "policy_decision_point": self.url,
                "access_evaluation_endpoint": f"{self.url}/access/v1/evaluation",
                "access_evaluations_endpoint": f"{self.url}/access/v1/evaluations",
            }
        )

    # -- control

    async def _show_rules(self, _request: web.Request) -> web.Response:
        return web.json_response([asdict(rule) for rule in self.rules])

    async def _set_rules(self, request: web.Request) -> web.Response:
        try:
            self.rules = rules_in(await request.read())
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=422)
        return web.Response(status=204)


def _echoing(request: web.Request, answer: dict[str, Any]) -> web.Response:
    """AuthZEN 1.0, 10.1.3: the request's id goes back."""
    id_ = request.headers.get("X-Request-ID")
    return web.json_response(answer, headers={} if id_ is None else {"X-Request-ID": id_})
