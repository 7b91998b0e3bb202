"""A worker without tracing: nothing of OpenTelemetry is in its process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# All that `python -m app worker` loads and makes before it asks for a broker.
WORKER = """
import sys
import app.cli.worker
from app.main import build
from app.settings import load_settings
program = build(load_settings())
print(program.tracer is not None, *sorted({"opentelemetry", "requests", "google.protobuf"} & sys.modules.keys()))
"""
UPSTREAMS = {f"VAULT_STREAM_{name}__ENDPOINT": "http://127.0.0.1:9" for name in ("GOVERNANCE", "POLICY", "REGISTRY")}


def loaded_by(folder: Path, settings: dict[str, str]) -> str:
    inherited = {key: text for key, text in os.environ.items() if not key.startswith(("OTEL_", "VAULT_STREAM_"))}
    done = subprocess.run(
        [sys.executable, "-c", WORKER],
        env={**inherited, "PYTHONPATH": str(ROOT), "VAULT_STREAM_DATA_DIR": str(folder / "data"), **settings},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("switched_off", [{}, {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://a"}])
def test_without_tracing_nothing_of_opentelemetry_is_loaded(tmp_path: Path, switched_off: dict[str, str]) -> None:
    assert loaded_by(tmp_path, {**UPSTREAMS, **switched_off}) == "False"


def test_with_tracing_it_is(tmp_path: Path) -> None:
    told = {"VAULT_STREAM_TRACING__ENDPOINT": "http://127.0.0.1:9"}
    assert loaded_by(tmp_path, {**UPSTREAMS, **told}) == "True google.protobuf opentelemetry requests"
