"""What `/metrics` answers, read by Prometheus's own linter."""

from typing import Final

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from app.observability import metrics
from tests.support.deploy_tools import ended, require, said

pytestmark = pytest.mark.foreign

HOSTILE: Final = ('"\\\n{}', "é", "# {")


@pytest.fixture(scope="module")
def exposition() -> str:
    """With a sample of each metric that has labels, of values that the format must escape."""
    labelled = [found for name in metrics.__all__ if getattr(found := getattr(metrics, name), "_labelnames", ())]
    for metric in labelled:
        metric.labels(*HOSTILE[: len(metric._labelnames)])
    shown = metrics.render("")[1].decode()
    for metric in labelled:
        metric.remove(*HOSTILE[: len(metric._labelnames)])
    return shown


def test_prometheus_finds_nothing_wrong_with_it(exposition: str) -> None:
    assert exposition.count('"\\"\\\\\\n{}"') > 20
    done = ended(require("promtool"), "check", "metrics", input_=exposition)
    assert (done.returncode, said(done)) == (0, "")


def test_the_linter_sees_a_name_that_breaks_the_rules(exposition: str) -> None:
    planted = exposition + "# HELP took_ms Duration.\n# TYPE took_ms counter\ntook_ms 1\n"
    assert ended(require("promtool"), "check", "metrics", input_=planted).returncode != 0


def test_openmetrics_ends_as_it_must() -> None:
    shown = metrics.render("application/openmetrics-text; version=1.0.0")[1].decode()
    assert list(text_string_to_metric_families(shown))
