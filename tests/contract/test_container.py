"""The image and the compose file, as far as they can be judged without an engine: nothing here builds or starts one."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Final

import pytest
import yaml

from app.devstack.neighbours import PORTS
from app.settings import load_settings
from app.webhooks.guard import TargetGuard
from deploy.dashboard import dashboard
from deploy.files import ALERTS, MONITORING, ROOT
from tests.contract.test_alerts import unknown_in
from tests.support.deploy_tools import ended, go_tool, python_tool, require, said

DOCKERFILE: Final = (ROOT / "Dockerfile").read_text()
COMPOSE_FILE: Final = ROOT / "docker-compose.yml"
COMPOSE: Final[dict[str, Any]] = yaml.safe_load(COMPOSE_FILE.read_text())
WORKERS: Final = ("worker-1", "worker-2")


def instructions(name: str, stage: int = -1) -> list[str]:
    """What stands behind an instruction in a stage of the Dockerfile, the last one unless said."""
    joined = re.sub(r"\\\n", " ", DOCKERFILE)
    stages = re.split(r"^(?=FROM )", joined, flags=re.MULTILINE)[1:]
    return [line.split(" ", 1)[1] for line in stages[stage].splitlines() if line.startswith(f"{name} ")]


# -- the image


def test_sigterm_reaches_the_worker_which_is_no_shell_and_no_root() -> None:
    assert json.loads(instructions("ENTRYPOINT")[0]) == ["vault-stream"]
    assert json.loads(instructions("CMD")[0]) == ["worker"]
    assert instructions("USER") == ["10001:10001"]
    assert instructions("STOPSIGNAL") == ["SIGTERM"]


def test_every_package_of_the_image_is_one_whose_hash_the_lock_has() -> None:
    installs = [part for line in instructions("RUN", 0) for part in line.split("&&") if "pip install" in part]
    wheels = [part for line in instructions("RUN", 0) for part in line.split("&&") if "pip wheel" in part]

    assert all("--no-index" in install for install in installs)
    assert [wheel for wheel in wheels if "--no-index" not in wheel] == [
        wheel for wheel in wheels if "--require-hashes" in wheel
    ]
    assert not [line for line in instructions("RUN") if "pip" in line]


def test_what_the_dockerfile_copies_is_let_in() -> None:
    copied = {name for line in instructions("COPY", 0) if "--from" not in line for name in line.split()[:-1]}
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}

    assert copied == let_in
    assert all((ROOT / name).exists() for name in copied)


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:  # the name that the library calls
        self.send_response(200 if self.path == "/health/live" else 503)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None: ...


@pytest.fixture
def answering() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), _Answer) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def healthcheck(port: int, *arguments: str) -> int:
    command = [sys.executable, str(ROOT / "deploy" / "healthcheck.py"), *arguments]
    environment = {"VAULT_STREAM_WEB_PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
    return subprocess.run(command, env=environment, capture_output=True, timeout=30, check=False).returncode


def test_the_healthcheck_is_0_for_200_and_1_for_anything_else(answering: int) -> None:
    assert healthcheck(answering) == 0
    assert healthcheck(answering, "/health/ready") == 1


def test_the_healthcheck_is_1_where_nobody_listens() -> None:
    assert healthcheck(1) == 1


@pytest.mark.foreign
def test_hadolint_finds_nothing(tmp_path: Path) -> None:
    broken = tmp_path / "Dockerfile"
    broken.write_text(DOCKERFILE.replace('ENTRYPOINT ["vault-stream"]', "ENTRYPOINT vault-stream"))
    hadolint = python_tool("manifests", "hadolint")

    good, bad = ended(hadolint, str(ROOT / "Dockerfile")), ended(hadolint, str(broken))

    assert good.returncode == 0, said(good)
    assert bad.returncode != 0
    assert "DL3025" in said(bad)


# -- the compose file


@pytest.fixture(scope="module")
def loaded() -> dict[str, Any]:
    """The compose file as Docker Compose reads it, with the defaults of its variables."""
    done = ended(go_tool("composecheck"), str(COMPOSE_FILE))
    assert done.returncode == 0, said(done)
    project: dict[str, Any] = json.loads(done.stdout)
    return project


def test_receivers_know_all_workers_by_one_name() -> None:
    names = [COMPOSE["services"][worker]["environment"]["VAULT_STREAM_WEBHOOKS__ORIGIN"] for worker in WORKERS]

    assert len(set(names)) == 1
    assert names[0] not in COMPOSE["services"]


@pytest.mark.foreign
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("    depends_on: [prometheus]", "    depend_on: [prometheus]"),
        ("    depends_on: [prometheus]", "    depends_on: [prometeus]"),
        ("      - prometheus:/prometheus", "      - prometeus:/prometheus"),
        (":-development-admin-token}", ":?choose one}"),
    ],
)
def test_compose_refuses_a_slip(tmp_path: Path, right: str, wrong: str) -> None:
    text = COMPOSE_FILE.read_text()
    assert right in text
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(text.replace(right, wrong, 1))

    assert ended(go_tool("composecheck"), str(broken)).returncode != 0


@pytest.mark.foreign
def test_the_compose_file_has_the_shape_of_one(tmp_path: Path) -> None:
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(COMPOSE_FILE.read_text().replace("    healthcheck:", "    healthchek:", 1))
    command = (python_tool("manifests", "check-jsonschema"), "--builtin-schema", "vendor.compose-spec")

    good, bad = ended(*command, str(COMPOSE_FILE)), ended(*command, str(broken))

    assert good.returncode == 0, said(good)
    assert bad.returncode != 0


@pytest.mark.foreign
@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_takes_the_settings_of_the_compose_file(loaded: dict[str, Any], tmp_path: Path, name: str) -> None:
    settings = load_settings(loaded["services"][name]["environment"], dotenv=tmp_path / "none")

    assert settings.public_url == f"http://{name}:8088"
    assert settings.webhooks.encryption_keys
    assert not settings.api.open
    assert [upstream.endpoint for upstream in (settings.governance, settings.policy, settings.registry)] == [
        f"http://neighbours:{PORTS[name]}" for name in ("dashboard", "policy", "registry")
    ]


@pytest.mark.foreign
async def test_a_worker_of_the_compose_file_may_deliver_to_the_receivers(
    loaded: dict[str, Any], tmp_path: Path
) -> None:
    settings = load_settings(loaded["services"]["worker-1"]["environment"], dotenv=tmp_path / "none")
    guard = TargetGuard(settings.webhooks.allow_targets, allow_http=settings.webhooks.allow_http)

    async def in_the_compose_network(_host: str, _port: int) -> list[str]:
        return ["172.18.0.7"]

    for receiver in ("honest", "flaky"):
        await guard.check(f"http://neighbours:{PORTS[receiver]}/hook", in_the_compose_network)


@pytest.mark.parametrize("name", [*WORKERS, "neighbours"])
def test_what_is_ours_runs_without_writing_to_its_image_and_without_rights(name: str) -> None:
    service = COMPOSE["services"][name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_a_worker_is_given_time_to_drain() -> None:
    from app.main import STOP_S  # noqa: PLC0415  # Faust is imported by those who need it

    for name in WORKERS:
        assert int(COMPOSE["services"][name]["stop_grace_period"].removesuffix("s")) > STOP_S


def test_what_is_mounted_from_the_repository_is_there_and_ports_are_on_loopback() -> None:
    mounts = [mount for service in COMPOSE["services"].values() for mount in service.get("volumes", [])]
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]

    assert [mount for mount in mounts if mount.startswith("./") and not (ROOT / mount.split(":")[0]).exists()] == []
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []
    assert f"./{ALERTS.relative_to(ROOT)}:/etc/prometheus/alerts.yaml:ro" in mounts


@pytest.mark.foreign
def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    promtool = require("promtool")
    text = (ROOT / "deploy" / "prometheus.yml").read_text().replace("/etc/prometheus/alerts.yaml", str(ALERTS))
    good, bad = tmp_path / "good.yml", tmp_path / "bad.yml"
    good.write_text(text)
    bad.write_text(text.replace("scrape_interval:", "scrape_intervall:"))

    done = ended(promtool, "check", "config", str(good))

    assert done.returncode == 0, said(done)
    assert ended(promtool, "check", "config", str(bad)).returncode != 0


# -- the dashboard

QUERIES: Final = [
    (panel["title"], re.sub(r"\$__\w+", "5m", target["expr"]))
    for panel in dashboard()["panels"]
    for target in panel.get("targets", [])
]
ROUND_TRIP: Final = """
import json, sys
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

def paths(value, at=""):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{at}.{key}"
            yield from paths(inner, f"{at}.{key}")
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from paths(inner, f"{at}[{place}]")

given = json.load(sys.stdin)
kept = json.loads(JSONEncoder().encode(Dashboard.from_json(given)))
print(*sorted(set(paths(given)) - set(paths(kept))), sep="\\n")
"""


@pytest.mark.parametrize(("title", "expr"), QUERIES)
def test_a_panel_asks_for_what_the_program_measures(title: str, expr: str) -> None:
    assert unknown_in(expr) == set()


def test_panels_do_not_overlap_and_name_no_data_source() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
        assert panel["type"] == "row" or panel["datasource"]["uid"] == "${datasource}"


@pytest.mark.foreign
def test_prometheus_reads_every_query_of_the_dashboard(tmp_path: Path) -> None:
    def rules(queries: list[str]) -> str:
        group = {"name": "dashboard", "rules": [{"record": f"q{n}", "expr": expr} for n, expr in enumerate(queries)]}
        (tmp_path / "queries.yaml").write_text(yaml.safe_dump({"groups": [group]}))
        return str(tmp_path / "queries.yaml")

    queries = [expr for _, expr in QUERIES]
    done = ended(require("promtool"), "check", "rules", rules(queries))

    assert done.returncode == 0, said(done)
    assert ended(require("promtool"), "check", "rules", rules([*queries, "sum by (le (rate(x[5m]))"])).returncode != 0


@pytest.mark.foreign
def test_grafana_knows_every_field_of_the_dashboard() -> None:
    python = str(Path(python_tool("manifests", "hadolint")).parent / "python")
    text = (MONITORING / "dashboard.json").read_text()

    done = ended(python, "-c", ROUND_TRIP, input_=text)
    planted = ended(
        python, "-c", ROUND_TRIP, input_=text.replace('"gridPos"', '"gridPoss"', 1).replace('"refresh"', '"refrsh"')
    )

    assert done.returncode == 0, said(done)
    assert done.stdout.split() == []
    assert {".refrsh", ".panels[0].gridPoss"} <= set(planted.stdout.split())
