"""The page about trying it: what it names is there. That it comes to pass is in `tests/system/test_dev.py`."""

import re
from pathlib import Path

from click.testing import CliRunner

from app.cli import cli
from app.cli.dev import dev
from app.devstack.standins.faults import Fault
from app.settings import Settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "trying-it.md").read_text()


def test_its_options_are_options() -> None:
    known = {option for parameter in dev.params for option in parameter.opts}
    named = set(re.findall(r"--[a-z][a-z-]+", PAGE)) - {"--sample"}
    assert named == known


def test_its_commands_are_commands() -> None:
    named = set(re.findall(r"vault-stream ((?:[a-z][a-z-]* ?)+?)(?= --|`|\)| DELIVERY_ID|$)", PAGE, re.MULTILINE))
    assert {"dev", "publish", "deliveries resend"} <= named
    for command in named:
        shown = CliRunner().invoke(cli, [*command.split(), "--help"])
        assert shown.exit_code == 0, (command, shown.output)


def test_its_settings_are_settings() -> None:
    named = set(re.findall(r"VAULT_STREAM_([A-Z][A-Z_]+)", PAGE))
    assert {"APP_ID", "TOPIC_PREFIX", "WEB_PORT", "WEBHOOKS__ENCRYPTION_KEYS"} <= named
    for name in named:
        group, _, field = name.lower().partition("__")
        owner = getattr(Settings(), group)
        assert not field or field in type(owner).model_fields, name


def test_its_target_is_one_of_the_makefile() -> None:
    assert re.search(r"^dev:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_what_it_tells_a_stand_in_is_understood() -> None:
    (told,) = re.findall(r"curl -d '(.*?)'", PAGE)
    assert Fault.parse(told.encode()).status == 503
