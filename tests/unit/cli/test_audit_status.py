"""`vault-stream audit status`, against an API that a test scripts."""

from __future__ import annotations

import json
from typing import Any

from app.cli.audit import audit
from tests.support import scripted_api as scripted

HASH = "9f" * 32
SEALED = {
    "partition": 0,
    "head_sequence": 41,
    "head_hash": HASH,
    "unsealed": 3,
    "sealed": 100,
    "oldest_unaccepted_s": 1.25,
}
EMPTY = {
    "partition": 1,
    "head_sequence": None,
    "head_hash": None,
    "unsealed": 0,
    "sealed": 0,
    "oldest_unaccepted_s": None,
}
STATUS: dict[str, Any] = {"state": "on", "partitions": [SEALED, EMPTY], "missing": []}


def test_shows_the_head_of_each_partition_and_what_waits(api: scripted.Api) -> None:
    api.will_answer(STATUS)
    result = scripted.run(audit, "status")
    assert result.exit_code == 0
    head, *rows = [line.split() for line in result.stdout.splitlines()]
    assert head == ["PARTITION", "HEAD", "HASH", "UNSEALED", "SEALED", "OLDEST", "UNACCEPTED"]
    assert rows == [["0", "41", HASH, "3", "100", "1.2", "s"], ["1", "-", "-", "0", "0", "-"]]
    assert (api.asked[0].method, api.asked[0].path) == ("GET", "/v1/governance/status")


def test_prints_for_machines(api: scripted.Api) -> None:
    api.will_answer(STATUS)
    assert json.loads(scripted.run(audit, "status", "--json").stdout) == STATUS


def test_says_that_governance_is_off_and_what_turns_it_on(api: scripted.Api) -> None:
    api.will_answer({**STATUS, "state": "off", "detail": "Governance is off: set GOVERNANCE__ENDPOINT."})
    result = scripted.run(audit, "status")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "Governance is off: set GOVERNANCE__ENDPOINT.")


def test_a_partition_that_nobody_speaks_for_fails_and_is_named(api: scripted.Api) -> None:
    api.will_answer({**STATUS, "missing": [2, 3]})
    result = scripted.run(audit, "status")
    assert result.exit_code == 1
    assert "41" in result.stdout
    assert "2, 3" in result.stderr
