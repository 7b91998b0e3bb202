"""`vault-stream policy`, against an API that a test scripts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.cli.policy import policy
from tests.support import scripted_api as scripted

DECISION = {
    "decision_id": "01980a5e-3c00-7000-8000-000000000000",
    "allowed": True,
    "reason": "owner",
    "matched_policies": ["p-1"],
    "obligations": [],
    "source": "cache",
    "decided_at": "2026-03-01T00:00:00.000Z",
    "expires_at": "2026-03-01T00:05:00.000Z",
}
ASKED = {"principal_id": "alice", "action": "read", "resource_id": "ds-1"}
EVALUATE = ("evaluate", "alice", "read", "ds-1")


class TestEvaluate:
    def test_asks_and_prints_for_machines(self, api: scripted.Api) -> None:
        api.will_answer(DECISION)
        result = scripted.run(policy, *EVALUATE, "--context", '{"purpose": "audit"}', "--json")
        assert (result.exit_code, json.loads(result.stdout)) == (0, DECISION)
        (asked,) = api.asked
        assert (asked.method, asked.path) == ("POST", "/v1/policy/evaluate")
        assert asked.body == ASKED | {"context": {"purpose": "audit"}}

    @pytest.mark.parametrize(("allowed", "word"), [(True, "allow"), (False, "deny"), ("true", "deny")])
    def test_says_allow_or_deny_and_exits_with_0(self, api: scripted.Api, allowed: Any, word: str) -> None:
        api.will_answer(DECISION | {"allowed": allowed})
        result = scripted.run(policy, *EVALUATE)
        assert result.exit_code == 0
        assert result.stdout.splitlines()[1].split() == ["decision", word]
        assert api.asked[0].body == ASKED

    def test_reads_the_context_from_a_file(self, api: scripted.Api, tmp_path: Path) -> None:
        (tmp_path / "context.json").write_text('{"ip": "10.0.0.1"}')
        api.will_answer(DECISION)
        assert scripted.run(policy, *EVALUATE, "--context", "@context.json").exit_code == 0
        assert api.asked[0].body["context"] == {"ip": "10.0.0.1"}

    @pytest.mark.parametrize("context", ["{", "[]", "1", "@nowhere.json"])
    def test_a_context_that_is_no_object_is_refused_and_asks_nothing(self, api: scripted.Api, context: str) -> None:
        assert scripted.run(policy, *EVALUATE, "--context", context).exit_code == 2
        assert api.asked == []

    def test_without_a_decision_it_is_one_line_and_exits_with_1(self, api: scripted.Api) -> None:
        api.will_answer({"code": "policy_unavailable", "detail": "There is no decision now"}, status=503)
        result = scripted.run(policy, *EVALUATE)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == "Error: 503 policy_unavailable: There is no decision now\n"


class TestApplicable:
    def test_lists_what_the_engine_lists(self, api: scripted.Api) -> None:
        api.will_answer({"items": [{"id": "p-1"}, {"id": "p-2", "name": "x"}], "next_cursor": None})
        result = scripted.run(policy, "applicable", "a/b c")
        assert [line.split() for line in result.stdout.splitlines()] == [["ID", "NAME"], ["p-1", "-"], ["p-2", "x"]]
        assert (api.asked[0].path, api.asked[0].query) == ("/v1/policy/applicable", {"resource": ["a/b c"]})

    def test_none_says_so(self, api: scripted.Api) -> None:
        api.will_answer({"items": [], "next_cursor": None})
        assert scripted.run(policy, "applicable", "ds-1").stdout == "no policy applies\n"


class TestInvalidate:
    @pytest.mark.parametrize(
        ("options", "body"),
        [
            (("--principal", "alice"), {"principal_id": "alice"}),
            (("--resource", "ds-1"), {"resource_id": "ds-1"}),
            (("--all",), {"all": True}),
        ],
    )
    def test_says_what_is_to_end(self, api: scripted.Api, options: tuple[str, ...], body: Any) -> None:
        api.will_answer({"scope": "x"})
        assert scripted.run(policy, "invalidate", *options).exit_code == 0
        assert (api.asked[0].path, api.asked[0].body) == ("/v1/policy/invalidate", body)

    @pytest.mark.parametrize(
        "options", [(), ("--all", "--principal", "alice"), ("--principal", "a", "--resource", "b")]
    )
    def test_anything_but_one_of_them_is_wrong_usage(self, api: scripted.Api, options: tuple[str, ...]) -> None:
        assert scripted.run(policy, "invalidate", *options).exit_code == 2
        assert api.asked == []
