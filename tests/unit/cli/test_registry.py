"""`vault-stream registry`, against an API that a test scripts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.cli import registry as module
from app.cli.registry import registry
from tests.support import scripted_api as scripted

SYNC = {
    "id": "s-1",
    "state": "done",
    "mode": "both",
    "pushed": 3,
    "pulled": 1,
    "conflicts": [],
    "failed": [],
    "not_named": 0,
    "waiting": 0,
    "missing": [],
    "parts": {},
}


def became(**more: Any) -> dict[str, Any]:
    return SYNC | more


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_AGAIN_S", 0.0)


def test_sync_waits_for_its_end_and_says_what_was_done(api: scripted.Api) -> None:
    api.will_answer({"id": "s-1"}, became(state="running", waiting=3), became())
    result = scripted.run(registry, "sync", "--mode", "both", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {name: value for name, value in SYNC.items() if name != "parts"}
    assert [(asked.method, asked.path) for asked in api.asked] == [
        ("POST", "/v1/registry/sync"),
        ("GET", "/v1/registry/sync/s-1"),
        ("GET", "/v1/registry/sync/s-1"),
    ]
    assert api.asked[0].body == {"mode": "both"}


def test_sync_without_a_mode_leaves_it_to_the_settings(api: scripted.Api) -> None:
    api.will_answer({"id": "s-1"})
    result = scripted.run(registry, "sync", "--no-wait")
    assert (result.exit_code, result.stdout) == (0, "s-1\n")
    assert api.asked[0].body == {}


def test_conflicts_are_listed_and_are_no_failure(api: scripted.Api) -> None:
    conflict = {"dataset_id": "ds-2", "vault": {}, "registry": {}, "winner": "registry"}
    api.will_answer({"id": "s-1"}, became(conflicts=[conflict]))
    result = scripted.run(registry, "sync")
    assert result.exit_code == 0
    assert "conflict: ds-2, and the registry won" in result.stdout


@pytest.mark.parametrize(
    "more",
    [{"state": "failed"}, {"failed": [{"id": "ds-9", "reason": "answered 503"}]}, {"not_named": 7}],
)
def test_what_failed_is_exit_code_1(api: scripted.Api, more: dict[str, Any]) -> None:
    api.will_answer({"id": "s-1"}, became(**more))
    result = scripted.run(registry, "sync")
    assert result.exit_code == 1
    if "failed" in more:
        assert "failed: ds-9: answered 503" in result.stdout


def test_a_mode_that_is_none_is_wrong_usage(api: scripted.Api) -> None:
    assert scripted.run(registry, "sync", "--mode", "sideways").exit_code == 2
    assert api.asked == []


def test_link_sends_what_was_asked_for(api: scripted.Api) -> None:
    link = {"dataset_id": "ds-1", "model_id": "m-1", "relationship": "test_data", "status": "waiting"}
    api.will_answer(link, status=202)
    result = scripted.run(registry, "link", "ds-1", "m-1", "test_data")
    assert (result.exit_code, result.stdout) == (0, "ds-1 is test_data of m-1: waiting\n")
    assert api.asked[0].body == {"dataset_id": "ds-1", "model_id": "m-1", "relationship": "test_data"}
    assert scripted.run(registry, "link", "ds-1", "m-1", "friend").exit_code == 2


def test_show_asks_for_an_encoded_id(api: scripted.Api) -> None:
    api.will_answer({"id": "a/b", "state": "synced"})
    result = scripted.run(registry, "show", "a/b", "--json")
    assert (result.exit_code, json.loads(result.stdout)["state"]) == (0, "synced")
    assert api.asked[0].path == "/v1/registry/datasets/a%2Fb"


def test_a_refusal_is_one_line(api: scripted.Api) -> None:
    problem = {"status": 503, "code": "registry_off", "detail": "There is no registry."}
    api.will_answer(problem, status=409)
    result = scripted.run(registry, "sync")
    assert result.exit_code == 1
    assert "There is no registry." in result.stderr
