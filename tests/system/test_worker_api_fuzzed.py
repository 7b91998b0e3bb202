"""The API under a foreign fuzzer, which reads only its document: no 500, no answer that the document does not have."""

import asyncio
import subprocess
import sys

import pytest

from app.devstack.workload import make_workload
from app.web.openapi import AREAS
from tests.support.report import report
from tests.support.workers import Deployment, until

pytestmark = pytest.mark.kafka

SEED = "1"
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,unsupported_method,ignored_auth"
)
TOKEN = "fuzzer"


# What is found must be found again: the short form has no random phase.
SHORT = ("--phases", "examples,coverage")
FULL = ("--max-examples", "60", "--max-time", "240")


@pytest.mark.parametrize(
    "phases", [pytest.param(SHORT, id="short"), pytest.param(FULL, id="full", marks=pytest.mark.prove)]
)
async def test_a_fuzzer_finds_no_500_and_no_undocumented_answer(
    deployment: Deployment, phases: tuple[str, ...]
) -> None:
    deployment.settings |= {"WEBHOOKS__RETRY_SCHEDULE_S": "[0,0]", "API__ADMIN_TOKEN": TOKEN}
    (worker,) = await deployment.start("w1")
    # Something to find: deliveries that were given up, and records that were quarantined.
    await deployment.hook("*", "flaky")
    workload = make_workload(40, seed=1, start_ms=1_790_000_000_000, prefix=deployment.topics.prefix)
    await deployment.publish(workload.events)

    async def settled() -> bool:
        return await worker.metric("vault_stream_dead_letters_total") > 0

    await until(settled, "dead letters")
    fuzzing = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{worker.url}/openapi.json"),
        *("--checks", CHECKS, "--seed", SEED, *phases),
        *("--header", f"Authorization: Bearer {TOKEN}", "--suppress-health-check", "all", "--no-color"),
        *("--warnings", "off", "--continue-on-failure"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=worker.data_dir.parent,
    )
    told, _ = await fuzzing.communicate()

    assert fuzzing.returncode == 0, told.decode()
    assert await worker.ready()
    operations = sum(len(methods) for area in AREAS for methods in area.paths.values())
    cases = next(line.strip() for line in told.decode().splitlines() if "generated" in line)
    report("The API under a fuzzer", {"operations": operations, "cases": cases, "failures": 0})
