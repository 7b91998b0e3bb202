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

TOKEN = "fuzzer"
CONFIG = f"""
seed = 1
continue-on-failure = true
suppress-health-check = ["all"]
warnings = false
color = false

[auth.openapi.token]
bearer = "{TOKEN}"

[generation]
# What is found must be found again.
deterministic = true
# Who gets in is asked by a check of its own.
with-security-parameters = false

[checks]
enabled = false
status_code_conformance.enabled = true
content_type_conformance.enabled = true
response_headers_conformance.enabled = true
response_schema_conformance.enabled = true
unsupported_method.enabled = true
ignored_auth.enabled = true

[checks.not_a_server_error]
enabled = true
# What a broker or an owner did not answer in time is said so, and is in the document.
expected-statuses = ["2xx", "4xx", 503]

[checks.negative_data_rejection]
enabled = true
# A lost version is seen before the body is.
expected-statuses = ["4xx", 503]
"""
SHORT = ("--phases", "examples,coverage")
FULL = ("--max-examples", "60", "--max-time", "300")


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
    folder = worker.data_dir.parent
    (folder / "schemathesis.toml").write_text(CONFIG)
    fuzzing = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{worker.url}/openapi.json", *phases),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=folder,
    )
    told, _ = await fuzzing.communicate()

    assert fuzzing.returncode == 0, told.decode()
    assert await worker.ready()
    operations = sum(len(methods) for area in AREAS for methods in area.paths.values())
    cases = next(line.strip() for line in told.decode().splitlines() if "generated" in line)
    report("The API under a fuzzer", {"operations": operations, "cases": cases, "failures": 0})
