"""What `/health` says of a worker: the checks of contracts 7, and of a restore how far it is."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jsonschema import ValidationError, validate

from app.cli.webhooks import webhooks
from app.engine.recovery import Recovery
from app.observability.health import HealthRegistry, HealthStatus
from app.readiness import ADD_KEY, ADD_SIGNING_KEY, NO_KEY, add_checks
from app.settings import Settings
from app.web.openapi import AREAS, openapi_document
from app.webhooks.census import Census
from app.webhooks.owned import KeySetting


class Engine(SimpleNamespace):
    """What the checks read of one; well, and with three numbers."""

    def __init__(self, **differs: Any) -> None:
        reasons: list[str] = []
        status = SimpleNamespace(not_ready=lambda: list(reasons), oldest_unfinished_s=lambda: {"router": 0.0})
        well: dict[str, Any] = {
            "assignment_seen": True,
            "problem": "",
            "coordinator_problem": "",
            "numbers": {0: 1, 1: 1, 2: 1},
            "lease_valid": lambda: True,
            "recovery": Recovery(lambda: 0.0),
            "status": status,
            "reasons": reasons,
        }
        super().__init__(**{**well, **differs})


def checks_of(engine: Engine, folder: Path, *, has_key: bool = True, **upstreams: Any) -> HealthRegistry:
    health = HealthRegistry(("kafka", "assignment", "recovery", "store"))
    named = dict.fromkeys(("governance", "policy", "registry")) | upstreams
    add_checks(health, engine, folder, named, has_key=has_key)  # type: ignore[arg-type]
    return health


async def shown(health: HealthRegistry, name: str) -> dict[str, Any]:
    return next(check.to_json() for check in (await health.report()).checks if check.name == name)


async def test_the_checks_are_those_of_the_contract_and_a_well_worker_is_ready(tmp_path: Path) -> None:
    health = checks_of(Engine(), tmp_path)
    of_contract = {"kafka", "assignment", "recovery", "store", "policy", "governance", "registry"}
    assert set(health.names) == of_contract | {"webhook_keys"}
    assert await health.ready()
    assert (await shown(health, "webhook_keys"))["status"] == "healthy"


@pytest.mark.parametrize(
    ("differs", "name", "told"),
    [
        ({"lease_valid": lambda: False}, "kafka", "no heartbeat was answered within the session timeout"),
        ({"lease_valid": lambda: False, "assignment_seen": False}, "kafka", "not connected yet"),
        ({"assignment_seen": False}, "assignment", "no assignment yet"),
        (
            {"assignment_seen": False, "coordinator_problem": "refused by b-1:9092"},
            "assignment",
            "refused by [address]",
        ),
        ({"problem": "two partition counts"}, "assignment", "two partition counts"),
    ],
)
async def test_a_required_check_that_fails_is_why_it_is_not_ready(
    tmp_path: Path, differs: dict[str, Any], name: str, told: str
) -> None:
    health = checks_of(Engine(**differs), tmp_path)
    assert not await health.ready()
    failed = await shown(health, name)
    assert (failed["status"], failed["message"]) == ("unhealthy", told)


async def test_an_upstream_that_is_down_only_degrades(tmp_path: Path) -> None:
    down = SimpleNamespace(last_problem="no answer: connect", last_call_age_s=97.6)
    health = checks_of(Engine(), tmp_path, governance=down, policy=SimpleNamespace(last_problem=None))
    assert await health.ready()
    assert (await health.report()).status is HealthStatus.DEGRADED
    assert (await shown(health, "governance"))["message"] == "the last call, 98 s ago: no answer: connect"
    assert (await shown(health, "policy"))["status"] == "healthy"
    assert (await shown(health, "registry"))["message"] == "off: no endpoint"


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ([KeySetting.ENCRYPTION], f"The key of 1 webhook is missing, and its deliveries wait. {ADD_KEY}"),
        ([KeySetting.SIGNING], f"The key of 1 webhook is missing, and its deliveries wait. {ADD_SIGNING_KEY}"),
        (
            [KeySetting.ENCRYPTION, KeySetting.SIGNING],
            f"The keys of 2 webhooks are missing, and their deliveries wait. {ADD_KEY} {ADD_SIGNING_KEY}",
        ),
    ],
)
async def test_webhooks_that_wait_for_a_key_degrade_with_how_many_and_what_to_do(
    tmp_path: Path, missing: list[KeySetting], told: str
) -> None:
    census = Census()
    for number, setting in enumerate(missing):
        census.key(f"wh_{number}", setting)
    health = checks_of(Engine(), tmp_path)
    waits = await shown(health, "webhook_keys")
    assert await health.ready()
    assert (waits["status"], waits["details"]) == ("degraded", {"webhooks_without_key": len(missing)})
    assert waits["message"] == told

    census.key("wh_0", None)
    census.close()
    again = await shown(checks_of(Engine(), tmp_path), "webhook_keys")
    assert (again["status"], again["details"]) == ("healthy", {"webhooks_without_key": 0})


async def test_a_worker_without_any_key_says_that_no_webhook_can_be_made(tmp_path: Path) -> None:
    health = checks_of(Engine(), tmp_path, has_key=False)
    assert await health.ready()
    waits = await shown(health, "webhook_keys")
    assert (waits["status"], waits["message"]) == ("degraded", f"{NO_KEY} {ADD_KEY}")


@pytest.mark.parametrize(
    ("told", "where", "commands"),
    [
        (ADD_KEY, KeySetting.ENCRYPTION, ["rekey", "rotate-secret"]),
        (ADD_SIGNING_KEY, KeySetting.SIGNING, ["update"]),
    ],
)
def test_what_to_do_about_a_missing_key_are_a_setting_and_commands_that_are_there(
    told: str, where: KeySetting, commands: list[str]
) -> None:
    (setting,) = re.findall(r"VAULT_STREAM_(\w+)", told)
    assert setting == where
    group, _, name = setting.lower().partition("__")
    assert name in type(getattr(Settings(), group)).model_fields
    named = re.findall(r"vault-stream webhooks ([a-z-]+)", told)
    assert named == commands
    assert set(named) <= set(webhooks.commands)


async def test_a_restore_is_told_in_rows_by_table_and_with_the_time_that_is_left(tmp_path: Path) -> None:
    clock: Callable[[], float] = iter([0.0, 10.0, 10.0]).__next__
    engine = Engine(recovery=Recovery(clock))
    engine.reasons.append("number 3 is opening: restoring")
    engine.recovery.begin({"deliveries": 400}).moved("deliveries", 100, 100)
    recovery = await shown(checks_of(engine, tmp_path), "recovery")
    assert recovery["status"] == "unhealthy"
    assert recovery["message"] == (
        "recovering: 100 rows restored, 300 remaining, about 30 s left; number 3 is opening: restoring"
    )
    assert recovery["details"]["progress"] == {
        "restored_rows": 100,
        "remaining_rows": 300,
        "tables": {"deliveries": {"restored_rows": 100, "remaining_rows": 300}},
        "left_s": 30.0,
    }


def test_the_document_of_the_api_describes_the_progress_of_a_restore() -> None:
    schema = openapi_document(AREAS)["components"]["schemas"]["Stats"]["properties"]["recovery"]
    recovery = Recovery(iter([0.0, 10.0, 10.0]).__next__)
    restoring = recovery.begin({"deliveries": 400})
    shown = [progress.to_json() for progress in (recovery.progress(),) if progress is not None]
    restoring.moved("deliveries", 100, 100)
    for value in (*shown, None):
        validate(value, schema)
    with pytest.raises(ValidationError):
        validate({**shown[0], "restored_rows": -1}, schema)


async def test_without_a_restore_there_is_no_progress(tmp_path: Path) -> None:
    recovery = await shown(checks_of(Engine(), tmp_path), "recovery")
    assert "progress" not in recovery["details"]
    assert json.loads(json.dumps(recovery)) == recovery
