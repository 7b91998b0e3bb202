"""What docs/policy.md says is so."""

import re
import runpy
from pathlib import Path

import pytest

from app.observability import metrics
from app.settings import VARIABLES, load_settings

TEXT = (Path(__file__).parents[2] / "docs" / "policy.md").read_text()
SETTINGS = re.findall(r"^\| `(POLICY__\w+)` \| (\S+) \|", TEXT, re.MULTILINE)
METRICS = re.findall(r"`((?:vault_stream_|cache_|queue_)[a-z_]+)", TEXT)


@pytest.mark.parametrize(("name", "shown"), SETTINGS)
def test_a_setting_has_the_default_that_it_shows(name: str, shown: str) -> None:
    (variable,) = (variable for variable in VARIABLES if variable.name == f"VAULT_STREAM_{name}")
    value = variable.value(load_settings({}))
    assert shown == ("-" if value is None else f"{value:g}" if isinstance(value, float) else str(value))


def test_no_setting_of_the_policy_service_is_missing() -> None:
    shared = {
        "TOKEN",
        "CONNECT_TIMEOUT_S",
        "AUTH_HEADER",
        "IDEMPOTENCY_HEADER",
        "SSL_CA",
        "SSL_CERT",
        "SSL_KEY",
        "PROXY",
    }
    prefix = "VAULT_STREAM_POLICY__"
    known = {variable.name.removeprefix(prefix) for variable in VARIABLES if variable.name.startswith(prefix)}
    assert known - shared == {name.removeprefix("POLICY__") for name, _ in SETTINGS}


def test_the_metrics_are_there() -> None:
    _, scraped = metrics.render("")
    assert METRICS
    for name in METRICS:
        assert f"# TYPE {name.removesuffix('_total')}".encode() in scraped


async def test_the_example_denies_while_there_is_no_engine(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    script = tmp_path / "example.py"
    script.write_text(example)
    assert await runpy.run_path(str(script))["may_read"]("alice", "ds-1") is False
