"""The whole worker's start with tracing that cannot be meant."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("name", "value", "fix"),
    [
        ("OTEL_TRACES_SAMPLER", "sometimes", "must be one of always_on, "),
        ("VAULT_STREAM_TRACING__SAMPLE_RATIO", "2", "less than or equal to 1"),
    ],
)
def test_a_bad_value_ends_the_start_with_one_line(tmp_path: Path, name: str, value: str, fix: str) -> None:
    inherited = {key: text for key, text in os.environ.items() if not key.startswith(("OTEL_", "VAULT_STREAM_"))}
    settings = {"VAULT_STREAM_DATA_DIR": str(tmp_path / "data"), "VAULT_STREAM_TRACING__ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-m", "app", "worker"],
        env={**inherited, "PYTHONPATH": str(Path(__file__).parents[2]), **settings, name: value},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if name in line]
    assert fix in line
    assert "Traceback" not in done.stderr
