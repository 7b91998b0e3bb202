"""The alerts: each fires in its trouble, is silent in a healthy night, and has a page for who is woken by it."""

import copy
import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from app.observability import metrics
from deploy.files import ALERTS, ROOT, generated
from tests.support.deploy_tools import ended, require, said

CASES: Final = Path(__file__).parent / "alerts"
RUNBOOKS: Final = ROOT / "docs" / "runbooks"
FILE: Final[dict[str, Any]] = yaml.safe_load(ALERTS.read_text())
RULES: Final[dict[str, dict[str, Any]]] = {rule["alert"]: rule for group in FILE["groups"] for rule in group["rules"]}
FIRES: Final[dict[str, dict[str, Any]]] = {
    case["name"]: case for case in yaml.safe_load((CASES / "fires.yaml").read_text())["tests"]
}
SILENT: Final = yaml.safe_load((CASES / "silent.yaml").read_text())
OF_PROMETHEUS: Final = {"up"}
OF_THE_TARGET: Final = {"instance", "job", "le"}
WORDS: Final = {"and", "or", "unless", "offset", "by", "on", "bool", "ignoring", "without"}


def labels_of() -> dict[str, set[str]]:
    """The labels of each series that `/metrics` can show, by name."""
    known = {}
    for name, collector in metrics.REGISTRY._names_to_collectors.items():
        known[name] = set(collector._labelnames)
    return known


def series_in(expr: str) -> set[str]:
    """The names of the series in an expression."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\"[^\"]*\"", " ", expr)
    bare = re.sub(r"\b(?:by|on|ignoring|without)\s*\([^)]*\)", " ", bare)
    return {name for name in re.findall(r"(?<![\w.])[a-zA-Z_]\w*\b(?!\s*\()", bare) if name not in WORDS}


def labels_in(expr: str) -> set[str]:
    """The labels that an expression selects or groups by."""
    selected = {label for inside in re.findall(r"\{([^}]*)\}", expr) for label in re.findall(r"(\w+)\s*[=!]", inside)}
    grouped = {label for inside in re.findall(r"\bby\s*\(([^)]*)\)", expr) for label in re.findall(r"\w+", inside)}
    return selected | grouped


def unknown_in(expr: str) -> set[str]:
    """Names of series and labels that this program does not have."""
    known = labels_of()
    names = series_in(expr) - OF_PROMETHEUS
    labels = {label for name in names for label in known.get(name, ())}
    return (names - known.keys()) | (labels_in(expr) - labels - OF_THE_TARGET)


@pytest.mark.parametrize("alert", RULES)
def test_an_alert_asks_for_what_the_program_measures(alert: str) -> None:
    assert unknown_in(RULES[alert]["expr"]) == set()


@pytest.mark.parametrize(
    ("expr", "unknown"),
    [
        ("sum(vault_stream_consumer_lagg) > 1", {"vault_stream_consumer_lagg"}),
        ("sum by (topics) (vault_stream_consumer_lag) > 1", {"topics"}),
        ('increase(vault_stream_attempts_total{klass="2xx"}[5m] offset 5m) > 1', {"klass"}),
    ],
)
def test_a_misspelt_series_or_label_is_seen(expr: str, unknown: set[str]) -> None:
    assert unknown_in(expr) == unknown


@pytest.mark.parametrize("alert", RULES)
def test_an_alert_says_what_how_bad_and_where_to_read_on(alert: str) -> None:
    rule = RULES[alert]

    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{alert}.md"


@pytest.mark.parametrize("alert", RULES)
def test_an_alert_has_its_page(alert: str) -> None:
    page = (RUNBOOKS / f"{alert}.md").read_text()
    parts = re.split(r"^#+ (.*)\n", page, flags=re.MULTILINE)

    assert parts[1::2] == [alert, "Meaning", "Impact", "Diagnosis", "Mitigation"]
    assert all(len(text.strip()) > 15 for text in parts[4::2])


def test_no_page_is_left_of_an_alert_that_is_gone_and_links_lead_somewhere() -> None:
    pages = {page.stem: page for page in RUNBOOKS.glob("*.md")}
    links = [(page, link) for page in pages.values() for link in re.findall(r"\]\(([^)#]+)", page.read_text())]

    assert pages.keys() == RULES.keys()
    assert [str(page) for page, link in links if not (page.parent / link).exists()] == []


def test_a_page_names_series_that_there_are() -> None:
    known = labels_of()
    named = {
        (page.stem, name)
        for page in RUNBOOKS.glob("*.md")
        for name in re.findall(r"\bvault_stream_\w+", page.read_text())
    }

    assert {name for _, name in named} - known.keys() == set()


def test_what_is_generated_is_what_is_in_the_repository() -> None:
    files = generated()

    assert [path.name for path, text in files.items() if path.read_text() != text] == []
    assert {path.name for path in files} == {"dashboard.json", "prometheusrule.yaml", "topics.yaml", "user.yaml"}


def test_every_alert_has_a_case_that_is_silent_before_it_fires() -> None:
    silent_then_firing = {
        name
        for name, case in FIRES.items()
        if not case["promql_expr_test"][0]["exp_samples"] and case["promql_expr_test"][1]["exp_samples"]
    }

    assert silent_then_firing == RULES.keys()


# -- by promtool


def verdict(folder: Path, rules: dict[str, Any], cases: dict[str, Any]) -> tuple[bool, str]:
    """Whether the cases hold for the rules, and what promtool said."""
    (folder / "alerts.yaml").write_text(yaml.safe_dump(rules))
    (folder / "cases.yaml").write_text(yaml.safe_dump(cases))
    done = ended(require("promtool"), "test", "rules", "cases.yaml", cwd=folder)
    return done.returncode == 0, said(done)


def changed(**fields: Any) -> dict[str, Any]:
    """The rules, each with these other fields."""
    rules = copy.deepcopy(FILE)
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule.update(fields)
    return rules


def cases(*alerts: str) -> dict[str, Any]:
    """The cases of these alerts."""
    head = {"rule_files": ["alerts.yaml"], "evaluation_interval": "1m"}
    return head | {"tests": [FIRES[alert] for alert in alerts]}


@pytest.mark.foreign
def test_the_rules_are_rules(tmp_path: Path) -> None:
    promtool = require("promtool")
    broken = tmp_path / "broken.yaml"
    broken.write_text(ALERTS.read_text().replace("sum by (topic)", "sum by topic)", 1))

    good, bad = ended(promtool, "check", "rules", str(ALERTS)), ended(promtool, "check", "rules", str(broken))

    assert good.returncode == 0, said(good)
    assert bad.returncode != 0


@pytest.mark.foreign
def test_each_alert_fires_in_its_trouble_and_not_before(tmp_path: Path) -> None:
    holds, text = verdict(tmp_path, FILE, cases(*RULES))

    assert holds, text


@pytest.mark.foreign
def test_no_alert_fires_in_a_healthy_night(tmp_path: Path) -> None:
    holds, text = verdict(tmp_path, FILE, SILENT)

    assert holds, text


@pytest.mark.foreign
def test_an_alert_without_patience_fires_in_a_healthy_night(tmp_path: Path) -> None:
    holds, text = verdict(tmp_path, changed(**{"for": "0s"}), SILENT)

    assert not holds, text


@pytest.mark.foreign
@pytest.mark.parametrize(("planted", "expr"), [("deaf", "vector(0) > 1"), ("always on", "vector(1)")])
def test_each_alert_that_is_broken_fails_its_case(tmp_path: Path, planted: str, expr: str) -> None:
    _, text = verdict(tmp_path, changed(expr=expr, **{"for": "0s"}), cases(*RULES))
    failed = set(re.findall(r'expr: "ALERTS\{alertname=\\"(\w+)', text))

    assert failed == RULES.keys()
